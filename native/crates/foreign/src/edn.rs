//! EDN: entries as maps, one after another or in one vector or list.

use crate::Declined;
use crate::objects::{Objects, Value, Values};
use crate::pairing::{Entry, Kind, NIL, Pairing, Who};
use memchr::{memchr, memchr2};

/// As `values.MAX_DEPTH`.
pub const MAX_DEPTH: usize = 100;

/// What bytes may do. An atom begins with a byte that has no flag, and goes on over those without `ENDS`.
const ENDS: u8 = 1;
const SPACE: u8 = 2;
const NOT_FIRST: u8 = 4;
const FLAGS: [u8; 256] = flags();

const fn flags() -> [u8; 256] {
    let mut flags = [0; 256];
    let mut i = 0;
    let space = b" \t\n\r\x0b\x0c,";
    while i < space.len() {
        flags[space[i] as usize] = SPACE | ENDS;
        i += 1;
    }
    let ends = b";\"()[]{}\\^`~@";
    i = 0;
    while i < ends.len() {
        flags[ends[i] as usize] = ENDS;
        i += 1;
    }
    flags[b'#' as usize] = NOT_FIRST;
    flags[b'\'' as usize] = NOT_FIRST;
    flags
}

/// The next thing in a text.
enum Item {
    Value(u32),
    Close(u8),
    End,
}

/// A place in a text of EDN.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if FLAGS[byte as usize] & SPACE != 0 {
                self.at += 1;
            } else if byte == b';' {
                self.at = memchr(b'\n', &bytes[self.at..]).map_or(bytes.len(), |length| self.at + length);
            } else {
                return;
            }
        }
    }

    /// The atom here; empty where there is none.
    fn atom(&mut self) -> &'a str {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if bytes.get(start).is_some_and(|&byte| FLAGS[byte as usize] == 0) {
            self.at += 1;
            while bytes.get(self.at).is_some_and(|&byte| FLAGS[byte as usize] & ENDS == 0) {
                self.at += 1;
            }
        }
        &self.text[start..self.at]
    }

    /// The one value here, the end of the text behind it not looked at.
    pub fn value(&mut self, values: &mut Values) -> Result<u32, Declined> {
        match self.item(values, 0)? {
            Item::Value(value) => Ok(value),
            _ => Err(Declined("no value")),
        }
    }

    /// Whether nothing but values that can be read follow.
    pub fn rest(&mut self, values: &mut Values) -> Result<(), Declined> {
        loop {
            match self.item(values, 0)? {
                Item::Value(_) => {}
                Item::Close(_) => return Err(Declined("closes nothing")),
                Item::End => return Ok(()),
            }
        }
    }

    fn item(&mut self, values: &mut Values, depth: usize) -> Result<Item, Declined> {
        loop {
            self.space();
            let Some(byte) = self.peek() else { return Ok(Item::End) };
            match byte {
                b'"' => return self.string().map(|text| Item::Value(text.intern(values))),
                b')' | b']' | b'}' => {
                    self.at += 1;
                    return Ok(Item::Close(byte));
                }
                b'(' | b'[' | b'{' | b'#' | b'^' if depth >= MAX_DEPTH => return Err(Declined("nested too deep")),
                b'(' => return self.parts(values, depth, b')').map(|parts| Item::Value(values.intern(Value::List(parts.into())))),
                b'[' => return self.parts(values, depth, b']').map(|parts| Item::Value(values.intern(Value::List(parts.into())))),
                b'{' => {
                    let parts = self.parts(values, depth, b'}')?;
                    return map(values, &parts).map(Item::Value);
                }
                b'^' => {
                    self.at += 1;
                    self.one(values, depth + 1)?;
                }
                b'#' => {
                    if let Some(value) = self.dispatched(values, depth)? {
                        return Ok(Item::Value(value));
                    }
                }
                _ => {
                    let atom = self.atom();
                    return scalar(atom, values).map(Item::Value);
                }
            }
        }
    }

    /// A value that has to be here.
    fn one(&mut self, values: &mut Values, depth: usize) -> Result<u32, Declined> {
        match self.item(values, depth)? {
            Item::Value(value) => Ok(value),
            _ => Err(Declined("nothing follows")),
        }
    }

    /// What begins with `#`; None where it was left out.
    fn dispatched(&mut self, values: &mut Values, depth: usize) -> Result<Option<u32>, Declined> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'_') => {
                self.at += 2;
                self.one(values, depth + 1)?;
                Ok(None)
            }
            Some(b'{') => {
                self.at += 1;
                let mut parts = self.parts(values, depth, b'}')?;
                parts.sort_unstable();
                parts.dedup();
                Ok(Some(values.intern(Value::Set(parts.into()))))
            }
            Some(byte) if byte.is_ascii_alphabetic() => {
                self.tag();
                self.one(values, depth + 1).map(Some)
            }
            _ => Err(Declined("a dispatch that is rare")),
        }
    }

    /// Past a tag: `#`, a letter, and all that is no space and no delimiter.
    fn tag(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while bytes.get(self.at).is_some_and(|&byte| FLAGS[byte as usize] & SPACE == 0 && !b";\"()[]{}\\".contains(&byte)) {
            self.at += 1;
        }
    }

    /// What stands between the delimiter here and `close`.
    fn parts(&mut self, values: &mut Values, depth: usize, close: u8) -> Result<Vec<u32>, Declined> {
        self.at += 1;
        let mut parts = Vec::new();
        loop {
            match self.item(values, depth + 1)? {
                Item::Value(value) => parts.push(value),
                Item::Close(found) if found == close => return Ok(parts),
                _ => return Err(Declined("not closed, or by another delimiter")),
            }
        }
    }

    fn string(&mut self) -> Result<Told<'a>, Declined> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let Some(length) = memchr2(b'"', b'\\', &bytes[start..]) else { return Err(Declined("a string that never ends")) };
        if bytes[start + length] == b'"' {
            self.at = start + length + 1;
            return Ok(Told::Here(&self.text[start..start + length]));
        }
        let mut told = self.text[start..start + length].to_owned();
        let mut at = start + length;
        loop {
            let byte = match bytes.get(at + 1) {
                Some(b't') => '\t',
                Some(b'r') => '\r',
                Some(b'n') => '\n',
                Some(b'b') => '\x08',
                Some(b'f') => '\x0c',
                Some(b'\\') => '\\',
                Some(b'"') => '"',
                _ => return Err(Declined("an escape that is rare")),
            };
            told.push(byte);
            at += 2;
            let Some(length) = memchr2(b'"', b'\\', &bytes[at..]) else { return Err(Declined("a string that never ends")) };
            told.push_str(&self.text[at..at + length]);
            at += length;
            if bytes[at] == b'"' {
                self.at = at + 1;
                return Ok(Told::Made(told));
            }
        }
    }

    // ---- entries ----

    /// A whole number of 64 bits, where that is what is here.
    fn whole(&mut self) -> Option<i64> {
        let start = self.at;
        let found = whole(self.atom());
        if found.is_none() {
            self.at = start;
        }
        found
    }

    /// The entry whose map opens here, at depth `depth`.
    fn entry(&mut self, pairing: &mut Pairing, ignored: &mut Values, depth: usize) -> Result<Entry, Declined> {
        let start = self.at;
        self.at += 1;
        let mut seen = 0_u8;
        let mut others: Vec<&str> = Vec::new();
        let (mut who, mut kind, mut time) = (None, None, None);
        let (mut f, mut value, mut key) = (NIL, NIL, NIL);
        let depth = depth + 1;
        loop {
            self.space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                break;
            }
            let name = self.atom();
            if !name.starts_with(':') || name.len() == 1 {
                return Err(Declined("an entry whose key is no keyword"));
            }
            self.space();
            let field = match name {
                ":process" => {
                    who = Some(match self.whole() {
                        Some(process) => Who::Process(process),
                        None => match pairing.values().get_number(self, depth)? {
                            Value::Name(_) | Value::Text(_) => Who::Named,
                            _ => return Err(Declined("a process that is no number and no name")),
                        },
                    });
                    1
                }
                ":type" => {
                    let Some(found) = self.atom().strip_prefix(':').and_then(|name| Kind::of(name.as_bytes())) else {
                        return Err(Declined("a type that is none"));
                    };
                    kind = Some(found);
                    2
                }
                ":f" => {
                    f = self.one(pairing.values(), depth)?;
                    4
                }
                ":value" => {
                    value = self.one(pairing.values(), depth)?;
                    8
                }
                ":time" => {
                    match self.whole() {
                        Some(found) => time = Some(found),
                        None => match pairing.values().get_number(self, depth)? {
                            Value::Nil => {}
                            Value::Int(found) => time = Some(*found),
                            _ => return Err(Declined("a time that is no whole number")),
                        },
                    }
                    16
                }
                ":key" => {
                    key = self.one(pairing.values(), depth)?;
                    32
                }
                other => {
                    if others.contains(&other) {
                        return Err(Declined("a key twice"));
                    }
                    others.push(other);
                    if self.whole().is_none() {
                        self.one(ignored, depth)?;
                    }
                    0
                }
            };
            if seen & field != 0 {
                return Err(Declined("a key twice"));
            }
            seen |= field;
        }
        let (Some(who), Some(kind)) = (who, kind) else { return Err(Declined("an entry without process or type")) };
        Ok(Entry { who, kind, f, value, key, time, start, end: self.at })
    }
}

impl Values {
    /// The value that is read at `cursor`.
    fn get_number(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<&Value, Declined> {
        let number = cursor.one(self, depth)?;
        Ok(self.get(number))
    }
}

/// A string, copied only where it had to be.
enum Told<'a> {
    Here(&'a str),
    Made(String),
}

impl Told<'_> {
    fn intern(&self, values: &mut Values) -> u32 {
        match self {
            Told::Here(text) => values.text(text),
            Told::Made(text) => values.text(text),
        }
    }
}

fn map(values: &mut Values, parts: &[u32]) -> Result<u32, Declined> {
    if !parts.len().is_multiple_of(2) {
        return Err(Declined("a key without value"));
    }
    let mut pairs: Vec<(u32, u32)> = parts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    pairs.sort_unstable();
    if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err(Declined("a key twice"));
    }
    // Python takes a keyword and its text, and true and 1, for one key.
    let (mut names, mut texts) = (false, false);
    for &(key, _) in &pairs {
        match values.get(key) {
            Value::Name(_) => names = true,
            Value::Text(_) | Value::Nil | Value::Int(_) => texts = true,
            _ => return Err(Declined("a map with keys that are no names")),
        }
    }
    if names && texts {
        return Err(Declined("a map with keys of several kinds"));
    }
    Ok(values.intern(Value::Map(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect())))
}

/// A whole number as it is mostly written: a sign, and up to 18 digits without a leading zero.
fn whole(atom: &str) -> Option<i64> {
    let (minus, digits) = match atom.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut number = 0_i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(digit - b'0');
    }
    Some(if minus { -number } else { number })
}

fn scalar(atom: &str, values: &mut Values) -> Result<u32, Declined> {
    let bytes = atom.as_bytes();
    match bytes {
        [] => Err(Declined("no EDN")),
        [b':'] => Err(Declined("a keyword without name")),
        [b':', ..] => Ok(values.name(&atom[1..])),
        b"nil" => Ok(values.intern(Value::Nil)),
        b"true" => Ok(values.intern(Value::Bool(true))),
        b"false" => Ok(values.intern(Value::Bool(false))),
        [b'0'..=b'9', ..] | [b'+' | b'-', b'0'..=b'9', ..] => number(atom).map(|number| values.intern(number)),
        _ => Ok(values.name(atom)),
    }
}

fn number(atom: &str) -> Result<Value, Declined> {
    if let Some(found) = whole(atom) {
        return Ok(Value::Int(found));
    }
    let rare = Err(Declined("a number that is rare"));
    let digits = atom.trim_start_matches(['+', '-']);
    if atom.len() - digits.len() > 1 {
        return rare;
    }
    let plain = digits.strip_suffix('N').unwrap_or(digits);
    if plain.bytes().all(|byte| byte.is_ascii_digit()) {
        if plain.len() > 1 && plain.starts_with('0') {
            return rare;
        }
        let sign = if atom.starts_with('-') { "-" } else { "" };
        return format!("{sign}{plain}").parse().map_or(rare, |found| Ok(Value::Int(found)));
    }
    let float = atom.strip_suffix('M').unwrap_or(atom);
    if !is_float(float) {
        return rare;
    }
    float.parse().map_or(rare, from_float)
}

/// `[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let bytes = text.as_bytes();
    let run = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let start = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut at = run(start);
    if at == start {
        return false;
    }
    if bytes.get(at) == Some(&b'.') {
        at = run(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = run(sign);
        if at == sign {
            return false;
        }
    }
    at == bytes.len()
}

/// A number with a point: a whole one is that number.
pub fn from_float(number: f64) -> Result<Value, Declined> {
    const EXACT: f64 = 9e18;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[allow(clippy::cast_possible_truncation)] // within the bound
        return Ok(Value::Int(number as i64));
    }
    if number.fract() == 0.0 || !number.is_finite() {
        return Err(Declined("a number beyond 64 bits"));
    }
    Ok(Value::Number(format!("{number:?}").into()))
}

/// The history that `text` tells.
pub fn read(text: &str) -> Result<Objects, Declined> {
    let mut pairing = Pairing::new(false);
    let mut ignored = Values::default();
    let mut cursor = Cursor::new(text);
    let mut around = None;
    let mut first = true;
    loop {
        cursor.space();
        let mut depth = 0;
        while cursor.peek() == Some(b'#') && cursor.text.as_bytes().get(cursor.at + 1).is_some_and(u8::is_ascii_alphabetic) {
            if depth >= MAX_DEPTH {
                return Err(Declined("nested too deep"));
            }
            cursor.tag();
            cursor.space();
            depth += 1;
        }
        match cursor.peek() {
            Some(b'{') if around != Some(0) && depth < MAX_DEPTH => {
                let entry = cursor.entry(&mut pairing, &mut ignored, depth)?;
                pairing.add(&entry)?;
                first = false;
            }
            Some(byte @ (b'[' | b'(')) if first && depth == 0 => {
                cursor.at += 1;
                around = Some(if byte == b'[' { b']' } else { b')' });
                first = false;
            }
            Some(byte) if depth == 0 && around == Some(byte) => {
                cursor.at += 1;
                around = Some(0);
            }
            None if depth == 0 && matches!(around, None | Some(0)) => return pairing.finish(),
            _ => return Err(Declined("no entry where one could be")),
        }
    }
}
