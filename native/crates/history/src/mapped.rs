//! A record file and its columns together: the columns are views into the mapped file.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::{Columns, Declined, load};

/// A record file, loaded. Columns first: fields are dropped in this order, and the columns look into the map.
pub struct Recorded {
    columns: Columns<'static>,
    held: Held,
}

/// What the columns look into.
enum Held {
    Map(Mmap),
    Made(Vec<u8>),
}

/// Why there is no [`Recorded`].
#[derive(Debug)]
pub enum NotLoaded {
    /// The reader in Python is to read it, and to say what is wrong with it where something is.
    Declined(Declined),
    /// The file cannot be opened or mapped.
    Io(io::Error),
}

impl Recorded {
    /// Maps and loads the file at `path`. `definite` says of each distinct (code, message) whether it promises that nothing happened; None
    /// where it cannot say, and then nothing is loaded.
    pub fn open(path: &Path, definite: &mut dyn FnMut(u32, &str) -> Option<bool>) -> Result<Recorded, NotLoaded> {
        let file = File::open(path).map_err(NotLoaded::Io)?;
        if !file.metadata().map_err(NotLoaded::Io)?.is_file() {
            return Err(NotLoaded::Declined(Declined::new(0, "not a regular file")));
        }
        // SAFETY: a map must not change while it is looked into. A record is evidence: it is appended to by its one writer and never
        // written again (`history/run.py`), so the bytes below the size at this moment stay. Whoever truncates it while it is judged gets a
        // SIGBUS, as with every mapped file; no memory of this process is touched.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(NotLoaded::Io)?;
        let bytes: &[u8] = &map;
        // SAFETY: the bytes live in the map, whose address does not change when `map` moves; it is unmapped after `columns` is dropped (the
        // order of the fields), and `columns()` lends the columns for no longer than `self` lives.
        #[allow(unsafe_code)]
        let bytes: &'static [u8] = unsafe { &*std::ptr::from_ref(bytes) };
        let columns = load(bytes, definite).map_err(NotLoaded::Declined)?;
        Ok(Recorded { columns, held: Held::Map(map) })
    }

    /// Loads records that were made here, out of a history in another format.
    pub fn of(records: Vec<u8>, definite: &mut dyn FnMut(u32, &str) -> Option<bool>) -> Result<Recorded, Declined> {
        let bytes: &[u8] = &records;
        // SAFETY: as in `open`: the bytes lie on the heap, nobody writes them, and they do not move when the vector does.
        #[allow(unsafe_code)]
        let bytes: &'static [u8] = unsafe { &*std::ptr::from_ref(bytes) };
        let columns = load(bytes, definite)?;
        Ok(Recorded { columns, held: Held::Made(records) })
    }

    /// The columns.
    #[inline]
    pub fn columns(&self) -> &Columns<'_> {
        &self.columns
    }

    /// The whole file.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Map(map) => map,
            Held::Made(records) => records,
        }
    }
}
