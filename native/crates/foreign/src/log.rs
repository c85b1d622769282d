//! Jepsen's log lines, as in Porcupine's tests: `INFO  jepsen.util - 0  :invoke  :cas  [1 2]`.

use crate::Declined;
use crate::edn::Cursor;
use crate::objects::{Objects, Values};
use crate::pairing::{Entry, Kind, NIL, Pairing, Who};
use memchr::{memchr, memmem};

const LOGGER: &[u8] = b"jepsen.util";
/// Digits of a process that 64 bits hold for sure.
const DIGITS_MAX: usize = 18;

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn blanks(line: &[u8]) -> &[u8] {
    let length = line.iter().take_while(|&&byte| blank(byte)).count();
    &line[length..]
}

/// Splits `line` behind its first word; None where no blank follows.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = line.iter().position(|&byte| blank(byte))?;
    Some((&line[..length], blanks(&line[length..])))
}

/// The history that `text` tells.
pub fn read(text: &str) -> Result<Objects, Declined> {
    let bytes = text.as_bytes();
    let finder = memmem::Finder::new(LOGGER);
    let mut pairing = Pairing::new(true);
    let mut ignored = Values::default();
    let mut start = 0;
    while start < bytes.len() {
        let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |length| start + length);
        let line = &bytes[start..end];
        for at in finder.find_iter(line) {
            if (at == 0 || blank(line[at - 1])) && entry(text, line, start, end, at + LOGGER.len(), &mut pairing, &mut ignored)? {
                break;
            }
        }
        start = end + 1;
    }
    pairing.finish()
}

/// Takes the entry of `line` whose logger's name ends at `at`; false where it is none of the history.
fn entry(
    text: &str,
    line: &[u8],
    start: usize,
    end: usize,
    at: usize,
    pairing: &mut Pairing,
    ignored: &mut Values,
) -> Result<bool, Declined> {
    let rest = &line[at..];
    if !rest.first().copied().is_some_and(blank) {
        return Ok(false);
    }
    let mut rest = blanks(rest);
    if let [b'-', after @ ..] = rest {
        if !after.first().copied().is_some_and(blank) {
            return Ok(false);
        }
        rest = blanks(after);
    }
    let Some((process, rest)) = word(rest) else { return Ok(false) };
    let who = match process {
        [b':', name @ ..] if !name.is_empty() && name.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-') => Who::Named,
        digits if digits.iter().all(u8::is_ascii_digit) => {
            if digits.len() > DIGITS_MAX {
                return Err(Declined("a process with too many digits"));
            }
            Who::Process(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
        }
        _ => return Ok(false),
    };
    let Some((kind, rest)) = word(rest) else { return Ok(false) };
    let Some(kind) = kind.strip_prefix(b":").and_then(Kind::of) else { return Ok(false) };
    let [b':', rest @ ..] = rest else { return Ok(false) };
    // The function ends where a space of any kind does.
    let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    if length == 0 {
        return Ok(false);
    }
    if rest[..length].contains(&0x0b) {
        return Err(Declined("a space that is rare"));
    }
    let from = end - rest.len();
    let f = pairing.values().name(&text[from..from + length]);
    let mut cursor = Cursor::new(&text[from + length..end]);
    let value = cursor.value(pairing.values())?;
    cursor.rest(ignored)?;
    pairing.add(&Entry { who, kind, f, value, key: NIL, time: None, start, end })?;
    Ok(true)
}
