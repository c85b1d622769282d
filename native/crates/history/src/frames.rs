//! Records one after the other; the framing of `src/pekan/history/records.py`.
//!
//! ```text
//! record = length (varint) | time_ns (tag 0x09, 8 bytes) | body (tag, length, bytes) | crc (tag 0x7d, 4 bytes)
//!          '- of the rest -'  '------- covered by the CRC-32 (zlib) in the last field -------'
//! ```

use pekan_wire::varint;

use crate::Declined;

/// Field 15, wire type 5: how the checksum is announced.
const CRC_TAG: u8 = 0x7d;
/// Field 1, wire type 1: how every record of our writer begins.
const TIME_TAG: u8 = 0x09;
/// Bytes of the checksum, its tag included.
const TRAILER: usize = 5;
/// Bytes of the time, its tag included.
const TIME: usize = 9;
/// Lengths of 2 GiB and more are no lengths of a protobuf message: damage.
const LENGTH_END: u64 = 1 << 31;
/// Bytes that such a length takes at most.
const LENGTH_SIZE_MAX: usize = 5;
/// Field 2 to 14, length-delimited: what a record may hold beside its time.
const BODIES: std::ops::RangeInclusive<u64> = 2..=14;

/// One record of the form that our writer gives it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where it begins in the file, its length included.
    pub offset: usize,
    /// Where it begins without its length.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Nanoseconds of the run's clock.
    pub time: u64,
    /// Number of the field that is its body.
    pub field: u64,
    /// Its body.
    pub body: &'a [u8],
}

/// All records of a file, checksums verified.
#[derive(Debug)]
pub struct Frames<'a> {
    data: &'a [u8],
    at: usize,
    /// Bytes dropped at the end, known when the end is reached.
    pub cut: u64,
}

impl<'a> Frames<'a> {
    /// The records in `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Frames { data, at: 0, cut: 0 }
    }

    /// The next record, None at the end. Declines what is damaged, and a record of another form than our writer's.
    #[inline]
    pub fn step(&mut self) -> Result<Option<Frame<'a>>, Declined> {
        let (data, offset) = (self.data, self.at);
        if offset == data.len() {
            return if offset == 0 { Err(Declined::new(0, "the file is empty")) } else { Ok(None) };
        }
        let Some((start, end)) = extent(data, offset) else { return self.stop() };
        let covered = &data[start..end - TRAILER];
        let stored = u32::from_le_bytes([data[end - 4], data[end - 3], data[end - 2], data[end - 1]]);
        if data[end - TRAILER] != CRC_TAG || crc32fast::hash(covered) != stored {
            return self.stop();
        }
        self.at = end;
        match outer(covered) {
            Some((time, field, body)) => Ok(Some(Frame { offset, start, end, time, field, body })),
            None => Err(Declined::new(offset, "a record in a form that our writer does not give it")),
        }
    }

    /// No record here: the end of a file whose writer was killed, or damage.
    #[cold]
    fn stop(&mut self) -> Result<Option<Frame<'a>>, Declined> {
        if self.at == 0 {
            return Err(Declined::new(0, "not a history"));
        }
        if record_after(self.data, self.at) {
            return Err(Declined::new(self.at, "damaged"));
        }
        self.cut = (self.data.len() - self.at) as u64;
        self.at = self.data.len();
        Ok(None)
    }
}

/// A length: (value, bytes it takes); None where there is none that a record can have, or the data end inside it.
#[inline]
fn length_at(data: &[u8]) -> Option<(usize, usize)> {
    let (value, size) = varint(data)?;
    (value < LENGTH_END && size <= LENGTH_SIZE_MAX).then_some((value as usize, size))
}

/// Where the record at `offset` begins and ends, its length not included.
#[inline]
fn extent(data: &[u8], offset: usize) -> Option<(usize, usize)> {
    let (length, size) = length_at(&data[offset..])?;
    let start = offset + size;
    let end = start.checked_add(length)?;
    (length > TRAILER && end <= data.len()).then_some((start, end))
}

/// Time, body's field and body of a record whose checksum is cut off.
#[inline]
fn outer(data: &[u8]) -> Option<(u64, u64, &[u8])> {
    if data.len() < TIME + 2 || data[0] != TIME_TAG {
        return None;
    }
    let time = u64::from_le_bytes(data[1..TIME].try_into().ok()?);
    let tag = u64::from(data[TIME]);
    let (length, size) = length_at(&data[TIME + 1..])?;
    let body = &data[TIME + 1 + size..];
    (tag & 7 == 2 && BODIES.contains(&(tag >> 3)) && body.len() == length).then_some((time, tag >> 3, body))
}

/// True where a record with a valid checksum begins at or after `offset`, its own length not counted.
///
/// Does not trust the length before a record, which may be what is damaged: a record says inside where its body ends.
#[cold]
fn record_after(data: &[u8], offset: usize) -> bool {
    (offset..data.len().saturating_sub(TIME + 1)).any(|start| {
        let tag = u64::from(data[start + TIME]);
        if data[start] != TIME_TAG || tag & 7 != 2 || !BODIES.contains(&(tag >> 3)) {
            return false;
        }
        let Some((length, size)) = length_at(&data[start + TIME + 1..]) else { return false };
        let end = start + TIME + 1 + size + length;
        end + TRAILER <= data.len()
            && data[end] == CRC_TAG
            && data[end + 1..end + TRAILER] == crc32fast::hash(&data[start..end]).to_le_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::Frames;

    /// A record as the writer in Python would write it: `body` is that of a mark.
    fn record(time: u64, body: &[u8]) -> Vec<u8> {
        let mut covered = vec![0x09];
        covered.extend(time.to_le_bytes());
        covered.extend([0x52, u8::try_from(body.len()).expect("a short body")]);
        covered.extend(body);
        let crc = crc32fast::hash(&covered).to_le_bytes();
        let mut whole = vec![u8::try_from(covered.len() + 5).expect("a short record")];
        whole.extend(covered);
        whole.push(0x7d);
        whole.extend(crc);
        whole
    }

    fn read(data: &[u8]) -> Option<(Vec<u64>, u64)> {
        let (mut frames, mut times) = (Frames::new(data), Vec::new());
        loop {
            match frames.step() {
                Ok(Some(frame)) => times.push(frame.time),
                Ok(None) => return Some((times, frames.cut)),
                Err(_) => return None,
            }
        }
    }

    /// A file that ends in mid-record is read up to there, wherever the cut is; a file of half a record is none.
    #[test]
    fn a_cut_tail_is_dropped_and_counted() {
        let records = [record(1, b"\x0a\x01a"), record(2, b""), record(3, b"\x0a\x02bc")];
        let whole = records.concat();
        assert_eq!(read(&whole), Some((vec![1, 2, 3], 0)));
        for end in 0..whole.len() {
            let (mut times, mut size) = (Vec::new(), 0);
            for (index, record) in records.iter().enumerate().take_while(|&(i, _)| records[..=i].concat().len() <= end) {
                times.push(index as u64 + 1);
                size += record.len();
            }
            let expected = (!times.is_empty()).then_some((times, (end - size) as u64));
            assert_eq!(read(&whole[..end]), expected, "cut at {end}");
        }
    }

    /// Every single flipped bit before the last record is damage, since a whole record lies after it.
    #[test]
    fn a_flipped_bit_is_seen() {
        let (first, last) = (record(1, b"\x0a\x01a"), record(2, b"\x0a\x01b"));
        for bit in 0..first.len() * 8 {
            let mut damaged = first.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&[damaged, last.clone()].concat()), None, "bit {bit}");
        }
    }
}
