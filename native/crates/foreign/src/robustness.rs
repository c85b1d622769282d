//! Report directories of etcd's robustness tests, as the record file that Pekan would have written of the same traffic.
//!
//! ```text
//! operations.json, watch.json ── read ──> Report ── slots, facts ──> what was not recorded is put back ── write ──> records
//! ```
//!
//! The rules, and what each of them is for, are in `src/pekan/history/foreign/robustness.py`: one function here for one there.

mod facts;
mod parse;
mod write;

use crate::Declined;
use facts::Facts;
use parse::{Operation, Watch};

/// One file of a report: its client (`client-N`), the text, and whether it holds watches.
pub struct File<'a> {
    /// Name of the client's directory.
    pub client: &'a str,
    /// The file.
    pub text: &'a str,
    /// `watch.json`, else `operations.json`.
    pub watches: bool,
}

/// A report as records, and what is to be said about it.
pub struct Recorded {
    /// Records, each with its length, as in `history.pb`.
    pub records: Vec<u8>,
    /// Whether the store held nothing before the first write.
    pub empty: bool,
    /// Answers that count for their revision and count alone.
    pub weakened: u64,
    /// Watch events that are left out.
    pub left_out: u64,
}

/// All that the files of a report hold.
#[derive(Default)]
struct Report<'a> {
    operations: Vec<Operation<'a>>,
    watches: Vec<Watch<'a>>,
}

/// The records of a report. `files` are in order of their clients, operations before watches.
pub fn records(files: &[File<'_>], definite: &mut dyn FnMut(u32, &str) -> Option<bool>) -> Result<Recorded, Declined> {
    let mut report = Report::default();
    for (number, file) in (0..).zip(files) {
        parse::file(file.text, number, file.watches, &mut report)?;
    }
    report.operations.sort_by_key(|operation| operation.call);
    let empty = report.operations.iter().any(Operation::shows_an_empty_store);
    let facts = Facts::of(&report, empty)?;
    let clients: Vec<&str> = files.iter().map(|file| file.client).collect();
    write::records(&report, &facts, &clients, empty, definite)
}
