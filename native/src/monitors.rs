//! The monitors as Python calls them: `pekan.checkers.linearizability.monitors`.

use pekan_linear::monitors::{Act, Answer, Asked, Operation, Thing};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::guard::guarded;

/// What is wrong with columns, if anything is.
fn fault(asked: &Asked) -> Option<&'static str> {
    let beyond = |o: &Operation| match o.act {
        Act::Take if asked.thing == Thing::Set => o.value as usize >= asked.shown.len(),
        Act::Empty | Act::Lost => false,
        _ => o.value as usize >= asked.values,
    };
    if asked.operations.iter().any(|o| o.ret < o.call || beyond(o)) {
        return Some("an operation returns before it is called, or has a value that is none");
    }
    asked.shown.iter().flatten().any(|&element| element as usize >= asked.values).then_some("an element that is no value")
}

/// verdict, rule, places, reason, answered, next: the fields of Python's `Monitored`.
type Told<'py> = (&'static str, &'static str, Bound<'py, PyTuple>, &'static str, u32, i64);

/// The answer to one question of `pekan.checkers.linearizability.monitors.asked`, as the fields of a `Monitored`.
#[pyfunction]
pub fn monitor<'py>(py: Python<'py>, asked: &Bound<'py, PyAny>) -> PyResult<Told<'py>> {
    guarded(py, "a history of one object", || {
        let thing: String = asked.getattr("thing")?.extract()?;
        let call: Vec<i64> = asked.getattr("call")?.extract()?;
        let ret: Vec<i64> = asked.getattr("ret")?.extract()?;
        let act: Vec<u8> = asked.getattr("act")?.extract()?;
        let value: Vec<u32> = asked.getattr("value")?.extract()?;
        if call.len() != ret.len() || call.len() != act.len() || call.len() != value.len() {
            return Err(PyValueError::new_err("columns differ in length"));
        }
        let mut question = Asked {
            thing: Thing::of(&thing).ok_or_else(|| PyValueError::new_err(format!("no monitor for {thing}")))?,
            operations: Vec::with_capacity(call.len()),
            values: asked.getattr("values")?.extract()?,
            shown: asked.getattr("shown")?.extract()?,
        };
        for (((call, ret), act), value) in call.into_iter().zip(ret).zip(act).zip(value) {
            let act = match act {
                0 => Act::Insert,
                1 => Act::Refused,
                2 => Act::Take,
                3 => Act::Empty,
                4 => Act::Lost,
                other => return Err(PyValueError::new_err(format!("{other} is no act"))),
            };
            question.operations.push(Operation { call, ret, value, act });
        }
        if let Some(fault) = fault(&question) {
            return Err(PyValueError::new_err(fault));
        }
        let (answer, prefix) = py.detach(|| question.answer());
        let (verdict, rule, places, reason) = match answer {
            Answer::Legal => ("ok", "", Vec::new(), ""),
            Answer::Illegal(found) => ("illegal", found.rule.name(), found.places, ""),
            Answer::Declined(reason) => ("declined", "", Vec::new(), reason),
        };
        let (answered, next) = prefix.map_or((0, -1), |prefix| (prefix.answered, i64::from(prefix.next)));
        Ok((verdict, rule, PyTuple::new(py, places)?, reason, answered, next))
    })
}
