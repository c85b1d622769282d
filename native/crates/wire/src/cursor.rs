//! Protobuf's outer form: tags, varints, lengths.

/// Bytes that are no message, or one that only the general reader should judge. `at`: bytes from the beginning of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset in the message that was read.
    pub at: usize,
    /// What was expected there.
    pub expected: &'static str,
}

/// Bytes of a tag or length at most.
const SHORT_MAX: usize = 5;

/// One field's value as the wire has it.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a length-delimited field.
    #[inline]
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed { at: 0, expected: "a length-delimited field" }),
        }
    }

    /// A varint field as a signed number (etcd's int64 are plain varints).
    #[inline]
    pub fn int(self) -> Result<i64, Malformed> {
        match self {
            Field::Varint(value) => Ok(value.cast_signed()),
            _ => Err(Malformed { at: 0, expected: "a varint field" }),
        }
    }

    /// A varint field as an unsigned number.
    #[inline]
    pub fn uint(self) -> Result<u64, Malformed> {
        match self {
            Field::Varint(value) => Ok(value),
            _ => Err(Malformed { at: 0, expected: "a varint field" }),
        }
    }

    /// A varint field as a truth value.
    #[inline]
    pub fn truth(self) -> Result<bool, Malformed> {
        Ok(self.uint()? != 0)
    }
}

/// The fields of one message in the order of the wire. Ends at the end of the bytes; an error ends it too.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `data`.
    #[inline]
    pub fn new(data: &'a [u8]) -> Self {
        Fields { data, at: 0 }
    }

    /// The next field: its number and value; None at the end.
    #[inline(always)]
    pub fn step(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        if self.at >= self.data.len() {
            return Ok(None);
        }
        let began = self.at;
        let tag = self.varint()?;
        // protobuf's own readers take a tag of 32 bits in at most five bytes.
        let tag = u32::try_from(tag).ok().filter(|_| self.at - began <= SHORT_MAX).ok_or_else(|| self.malformed("a field number"))?;
        let number = tag >> 3;
        if number == 0 {
            return Err(self.malformed("a field number above 0"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.take()?)),
            2 => {
                let began = self.at;
                let length = self.varint()?;
                // As with tags: at most 31 bits in at most five bytes.
                if length >> 31 != 0 || self.at - began > SHORT_MAX {
                    return Err(self.malformed("a length"));
                }
                let length = length as usize;
                let rest = &self.data[self.at..];
                let bytes = rest.get(..length).ok_or_else(|| self.malformed("as many bytes as the length says"))?;
                self.at += length;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take()?)),
            _ => return Err(self.malformed("wire type 0, 1, 2 or 5")),
        };
        Ok(Some((number, field)))
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.data.get(self.at..self.at + N).ok_or_else(|| self.malformed("a fixed number of bytes"))?;
        self.at += N;
        Ok(bytes.try_into().expect("the slice has that length"))
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match varint(&self.data[self.at..]) {
            Some((value, length)) => {
                self.at += length;
                Ok(value)
            }
            None => Err(self.malformed("a varint")),
        }
    }

    #[cold]
    fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.at, expected }
    }
}

/// The varint at the beginning of `data` and how many bytes it takes; None where there is none.
#[inline]
pub fn varint(data: &[u8]) -> Option<(u64, usize)> {
    match data {
        &[first, ..] if first < 0x80 => Some((u64::from(first), 1)),
        &[first, second, ..] if second < 0x80 => Some((u64::from(first & 0x7f) | u64::from(second) << 7, 2)),
        [_, _, _, _, _, _, _, _, _, _, ..] => long_varint(data),
        _ => short_of_bytes(data),
    }
}

/// A varint of more than two bytes, with ten to look at: the ids of clusters and members take nine or ten, so its bytes are joined in steps
/// of two, four and eight and not one by one.
#[inline]
fn long_varint(data: &[u8]) -> Option<(u64, usize)> {
    const GOES_ON: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    let stops = !word & GOES_ON;
    // All bits up to the one that ends it; all of them where none does.
    let mut bits = word & (stops ^ stops.wrapping_sub(1)) & !GOES_ON;
    bits = (bits & 0x007f_007f_007f_007f) | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
    bits = (bits & 0x0000_3fff_0000_3fff) | (bits & 0x3fff_0000_3fff_0000) >> 2;
    bits = (bits & 0x0000_0000_0fff_ffff) | (bits & 0x0fff_ffff_0000_0000) >> 4;
    if stops != 0 {
        return Some((bits, stops.trailing_zeros() as usize / 8 + 1));
    }
    match (data[8], data[9]) {
        (ninth, _) if ninth < 0x80 => Some((bits | u64::from(ninth) << 56, 9)),
        // The tenth byte has room for one bit; what protobuf does with more is not ours to guess.
        (ninth, tenth) if tenth < 2 => Some((bits | u64::from(ninth & 0x7f) << 56 | u64::from(tenth) << 63, 10)),
        _ => None,
    }
}

/// The same where fewer than ten bytes are left.
#[cold]
fn short_of_bytes(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in data.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// `bytes` as text; protobuf's strings are UTF-8 or malformed.
#[inline]
pub fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| Malformed { at: error.valid_up_to(), expected: "UTF-8" })
}

#[cfg(test)]
mod tests {
    use super::varint;

    /// Every number comes back, whatever its length and however many bytes follow; what has no end, or needs more than 64 bits, is none.
    #[test]
    fn varints_of_every_length() {
        for bits in 0..=64 {
            for value in [
                u64::MAX.checked_shr(64 - bits).unwrap_or(0),
                1u64.checked_shl(bits).unwrap_or(0),
                0x5555_5555_5555_5555 >> (64 - bits.max(1)),
            ] {
                let (mut bytes, mut rest) = (Vec::new(), value);
                while rest > 0x7f {
                    bytes.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                bytes.push(rest as u8);
                let size = bytes.len();
                for end in 0..size {
                    assert_eq!(varint(&bytes[..end]), None, "{value:x} cut at {end}");
                }
                for following in [0x00, 0x7f, 0x80, 0xff] {
                    for count in 0..12 {
                        let mut data = bytes.clone();
                        data.extend(std::iter::repeat_n(following, count));
                        assert_eq!(varint(&data), Some((value, size)), "{value:x} and {count} bytes of {following:x}");
                    }
                }
            }
        }
        assert_eq!(varint(&[0xff; 12]), None);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00]), None);
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00]), None);
    }
}
