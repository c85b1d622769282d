//! The generic linearizability engine as Python calls it: `pekan.checkers.linearizability.engine`.

use pekan_linear::objects::{Stopped, judge};
use pekan_linear::{Answer, Bound as Met, Budget, Hints, ILLEGAL, Machine, NEVER, Question, Run, Transitions, Verdict, solve_all};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gathered::Gathered;
use crate::guard::guarded;
use crate::session::Declined;

/// Steps between two looks at the clock: a step may be a call of a slow model.
pub const SLICE_STEPS: u64 = 256;
/// The same where no step calls Python: about a millisecond.
pub const NATIVE_SLICE_STEPS: u64 = 100_000;

/// A model in Python: `step` and `viable` of a question, each asked once for a state and a class.
struct Asked<'py> {
    step: Bound<'py, PyAny>,
    viable: Option<Bound<'py, PyAny>>,
    transitions: Transitions,
    viables: Transitions,
}

impl Machine for Asked<'_> {
    type Error = PyErr;

    #[inline]
    fn step(&mut self, state: u32, class: u32) -> PyResult<u32> {
        if let Some(after) = self.transitions.get(state, class) {
            return Ok(after);
        }
        let answer: i64 = self.step.call1((state, class))?.extract()?;
        let after = match u32::try_from(answer) {
            Ok(after) if after != ILLEGAL => after,
            _ if answer < 0 => ILLEGAL,
            _ => return Err(PyValueError::new_err(format!("step({state}, {class}) gives {answer}: states are numbered from 0 on"))),
        };
        self.transitions.put(state, class, after);
        Ok(after)
    }

    fn viable(&mut self, state: u32, class: u32) -> PyResult<bool> {
        let Some(ask) = &self.viable else { return Ok(true) };
        if let Some(found) = self.viables.get(state, class) {
            return Ok(found != 0);
        }
        let found = ask.call1((state, class))?.is_truthy()?;
        self.viables.put(state, class, u32::from(found));
        Ok(found)
    }

    fn contradiction(&self, state: u32, class: u32, after: u32) -> PyErr {
        PyValueError::new_err(format!("class {class} is declared read-only and leads from state {state} to {after}"))
    }

    fn asked(&self) -> u64 {
        self.transitions.len() as u64
    }

    fn memory_bytes(&self) -> usize {
        self.transitions.memory_bytes() + self.viables.memory_bytes()
    }
}

/// A `Question` of Python.
fn question<'py>(asked: &Bound<'py, PyAny>) -> PyResult<(Question, Asked<'py>)> {
    let hints = asked.getattr("hints")?;
    let viable = hints.getattr("viable")?;
    let viable = (!viable.is_none()).then_some(viable);
    let returns: Vec<Option<i64>> = asked.getattr("ret")?.extract()?;
    let flags = |name: &str| -> PyResult<Vec<bool>> { hints.getattr(name)?.extract() };
    let question = Question {
        call: asked.getattr("call")?.extract()?,
        ret: returns.into_iter().map(|ret| ret.unwrap_or(NEVER)).collect(),
        of: asked.getattr("of")?.extract()?,
        readonly: asked.getattr("readonly")?.extract()?,
        init: asked.getattr("init")?.extract()?,
        hints: Hints {
            requires: hints.getattr("requires")?.extract()?,
            produces: hints.getattr("produces")?.extract()?,
            goals: if viable.is_some() { flags("goals")? } else { Vec::new() },
            resets: if viable.is_some() { flags("resets")? } else { Vec::new() },
        },
    };
    if let Some(fault) = question.fault() {
        return Err(PyValueError::new_err(fault));
    }
    let machine = Asked { step: asked.getattr("step")?, viable, transitions: Transitions::default(), viables: Transitions::default() };
    Ok((question, machine))
}

/// verdict, order, blocked, bound, steps, configurations, asked: the fields of Python's `Answer`.
type Told = (&'static str, Vec<u32>, i64, &'static str, u64, u64, u64);

/// An answer as Python has it.
pub fn told(answer: Answer) -> Told {
    let verdict = match answer.verdict {
        Verdict::Ok => "ok",
        Verdict::Illegal => "illegal",
        Verdict::Unknown => "unknown",
    };
    let bound = match answer.bound {
        Met::None => "",
        Met::Time => "time",
        Met::Steps => "steps",
        Met::Memory => "memory",
        Met::Elsewhere => "elsewhere",
    };
    let blocked = answer.blocked.map_or(-1, i64::from);
    (verdict, answer.order, blocked, bound, answer.steps, answer.configurations, answer.asked)
}

/// The answers to questions whose models are in Python.
#[pyfunction]
#[pyo3(signature = (questions, time_s, steps, memory_bytes, tokens=false))]
pub fn linear_solve(
    py: Python<'_>,
    questions: Vec<Bound<'_, PyAny>>,
    time_s: Option<f64>,
    steps: Option<u64>,
    memory_bytes: Option<usize>,
    tokens: bool,
) -> PyResult<Vec<Told>> {
    guarded(py, "an object's history", || {
        let questions = questions.iter().map(question).collect::<PyResult<Vec<_>>>()?;
        let budget = Budget { time_s, steps, memory_bytes };
        let mut run = Run { budget, slice_steps: SLICE_STEPS, interrupt: &mut || py.check_signals(), tokens };
        Ok(solve_all(questions, &mut run)?.into_iter().map(told).collect())
    })
}

// ---- the ready models ----

/// Key, operations and answer of one object.
type JudgedTold<'py> = (Bound<'py, PyAny>, Vec<u32>, Told);

/// The answers over the objects of a history by the ready model of that name. `operations` are `pekan.history.types.Operation`s over `Call`s,
/// in order of call. Raises Declined where the model in Python is to judge.
#[pyfunction]
pub fn linear_judge<'py>(
    py: Python<'py>,
    operations: Vec<Bound<'py, PyAny>>,
    model: &str,
    time_s: Option<f64>,
    steps: Option<u64>,
    memory_bytes: Option<usize>,
) -> PyResult<Vec<JudgedTold<'py>>> {
    guarded(py, "an object's history", || {
        let gathered = Gathered::new(&operations)?;
        let budget = Budget { time_s, steps, memory_bytes };
        let mut run = Run { budget, slice_steps: NATIVE_SLICE_STEPS, interrupt: &mut || py.check_signals(), tokens: false };
        match judge(&gathered.objects, model, None, &mut run) {
            Ok(judged) => Ok(judged.into_iter().map(|part| (gathered.value(py, part.key), part.operations, told(part.answer))).collect()),
            Err(Stopped::Declined(reason)) => Err(Declined::new_err(reason.to_string())),
            Err(Stopped::Interrupted(error)) => Err(error),
        }
    })
}
