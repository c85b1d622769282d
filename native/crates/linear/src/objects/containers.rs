//! `pekan.models.containers`: what is put in comes out again.

use super::interned::{Interned, Object, Step};
use super::parts::{Class, Classes, Does, Kind};
use super::values::Canon;
use super::{Built, Native};
use crate::question::{ANY, Hints, ILLEGAL, UNSAID};
use pekan_foreign::{NONE, Objects, Value};

// ---- counter ----

/// State: the sum, which no history of 64-bit summands can drive out of 128 bits.
pub struct Counter {
    classes: Vec<Class>,
}

/// `counter`.
pub fn counter(classes: &Classes) -> Built<Interned<Counter>> {
    let object = Counter { classes: classes.list.clone() };
    Built { machine: Interned::new(object, &[0]), readonly: classes.readonly(), hints: Hints::default() }
}

impl Object for Counter {
    type Word = i128;

    fn step(&self, state: &[i128], class: u32, after: &mut Vec<i128>) -> Step {
        let Class { does, n, .. } = self.classes[class as usize];
        match does {
            Does::Add if n == 0 => Step::Same,
            Does::Add => {
                after.push(state[0] + i128::from(n));
                Step::Changed
            }
            Does::Read if state[0] != i128::from(n) => Step::Illegal,
            _ => Step::Same,
        }
    }
}

// ---- set ----

/// State: the elements, ascending.
pub struct Set {
    classes: Vec<Class>,
    /// What each read showed, ascending; `None` where no set shows it.
    shown: Vec<Option<Vec<u32>>>,
}

/// `set`.
pub fn set(classes: &Classes, objects: &Objects, canon: &Canon<'_>) -> Built<Interned<Set>> {
    let shown = |class: &Class| {
        let (mut elements, once): (Vec<u32>, bool) = match class.does {
            Does::Read if class.a != NONE => match objects.values.get(class.a) {
                Value::List(parts) => (parts.iter().map(|&part| canon.of(part)).collect(), true),
                Value::Set(parts) => (parts.iter().map(|&part| canon.of(part)).collect(), false),
                _ => (Vec::new(), false),
            },
            _ => (Vec::new(), false),
        };
        let count = elements.len();
        elements.sort_unstable();
        elements.dedup();
        (!once || elements.len() == count).then_some(elements)
    };
    let object = Set { classes: classes.list.clone(), shown: classes.list.iter().map(shown).collect() };
    let resets = classes.list.iter().map(|class| class.does == Does::Remove).collect();
    let goals = classes.list.iter().map(|class| matches!(class.does, Does::Read | Does::ContainsNot)).collect();
    let hints = Hints { goals, resets, ..Hints::default() };
    Built { machine: Interned::new(object, &[]), readonly: classes.readonly(), hints }
}

impl Object for Set {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        let Class { does, a, .. } = self.classes[class as usize];
        let found = state.binary_search(&a);
        let legal = match (does, found) {
            (Does::Add, Err(place)) => {
                after.extend_from_slice(state);
                after.insert(place, a);
                return Step::Changed;
            }
            (Does::Remove, Ok(place)) => {
                after.extend_from_slice(state);
                after.remove(place);
                return Step::Changed;
            }
            (Does::Contains, Err(_)) | (Does::ContainsNot, Ok(_)) => false,
            (Does::Read, _) => self.shown[class as usize].as_deref() == Some(state),
            _ => true,
        };
        if legal { Step::Same } else { Step::Illegal }
    }

    fn viable(&self, state: &[u32], class: u32) -> bool {
        match self.classes[class as usize].does {
            Does::ContainsNot => state.binary_search(&self.classes[class as usize].a).is_err(),
            Does::Read => match &self.shown[class as usize] {
                Some(shown) => state.iter().all(|element| shown.binary_search(element).is_ok()),
                None => false,
            },
            _ => true,
        }
    }
}

// ---- queue and stack ----

/// State: the elements, the newest last.
pub struct Line {
    classes: Vec<Class>,
    newest_first: bool,
}

/// `fifo-queue` and `stack`.
pub fn line(classes: &Classes, kind: Kind) -> Built<Interned<Line>> {
    let object = Line { classes: classes.list.clone(), newest_first: kind == Kind::Stack };
    Built { machine: Interned::new(object, &[]), readonly: classes.readonly(), hints: Hints::default() }
}

impl Object for Line {
    type Word = u32;

    fn step(&self, state: &[u32], class: u32, after: &mut Vec<u32>) -> Step {
        let Class { does, a, .. } = self.classes[class as usize];
        if does == Does::Add {
            after.extend_from_slice(state);
            after.push(a);
            return Step::Changed;
        }
        let next = if self.newest_first { state.last() } else { state.first() };
        let Some(&next) = next else {
            return if does == Does::RemoveUnseen || a == NONE { Step::Same } else { Step::Illegal };
        };
        if does != Does::RemoveUnseen && next != a {
            return Step::Illegal;
        }
        after.extend_from_slice(if self.newest_first { &state[..state.len() - 1] } else { &state[1..] });
        Step::Changed
    }
}

// ---- text ----

/// State: the bytes of the text.
struct Bytes {
    classes: Vec<Class>,
    texts: Vec<Box<[u8]>>,
}

/// A text. With which answers it is read is known beforehand, and so is which texts are alike to all of them:
///
/// ```text
/// a text with which no answer begins can never be read: from there only a put leads on, and all such texts are one state, DEAD
/// ```
///
/// Without this, appends that nobody sees before the next put would be tried in every order.
pub struct Text {
    states: Interned<Bytes>,
    /// Of a get, the only state in which it is legal; `ILLEGAL` of others.
    only: Vec<u32>,
    /// Of the states numbered so far, what they are one with.
    alike: Vec<u32>,
    /// Distinct answers, ascending.
    answers: Vec<Box<[u8]>>,
}

/// Of [`Text`]; its bytes are no text's.
const DEAD: u32 = 1;
const DEAD_BYTES: [u8; 1] = [0xff];

/// `kv-append`.
pub fn text(classes: &Classes, objects: &Objects) -> Built<Text> {
    let text = |class: &Class| match class.a {
        NONE => Box::default(),
        number => match objects.values.get(number) {
            Value::Text(text) | Value::Name(text) => text.as_bytes().into(),
            _ => Box::default(),
        },
    };
    let texts: Vec<Box<[u8]>> = classes.list.iter().map(text).collect();
    let reads = |number: &usize| classes.list[*number].does == Does::Read;
    let mut answers: Vec<Box<[u8]>> = (0..texts.len()).filter(reads).map(|number| texts[number].clone()).collect();
    answers.sort_unstable();
    answers.dedup();
    let mut states = Interned::new(Bytes { classes: classes.list.clone(), texts }, &[]);
    states.known(|_| &DEAD_BYTES);
    let mut machine = Text { states, only: vec![ILLEGAL; classes.list.len()], alike: vec![0, DEAD], answers };
    let mut hints = Hints::default();
    for (number, class) in classes.list.iter().enumerate() {
        let state = match class.does {
            Does::Read | Does::Write => Some(machine.states.known(|object| &object.texts[number])).map(|state| machine.alike_of(state)),
            _ => None,
        };
        let (requires, produces) = match (class.does, state) {
            (Does::Read, Some(state)) => {
                machine.only[number] = state;
                (i64::from(state), ANY)
            }
            (Does::Write, Some(state)) => (ANY, i64::from(state)),
            (Does::Add, _) if !class.readonly => (ANY, UNSAID),
            _ => (ANY, ANY),
        };
        hints.requires.push(requires);
        hints.produces.push(produces);
        hints.goals.push(class.does == Does::Read);
        hints.resets.push(class.does == Does::Write);
    }
    Built { machine, readonly: classes.readonly(), hints }
}

impl Text {
    fn alike_of(&mut self, state: u32) -> u32 {
        while self.alike.len() <= state as usize {
            let number = self.alike.len() as u32;
            let text = self.states.state(number);
            let place = self.answers.partition_point(|answer| answer[..] < *text);
            let alive = self.answers.get(place).is_some_and(|answer| answer.starts_with(text));
            self.alike.push(if alive { number } else { DEAD });
        }
        self.alike[state as usize]
    }
}

impl Native for Text {
    #[inline]
    fn step(&mut self, state: u32, class: u32) -> u32 {
        match self.only[class as usize] {
            ILLEGAL if state == DEAD && self.states.object().classes[class as usize].does != Does::Write => DEAD,
            ILLEGAL => {
                let after = self.states.step(state, class);
                self.alike_of(after)
            }
            only if only == state => state,
            _ => ILLEGAL,
        }
    }

    fn viable(&mut self, state: u32, class: u32) -> bool {
        self.states.viable(state, class)
    }

    fn asked(&self) -> u64 {
        self.states.asked()
    }

    fn memory_bytes(&self) -> usize {
        self.states.memory_bytes()
    }
}

impl Object for Bytes {
    type Word = u8;

    fn step(&self, state: &[u8], class: u32, after: &mut Vec<u8>) -> Step {
        let text = &self.texts[class as usize];
        match self.classes[class as usize].does {
            Does::Write => {}
            Does::Add if text.is_empty() => return Step::Same,
            Does::Add => after.extend_from_slice(state),
            Does::Read if state != &text[..] => return Step::Illegal,
            _ => return Step::Same,
        }
        after.extend_from_slice(text);
        Step::Changed
    }

    fn viable(&self, state: &[u8], class: u32) -> bool {
        self.classes[class as usize].does != Does::Read || self.texts[class as usize].starts_with(state)
    }
}
