//! Values are one wherever Python says that they are equal: `true` and `1`, a keyword and the text of the same letters.

use super::Declined;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use pekan_foreign::{NONE, Value, Values};

/// For each value the number of the first that equals it.
#[derive(Debug)]
pub struct Canon<'a> {
    values: &'a Values,
    /// Empty where every value is its own.
    same: Vec<u32>,
    /// The number of nil, [`NONE`] where it does not occur.
    nil: u32,
}

impl<'a> Canon<'a> {
    /// Declined where numbers occur whose equality is not that of their texts.
    pub fn new(values: &'a Values) -> Result<Self, Declined> {
        let (mut nil, mut mixed) = (NONE, false);
        for number in 0..values.len() as u32 {
            match values.get(number) {
                Value::Nil => nil = number,
                Value::Number(text) => return Err(Declined(format!("the number {text} is no 64-bit integer"))),
                Value::Bool(_) | Value::Name(_) => mixed = true,
                _ => {}
            }
        }
        let same = if mixed { representatives(values) } else { Vec::new() };
        Ok(Self { values, same, nil })
    }

    /// The representative of a value; [`NONE`] for nil and for no value.
    pub fn of(&self, number: u32) -> u32 {
        if number == self.nil || number == NONE { NONE } else { self.same.get(number as usize).copied().unwrap_or(number) }
    }

    /// A value by its number.
    pub fn value(&self, number: u32) -> &'a Value {
        if number == NONE { &Value::Nil } else { self.values.get(number) }
    }

    /// The two parts of a list of two.
    pub fn pair(&self, number: u32) -> Option<(u32, u32)> {
        match self.value(number) {
            Value::List(parts) => match parts[..] {
                [first, second] => Some((first, second)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A whole number; `true` and `false` are none.
    pub fn whole(&self, number: u32) -> Option<i64> {
        match self.value(number) {
            Value::Int(whole) => Some(*whole),
            _ => None,
        }
    }

    /// Whether it is `false`.
    pub fn is_false(&self, number: u32) -> bool {
        matches!(self.value(number), Value::Bool(false))
    }
}

/// What tells values apart, parts by their representatives.
#[derive(PartialEq, Eq, Hash)]
enum Shape<'a> {
    Nil,
    Int(i64),
    Text(&'a str),
    List(Vec<u32>),
    Set(Vec<u32>),
    Map(Vec<(u32, u32)>),
}

fn representatives(values: &Values) -> Vec<u32> {
    let mut same: Vec<u32> = Vec::with_capacity(values.len());
    let mut first: HashMap<Shape<'_>, u32, FixedState> = HashMap::default();
    for number in 0..values.len() as u32 {
        let of = |part: &u32| same.get(*part as usize).copied().unwrap_or(*part);
        let shape = match values.get(number) {
            Value::Nil => Shape::Nil,
            Value::Bool(truth) => Shape::Int(i64::from(*truth)),
            Value::Int(whole) => Shape::Int(*whole),
            Value::Number(text) | Value::Text(text) | Value::Name(text) => Shape::Text(text),
            Value::List(parts) => Shape::List(parts.iter().map(of).collect()),
            Value::Set(parts) => {
                let mut parts: Vec<u32> = parts.iter().map(of).collect();
                parts.sort_unstable();
                parts.dedup();
                Shape::Set(parts)
            }
            Value::Map(parts) => {
                let mut pairs: Vec<(u32, u32)> = parts.chunks_exact(2).map(|pair| (of(&pair[0]), of(&pair[1]))).collect();
                pairs.sort_unstable();
                Shape::Map(pairs)
            }
        };
        same.push(*first.entry(shape).or_insert(number));
    }
    same
}
