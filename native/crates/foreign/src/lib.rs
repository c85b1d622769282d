//! Histories that others recorded, in columns: operations on objects, their values interned.
//!
//! ```text
//! text ── edn, log, json ──> entries ── pairing ──> Objects { process, call, ret, outcome, f, key, input, output } + names + values
//! ```
//!
//! The reference is `src/pekan/history/foreign` in Python. A reader here takes a text or declines it; it never says what is wrong with one:
//! the reader in Python, asked next, does. What is taken is the same history there, and nothing is taken that is refused there.

mod edn;
mod json;
mod log;
mod objects;
mod pairing;
pub mod robustness;

pub use json::Header;
pub use objects::{Mark, NONE, Objects, Outcome, Place, Value, Values};

/// This text is left to the reader in Python, for the reason named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declined(pub &'static str);

/// A history, and what its file says about it.
#[derive(Debug, Default)]
pub struct Read {
    /// The operations.
    pub objects: Objects,
    /// What the first line of a file in Pekan's JSON Lines says.
    pub header: Header,
}

/// The history that `bytes` tell in `format`, one of `edn`, `porcupine-kv`, `porcupine-jepsen`, `jepsen-json`, `jsonl`.
pub fn read(bytes: &[u8], format: &str) -> Result<Read, Declined> {
    let text = std::str::from_utf8(bytes).map_err(|_| Declined("not UTF-8"))?;
    if text.len() >= u32::MAX as usize {
        return Err(Declined("4 GiB of text or more"));
    }
    let objects = match format {
        "edn" | "porcupine-kv" => edn::read(text)?,
        "porcupine-jepsen" => log::read(text)?,
        "jepsen-json" => json::read_entries(text)?,
        "jsonl" => return json::read_operations(text),
        _ => return Err(Declined("a format that the core does not read")),
    };
    Ok(Read { objects, header: Header::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_however_it_is_asked_for() {
        let mut values = Values::default();
        let number = values.intern(Value::Text("a".into()));
        assert_eq!(values.text("a"), number);
        let name = values.name("a");
        assert_ne!(name, number);
        assert_eq!(values.intern(Value::Name("a".into())), name);
    }

    #[test]
    fn entries_are_paired() {
        let text = b"{:process 0, :type :invoke, :f :write, :value 3, :time 10}
            {:process :nemesis :type :info :f :kill :time 11}
            #jepsen.history.Op{:process 0, :type :ok, :f :write, :value 3, :time 12, :index 1}
            {:process 1, :type :invoke, :f :read, :value nil, :time 13}";
        let objects = read(text, "edn").unwrap().objects;
        assert_eq!((&objects.call[..], &objects.ret[..]), (&[10, 13][..], &[12, i64::MAX][..]));
        assert_eq!(objects.outcome, [Outcome::Ok as u8, Outcome::Indefinite as u8]);
        assert_eq!(objects.values.get(objects.input[0]), &Value::Int(3));
        assert_eq!(objects.marks.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_declined() {
        for text in ["{:process 0 :type :ok :f :read}", "{:process 0", "[{:a 1}", "{:process 0 :type :invoke :f :read}]", "17"] {
            assert!(read(text.as_bytes(), "edn").is_err(), "{text}");
        }
        assert!(read(b"\xff", "edn").is_err());
    }
}
