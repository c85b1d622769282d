//! Operations of Python as columns, for histories that were never in a file.

use std::collections::HashMap;

use pekan_foreign::{NONE, Objects, Outcome, Place, Value, Values};
use pekan_linear::NEVER;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple};

use crate::session::Declined;

/// Values nest this deep; `pekan.history.values` has no deeper ones.
const DEPTH_MAX: usize = 110;

/// Operations of Python as columns.
#[derive(Default)]
pub struct Gathered<'py> {
    pub objects: Objects,
    names: HashMap<String, u32>,
    /// Arguments, answers and keys, by their numbers.
    made: HashMap<u32, Bound<'py, PyAny>>,
}

impl<'py> Gathered<'py> {
    /// The columns of `pekan.history.types.Operation`s over `Call`s, in order of call.
    pub fn new(operations: &[Bound<'py, PyAny>]) -> PyResult<Self> {
        let mut gathered = Self::default();
        for operation in operations {
            gathered.add(operation)?;
        }
        Ok(gathered)
    }

    fn add(&mut self, operation: &Bound<'py, PyAny>) -> PyResult<()> {
        let call = operation.getattr("input")?;
        let f: String = call.getattr("f")?.extract()?;
        let outcome: String = operation.getattr("outcome")?.extract()?;
        let outcome = match outcome.as_str() {
            "ok" => Outcome::Ok,
            "failed" => Outcome::Failed,
            _ => Outcome::Indefinite,
        };
        let (key, input, output) = (call.getattr("key")?, call.getattr("value")?, operation.getattr("output")?);
        let ret: Option<i64> = operation.getattr("ret")?.extract()?;
        let objects = &mut self.objects;
        objects.process.push(operation.getattr("process")?.extract()?);
        objects.call.push(operation.getattr("call")?.extract()?);
        objects.ret.push(ret.unwrap_or(NEVER));
        objects.outcome.push(outcome as u8);
        let names = &mut objects.names;
        objects.f.push(*self.names.entry(f).or_insert_with_key(|f| {
            names.push(f.clone());
            names.len() as u32 - 1
        }));
        let made = &mut self.made;
        let mut number = |of: Bound<'py, PyAny>| -> PyResult<u32> {
            let number = value(&mut objects.values, &of, DEPTH_MAX)?;
            made.entry(number).or_insert(of);
            Ok(number)
        };
        objects.key.push(if key.is_none() { NONE } else { number(key)? });
        objects.input.push(number(input)?);
        // (Of a failed one the output is an error, and nobody looks at it.)
        objects.output.push(if outcome == Outcome::Ok { number(output)? } else { NONE });
        objects.place.push(Place::default());
        Ok(())
    }

    /// An argument, an answer or a key by its number.
    pub fn value(&self, py: Python<'py>, number: u32) -> Bound<'py, PyAny> {
        self.made.get(&number).cloned().unwrap_or_else(|| py.None().into_bound(py))
    }
}

/// A value of Python by its number; Declined where it is of no kind that histories have.
fn value(values: &mut Values, of: &Bound<'_, PyAny>, depth: usize) -> PyResult<u32> {
    if depth == 0 {
        return Err(Declined::new_err("a value nests too deep"));
    }
    let parts = |values: &mut Values, of: &Bound<'_, PyAny>| -> PyResult<Vec<u32>> {
        of.try_iter()?.map(|part| value(values, &part?, depth - 1)).collect()
    };
    let found = if of.is_none() {
        Value::Nil
    } else if let Ok(truth) = of.cast::<PyBool>() {
        Value::Bool(truth.is_true())
    } else if of.is_instance_of::<PyInt>() {
        of.extract().map_or_else(|_| Value::Number(of.to_string().into()), Value::Int)
    } else if let Ok(text) = of.cast::<PyString>() {
        Value::Text(text.to_str()?.into())
    } else if of.is_instance_of::<PyTuple>() {
        Value::List(parts(values, of)?.into())
    } else if of.is_instance_of::<PyFrozenSet>() {
        let mut parts = parts(values, of)?;
        parts.sort_unstable();
        Value::Set(parts.into())
    } else if of.is_instance_of::<PyFloat>() {
        Value::Number(of.to_string().into())
    } else {
        return Err(Declined::new_err(format!("a value of type {}", of.get_type().name()?)));
    };
    Ok(values.intern(found))
}
