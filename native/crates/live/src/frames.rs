//! Records out of a file that grows; the form is that of `src/pekan/history/records.py`.

use pekan_wire::varint;

/// Bytes of the crc field at the end of a record, its tag included.
const TRAILER: usize = 5;
/// Tag of the crc field: field 15, wire type 5.
const CRC_TAG: u8 = 0x7d;
/// A record longer than this is damage: etcd's own messages end at a few MiB.
const LENGTH_MAX: u64 = 1 << 31;

/// Bytes that are no record. `at`: offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where the record would begin.
    pub at: u64,
}

/// Takes bytes as they are appended and gives whole records.
#[derive(Debug, Default)]
pub struct Frames {
    kept: Vec<u8>,
    from: usize,
    offset: u64,
}

impl Frames {
    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.drain(..self.from);
        self.from = 0;
        self.kept.extend_from_slice(bytes);
    }

    /// Bytes that are kept because their record is not whole.
    pub fn pending(&self) -> usize {
        self.kept.len() - self.from
    }

    /// The next whole record, without its length and its checksum; None until more bytes come.
    pub fn take(&mut self) -> Result<Option<&[u8]>, Damaged> {
        let rest = &self.kept[self.from..];
        let Some((length, head)) = varint(rest) else {
            return if rest.len() < 10 { Ok(None) } else { Err(Damaged { at: self.offset }) };
        };
        if length > LENGTH_MAX || length <= TRAILER as u64 {
            return Err(Damaged { at: self.offset });
        }
        let Ok(length) = usize::try_from(length) else { return Err(Damaged { at: self.offset }) };
        let end = head + length;
        if rest.len() < end {
            return Ok(None);
        }
        let tail = end - TRAILER;
        let stored = u32::from_le_bytes(rest[tail + 1..end].try_into().expect("four bytes"));
        if rest[tail] != CRC_TAG || crc32fast::hash(&rest[head..tail]) != stored {
            return Err(Damaged { at: self.offset });
        }
        let start = self.from + head;
        self.from += end;
        self.offset += end as u64;
        Ok(Some(&self.kept[start..self.from - TRAILER]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut out = vec![u8::try_from(body.len() + TRAILER).expect("short")];
        out.extend_from_slice(body);
        out.push(CRC_TAG);
        out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        out
    }

    /// Records come out whole and in order however the bytes are cut.
    #[test]
    fn any_cut() {
        let file: Vec<u8> = [framed(b"one record"), framed(b"another one"), framed(b"x")].concat();
        for step in 1..file.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in file.chunks(step) {
                frames.push(piece);
                while let Some(record) = frames.take().expect("whole") {
                    seen.push(record.to_vec());
                }
            }
            assert_eq!(seen, [b"one record".to_vec(), b"another one".to_vec(), b"x".to_vec()]);
            assert_eq!(frames.pending(), 0);
        }
    }

    /// A changed byte is damage, at the offset of its record.
    #[test]
    fn damage_is_placed() {
        let first = framed(b"one record");
        let mut file = [first.clone(), framed(b"another one")].concat();
        file[first.len() + 3] ^= 1;
        let mut frames = Frames::default();
        frames.push(&file);
        assert!(frames.take().expect("the first is whole").is_some());
        assert_eq!(frames.take(), Err(Damaged { at: first.len() as u64 }));
    }
}
