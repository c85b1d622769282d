//! JSON: Jepsen's entries, and Pekan's JSON Lines.

use crate::edn::{MAX_DEPTH, from_float};
use crate::objects::{Mark, NONE, Objects, Outcome, Place, Value, Values};
use crate::pairing::{Entry, Kind, NIL, Pairing, Who};
use crate::{Declined, Read};
use memchr::memchr2;
use std::borrow::Cow;

/// Digits of a whole number that is passed over.
const DIGITS_MAX: usize = 1_000;

/// What the first line of a file in Pekan's JSON Lines says.
#[derive(Debug, Default)]
pub struct Header {
    /// The name of a model.
    pub model: Option<String>,
    /// What objects hold at the start: its number in `Objects::values`, None where the file does not say.
    pub initial: Option<u32>,
    /// Whether each process has a clock of its own.
    pub per_process: bool,
}

/// A place in a text of JSON.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Past `byte`, where that is what is here.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> Result<(), Declined> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Declined("no JSON"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes through the object that opens here; `field` reads the value of each name.
    pub fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Result<(), Declined>) -> Result<(), Declined> {
        if !self.take(b'{') {
            return Err(Declined("no object"));
        }
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(Declined("a name without value"));
            }
            self.space();
            field(self, &name)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(Declined("an object that does not go on"));
            }
        }
    }

    /// Goes through the array that opens here; `part` reads each value.
    pub fn array(&mut self, mut part: impl FnMut(&mut Self) -> Result<(), Declined>) -> Result<(), Declined> {
        if !self.take(b'[') {
            return Err(Declined("no array"));
        }
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.space();
            part(self)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(Declined("an array that does not go on"));
            }
        }
    }

    /// Goes through all values of the text, or of the one array around them.
    pub fn values(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Declined>) -> Result<(), Declined> {
        self.space();
        if self.peek() == Some(b'[') {
            self.array(each)?;
            self.space();
        } else {
            while self.at < self.text.len() {
                each(self)?;
                self.space();
            }
        }
        if self.at == self.text.len() { Ok(()) } else { Err(Declined("something follows the array")) }
    }

    pub fn string(&mut self) -> Result<Cow<'a, str>, Declined> {
        let text = self.text;
        let bytes = text.as_bytes();
        if !self.take(b'"') {
            return Err(Declined("no string"));
        }
        let start = self.at;
        let Some(length) = memchr2(b'"', b'\\', &bytes[start..]) else { return Err(Declined("a string that never ends")) };
        let here = plain(&text[start..start + length])?;
        self.at = start + length + 1;
        if bytes[start + length] == b'"' {
            return Ok(Cow::Borrowed(here));
        }
        let mut told = here.to_owned();
        loop {
            told.push(self.escaped()?);
            let start = self.at;
            let Some(length) = memchr2(b'"', b'\\', &bytes[start..]) else { return Err(Declined("a string that never ends")) };
            told.push_str(plain(&text[start..start + length])?);
            self.at = start + length + 1;
            if bytes[start + length] == b'"' {
                return Ok(Cow::Owned(told));
            }
        }
    }

    /// The character of the escape behind a backslash.
    fn escaped(&mut self) -> Result<char, Declined> {
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    self.word("\\u")?;
                    let second = self.unit()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(Declined("half of a surrogate pair"));
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                return char::from_u32(code).ok_or(Declined("half of a surrogate pair"));
            }
            _ => return Err(Declined("an escape that JSON does not know")),
        })
    }

    fn unit(&mut self) -> Result<u32, Declined> {
        let bytes = self.text.as_bytes();
        let digits = bytes.get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(Declined("an escape without four digits")) };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, &digit| code * 16 + char::from(digit).to_digit(16).unwrap_or(0)))
    }

    /// The text of the number here, and whether it is written as a whole one.
    fn number(&mut self) -> Result<(&'a str, bool), Declined> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let run = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let digits = start + usize::from(bytes.get(start) == Some(&b'-'));
        let mut at = run(digits);
        if at == digits || (bytes[digits] == b'0' && at > digits + 1) {
            return Err(Declined("no number"));
        }
        let mut whole = true;
        if bytes.get(at) == Some(&b'.') {
            let end = run(at + 1);
            if end == at + 1 {
                return Err(Declined("a point without digits"));
            }
            (at, whole) = (end, false);
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let digits = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let end = run(digits);
            if end == digits {
                return Err(Declined("an exponent without digits"));
            }
            (at, whole) = (end, false);
        }
        self.at = at;
        Ok((&self.text[start..at], whole))
    }

    /// A number that is written as a whole one and has 64 bits; the highest is kept for what never ends.
    pub fn whole(&mut self) -> Result<i64, Declined> {
        match self.number()? {
            (text, true) => text.parse().ok().filter(|&found| found != i64::MAX).ok_or(Declined("a number beyond 64 bits")),
            _ => Err(Declined("a number that is not whole")),
        }
    }

    /// A number that is written as a whole one and has 64 bits.
    pub fn whole_or_never(&mut self) -> Result<i64, Declined> {
        match self.number()? {
            (text, true) => text.parse().map_err(|_| Declined("a number beyond 64 bits")),
            _ => Err(Declined("a number that is not whole")),
        }
    }

    /// Past the value here, which may nest `depth` deep.
    pub fn skip(&mut self, depth: usize) -> Result<(), Declined> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'n') => self.word("null"),
            Some(b't' | b'f') => self.truth().map(drop),
            Some(b'[') => {
                let depth = depth.checked_sub(1).ok_or(Declined("nested too deep"))?;
                self.array(|cursor| cursor.skip(depth))
            }
            Some(b'{') => {
                let depth = depth.checked_sub(1).ok_or(Declined("nested too deep"))?;
                let mut names: Vec<Box<str>> = Vec::new();
                self.object(|cursor, name| {
                    if names.iter().any(|known| **known == *name) {
                        return Err(Declined("a name twice"));
                    }
                    names.push(name.into());
                    cursor.skip(depth)
                })
            }
            _ => {
                let (text, whole) = self.number()?;
                // Python refuses a float that is too large, and a whole number of more than 4,300 digits.
                let taken = if whole { text.len() < DIGITS_MAX } else { text.parse().is_ok_and(f64::is_finite) };
                if taken { Ok(()) } else { Err(Declined("a number that is too large")) }
            }
        }
    }

    /// True, false.
    pub fn truth(&mut self) -> Result<bool, Declined> {
        let found = self.peek() == Some(b't');
        self.word(if found { "true" } else { "false" })?;
        Ok(found)
    }

    /// Past null, where that is what is here.
    pub fn null(&mut self) -> Result<bool, Declined> {
        let found = self.peek() == Some(b'n');
        if found {
            self.word("null")?;
        }
        Ok(found)
    }

    /// The number of the value here, which may nest `depth` deep.
    fn value(&mut self, values: &mut Values, depth: usize) -> Result<u32, Declined> {
        let deeper = |depth: usize| depth.checked_sub(1).ok_or(Declined("nested too deep"));
        match self.peek() {
            Some(b'"') => Ok(values.text(&self.string()?)),
            Some(b'n') => self.word("null").map(|()| values.intern(Value::Nil)),
            Some(b't' | b'f') => self.truth().map(|truth| values.intern(Value::Bool(truth))),
            Some(b'[') => {
                let depth = deeper(depth)?;
                let mut parts = Vec::new();
                self.array(|cursor| {
                    parts.push(cursor.value(values, depth)?);
                    Ok(())
                })?;
                Ok(values.intern(Value::List(parts.into())))
            }
            Some(b'{') => {
                let depth = deeper(depth)?;
                let mut pairs = Vec::new();
                self.object(|cursor, name| {
                    let name = values.text(name);
                    pairs.push((name, cursor.value(values, depth)?));
                    Ok(())
                })?;
                pairs.sort_unstable();
                if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
                    return Err(Declined("a name twice"));
                }
                Ok(values.intern(Value::Map(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())))
            }
            _ => {
                let (text, whole) = self.number()?;
                let number = if whole {
                    Value::Int(text.parse().map_err(|_| Declined("a number beyond 64 bits"))?)
                } else {
                    from_float(text.parse().map_err(|_| Declined("a number that is rare"))?)?
                };
                Ok(values.intern(number))
            }
        }
    }
}

/// A piece of a string without escapes: control characters have to be escaped.
fn plain(text: &str) -> Result<&str, Declined> {
    if text.bytes().any(|byte| byte < b' ') { Err(Declined("a control character in a string")) } else { Ok(text) }
}

/// Whether a name has come already; `seen` has a bit for each known one.
pub fn once(seen: &mut u16, bit: u16) -> Result<(), Declined> {
    if *seen & bit != 0 {
        return Err(Declined("a name twice"));
    }
    *seen |= bit;
    Ok(())
}

// ---- Jepsen ----

/// The history that Jepsen's entries in JSON tell.
pub fn read_entries(text: &str) -> Result<Objects, Declined> {
    let mut pairing = Pairing::new(false);
    let mut ignored = Values::default();
    Cursor::new(text).values(|cursor| {
        let entry = entry(cursor, &mut pairing, &mut ignored)?;
        pairing.add(&entry)
    })?;
    pairing.finish()
}

fn entry(cursor: &mut Cursor<'_>, pairing: &mut Pairing, ignored: &mut Values) -> Result<Entry, Declined> {
    let start = cursor.at();
    let mut seen = 0;
    let mut others: Vec<String> = Vec::new();
    let (mut who, mut kind, mut time) = (None, None, None);
    let (mut f, mut value, mut key) = (NIL, NIL, NIL);
    let depth = MAX_DEPTH - 1;
    cursor.object(|cursor, name| {
        match name {
            "process" => {
                once(&mut seen, 1)?;
                who = Some(match cursor.peek() {
                    Some(b'"') => cursor.string().map(|_| Who::Named)?,
                    _ => match number(cursor)? {
                        Some(process) => Who::Process(process),
                        None => return Err(Declined("a process that is no number and no name")),
                    },
                });
            }
            "type" => {
                once(&mut seen, 2)?;
                kind = Some(Kind::of(cursor.string()?.as_bytes()).ok_or(Declined("a type that is none"))?);
            }
            "f" => {
                once(&mut seen, 4)?;
                f = cursor.value(pairing.values(), depth)?;
            }
            "value" => {
                once(&mut seen, 8)?;
                value = cursor.value(pairing.values(), depth)?;
            }
            "time" => {
                once(&mut seen, 16)?;
                time = number(cursor)?;
            }
            "key" => {
                once(&mut seen, 32)?;
                key = cursor.value(pairing.values(), depth)?;
            }
            other => {
                if others.iter().any(|known| known == other) {
                    return Err(Declined("a name twice"));
                }
                others.push(other.to_owned());
                cursor.value(ignored, depth)?;
            }
        }
        Ok(())
    })?;
    let (Some(who), Some(kind)) = (who, kind) else { return Err(Declined("an entry without process or type")) };
    Ok(Entry { who, kind, f, value, key, time, start, end: cursor.at() })
}

/// A whole number however it is written, None for null.
fn number(cursor: &mut Cursor<'_>) -> Result<Option<i64>, Declined> {
    if cursor.null()? {
        return Ok(None);
    }
    let found = match cursor.number()? {
        (text, true) => text.parse().map_err(|_| Declined("a number beyond 64 bits"))?,
        (text, false) => match from_float(text.parse().map_err(|_| Declined("a number that is rare"))?)? {
            Value::Int(found) => found,
            _ => return Err(Declined("a number that is not whole")),
        },
    };
    Ok(Some(found))
}

// ---- Pekan's JSON Lines ----

/// One line of an operation, before the lines are put in order.
struct Line {
    process: i64,
    call: i64,
    ret: i64,
    gave_up: i64,
    outcome: Outcome,
    f: u32,
    key: u32,
    input: u32,
    output: u32,
    place: Place,
}

/// What a line turned out to be.
enum Is {
    Operation(Line),
    Mark(Mark),
    Header(Header),
}

/// The history that Pekan's JSON Lines tell.
pub fn read_operations(text: &str) -> Result<Read, Declined> {
    let mut read = Read::default();
    let nil = read.objects.values.intern(Value::Nil);
    debug_assert_eq!(nil, NIL);
    let mut lines: Vec<Line> = Vec::new();
    let mut names = Vec::new();
    let mut first = true;
    Cursor::new(text).values(|cursor| {
        match line(cursor, &mut read.objects, &mut names)? {
            Is::Operation(line) => lines.push(line),
            Is::Mark(mark) => read.objects.marks.push(mark),
            Is::Header(header) if first => read.header = header,
            Is::Header(_) => return Err(Declined("a line that names the format, and is not the first")),
        }
        first = false;
        Ok(())
    })?;
    if !lines.is_sorted_by_key(|line| line.call) {
        lines.sort_by_key(|line| line.call);
    }
    let mut busy: hashbrown::HashMap<i64, i64, foldhash::fast::FixedState> = hashbrown::HashMap::default();
    let objects = &mut read.objects;
    for line in lines {
        if busy.get(&line.process).is_some_and(|&until| line.call < until) {
            return Err(Declined("two operations of one process overlap"));
        }
        if line.ret != i64::MAX {
            busy.insert(line.process, line.ret);
        }
        objects.process.push(line.process);
        objects.call.push(line.call);
        objects.ret.push(line.ret);
        objects.gave_up.push(line.gave_up);
        objects.outcome.push(line.outcome as u8);
        objects.f.push(line.f);
        objects.key.push(line.key);
        objects.input.push(line.input);
        objects.output.push(line.output);
        objects.place.push(line.place);
    }
    objects.marks.sort_by_key(|mark| mark.time);
    Ok(read)
}

/// The index of a name of what was asked; `known` has those seen, by the number of their text.
fn name_of(objects: &mut Objects, known: &mut Vec<(u32, u32)>, name: &str) -> u32 {
    let number = objects.values.text(name);
    if let Some(&(_, index)) = known.iter().find(|&&(value, _)| value == number) {
        return index;
    }
    objects.names.push(name.to_owned());
    let index = objects.names.len() as u32 - 1;
    known.push((number, index));
    index
}

fn line(cursor: &mut Cursor<'_>, objects: &mut Objects, names: &mut Vec<(u32, u32)>) -> Result<Is, Declined> {
    let start = cursor.at();
    let mut seen = 0_u16;
    let (mut process, mut call, mut end, mut f, mut time) = (None, None, None, None, None);
    let (mut key, mut input, mut output) = (NIL, NIL, NIL);
    let mut outcome = None;
    let mut header = Header::default();
    let whole =
        |cursor: &mut Cursor<'_>| -> Result<Option<i64>, Declined> { if cursor.null()? { Ok(None) } else { cursor.whole().map(Some) } };
    cursor.object(|cursor, name| {
        match name {
            "process" => {
                once(&mut seen, 1)?;
                process = whole(cursor)?;
            }
            "call" => {
                once(&mut seen, 2)?;
                call = whole(cursor)?;
            }
            "return" => {
                once(&mut seen, 4)?;
                end = whole(cursor)?;
            }
            "f" => {
                once(&mut seen, 8)?;
                f = Some(name_of(objects, names, &cursor.string()?));
            }
            "value" => {
                once(&mut seen, 16)?;
                input = cursor.value(&mut objects.values, MAX_DEPTH)?;
            }
            "output" => {
                once(&mut seen, 32)?;
                output = cursor.value(&mut objects.values, MAX_DEPTH)?;
            }
            "key" => {
                once(&mut seen, 64)?;
                key = cursor.value(&mut objects.values, MAX_DEPTH)?;
            }
            "outcome" => {
                once(&mut seen, 128)?;
                outcome = Some(match &*cursor.string()? {
                    "ok" => Outcome::Ok,
                    "failed" => Outcome::Failed,
                    "indefinite" => Outcome::Indefinite,
                    _ => return Err(Declined("an outcome that is none")),
                });
            }
            "pekan" => {
                once(&mut seen, 256)?;
                if cursor.whole()? != 1 {
                    return Err(Declined("another version of the format"));
                }
            }
            "model" => {
                once(&mut seen, 512)?;
                header.model = if cursor.null()? { None } else { Some(cursor.string()?.into_owned()) };
            }
            "initial" => {
                once(&mut seen, 1024)?;
                header.initial = Some(cursor.value(&mut objects.values, MAX_DEPTH)?);
            }
            "clock" => {
                once(&mut seen, 2048)?;
                header.per_process = match &*cursor.string()? {
                    "shared" => false,
                    "per-process" => true,
                    _ => return Err(Declined("a clock that is none")),
                };
            }
            "mark" => {
                once(&mut seen, 4096)?;
                cursor.string()?;
            }
            "time" => {
                once(&mut seen, 8192)?;
                time = whole(cursor)?;
            }
            "detail" => {
                once(&mut seen, 16384)?;
                if cursor.peek() != Some(b'{') {
                    return Err(Declined("a detail that is no object"));
                }
                cursor.value(&mut Values::default(), MAX_DEPTH)?;
            }
            _ => return Err(Declined("a field that is not known")),
        }
        Ok(())
    })?;
    const OPERATION: u16 = 0xff;
    const HEADER: u16 = 0xf00;
    const MARK: u16 = 0b111 << 12;
    if seen & 256 != 0 {
        return if seen & !HEADER == 0 { Ok(Is::Header(header)) } else { Err(Declined("fields of several kinds of lines")) };
    }
    if seen & 4096 != 0 {
        let Some(time) = time else { return Err(Declined("a mark without time")) };
        let mark = Mark { start, end: cursor.at(), time };
        return if seen & !MARK == 0 { Ok(Is::Mark(mark)) } else { Err(Declined("fields of several kinds of lines")) };
    }
    let (Some(process), Some(call), Some(f)) = (process, call, f) else { return Err(Declined("an operation without process, call or f")) };
    if seen & !OPERATION != 0 {
        return Err(Declined("fields of several kinds of lines"));
    }
    let outcome = outcome.unwrap_or(if end.is_none() { Outcome::Indefinite } else { Outcome::Ok });
    if end.is_some_and(|end| end < call) || (outcome != Outcome::Indefinite && end.is_none()) || (outcome != Outcome::Ok && output != NIL) {
        return Err(Declined("an operation that cannot be"));
    }
    let (ret, gave_up) = if outcome == Outcome::Indefinite { (None, end) } else { (end, None) };
    Ok(Is::Operation(Line {
        process,
        call,
        ret: ret.unwrap_or(i64::MAX),
        gave_up: gave_up.unwrap_or(i64::MAX),
        outcome,
        f,
        key: if key == NIL { NONE } else { key },
        input,
        output: if outcome == Outcome::Ok { output } else { NONE },
        place: Place(start as u32),
    }))
}
