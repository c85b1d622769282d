//! The monitors as Python calls them: `pekan.checkers.linearizability.monitors`.

use pekan_linear::monitors::{Act, Answer, Operation, Read, queue, register, set, stack};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::guard::guarded;

/// One object's history in columns, as `Asked` in Python: which object it is, operations, how many values, and what reads of a set showed.
#[derive(Default)]
pub struct Asked {
    /// One of "register", "set", "queue", "stack".
    pub thing: String,
    /// In order of call.
    pub operations: Vec<Operation>,
    /// Values are numbered below this.
    pub values: usize,
    /// What the reads of a set showed, each sorted; the value of such a read is a number here.
    pub shown: Vec<Vec<u32>>,
}

impl Asked {
    /// What the monitor of this object says.
    pub fn answer(&self) -> Result<Answer, String> {
        Ok(match self.thing.as_str() {
            "register" => register(&self.operations, self.values),
            "queue" => queue(&self.operations, self.values),
            "stack" => stack(&self.operations, self.values),
            "set" => {
                let reads: Vec<Read> = (0..)
                    .zip(&self.operations)
                    .filter(|(_, o)| o.act == Act::Take)
                    .map(|(place, o)| Read { call: o.call, ret: o.ret, shown: o.value, place })
                    .collect();
                let shown: Vec<&[u32]> = self.shown.iter().map(Vec::as_slice).collect();
                set(&self.operations, &reads, &shown, self.values)
            }
            thing => return Err(format!("no monitor for {thing}")),
        })
    }

    /// What is wrong with the columns, if anything is.
    fn fault(&self) -> Option<String> {
        let shown = self.shown.len();
        let beyond = |o: &Operation| match o.act {
            Act::Take if self.thing == "set" => o.value as usize >= shown,
            Act::Empty | Act::Lost => false,
            _ => o.value as usize >= self.values,
        };
        if let Some(place) = self.operations.iter().position(|o| o.ret < o.call || beyond(o)) {
            return Some(format!("operation {place} returns before it is called, or has a value that is none"));
        }
        self.shown.iter().flatten().any(|&element| element as usize >= self.values).then(|| "an element that is no value".to_owned())
    }
}

/// verdict, rule, places, reason: the fields of Python's `Monitored`.
pub type Told = (&'static str, &'static str, Vec<u32>, &'static str);

/// An answer as Python has it.
pub fn told(answer: Answer) -> Told {
    match answer {
        Answer::Legal => ("ok", "", Vec::new(), ""),
        Answer::Illegal(contradiction) => ("illegal", contradiction.rule.name(), contradiction.places, ""),
        Answer::Declined(reason) => ("declined", "", Vec::new(), reason),
    }
}

/// The answer to one question of `pekan.checkers.linearizability.monitors.asked`: (verdict, rule, places, reason).
#[pyfunction]
pub fn monitor(py: Python<'_>, asked: &Bound<'_, PyAny>) -> PyResult<(String, String, Py<PyAny>, String)> {
    guarded(py, "a history of one object", || {
        let call: Vec<i64> = asked.getattr("call")?.extract()?;
        let ret: Vec<i64> = asked.getattr("ret")?.extract()?;
        let act: Vec<u8> = asked.getattr("act")?.extract()?;
        let value: Vec<u32> = asked.getattr("value")?.extract()?;
        if call.len() != ret.len() || call.len() != act.len() || call.len() != value.len() {
            return Err(PyValueError::new_err("columns differ in length"));
        }
        let mut question = Asked {
            thing: asked.getattr("thing")?.extract()?,
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
        if let Some(fault) = question.fault() {
            return Err(PyValueError::new_err(fault));
        }
        let answer = py.detach(|| question.answer()).map_err(PyValueError::new_err)?;
        let (verdict, rule, places, reason) = told(answer);
        let places = pyo3::types::PyTuple::new(py, places)?.into_any().unbind();
        Ok((verdict.to_owned(), rule.to_owned(), places, reason.to_owned()))
    })
}
