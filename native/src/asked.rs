//! Histories in columns judged by a model in Python: `pekan.checkers.objects.decide`.
//!
//! ```text
//! columns ──> distinct calls with their answers (asked once: readonly, requires, produces, resets)      ──> one question a part
//!             distinct states by Model.key, distinct transitions (asked once: step, viable)
//! ```
//!
//! What `pekan.checkers.objects.parts` does operation by operation is done here by numbers, and the model is asked for distinct things only.

use std::collections::HashMap;

use pekan_foreign::{NONE, Outcome};
use pekan_linear::objects::Canon;
use pekan_linear::{ANY, Budget, Hints, ILLEGAL, Machine, NEVER, Question, Run, Transitions, UNSAID, Verdict, solve_all};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::foreign::Objects;
use crate::guard::guarded;
use crate::judging::{Judgement, NotLegal, refused};
use crate::linear::{SLICE_STEPS, told};
use crate::session::Declined;

/// A model, and which of its hints it has of its own.
struct Model<'py> {
    model: Bound<'py, PyAny>,
    illegal: Bound<'py, PyAny>,
    unknown: Bound<'py, PyAny>,
    anywhere: Bound<'py, PyAny>,
    nothing: Bound<'py, PyAny>,
    unsaid: Bound<'py, PyAny>,
    has_key: bool,
    has_readonly: bool,
    has_needs: bool,
    has_viable: bool,
    has_partition: bool,
}

/// A distinct call with its answer, and what the model says of it once and for all.
struct Class<'py> {
    call: Bound<'py, PyAny>,
    output: Bound<'py, PyAny>,
    readonly: bool,
    resets: bool,
}

impl<'py> Model<'py> {
    fn new(model: Bound<'py, PyAny>) -> PyResult<Self> {
        let py = model.py();
        let module = py.import("pekan.models.object")?;
        let (base, kind) = (module.getattr("Model")?, model.get_type());
        // A hint that the model has from `Model` says nothing, and need not be asked for.
        let own = |name: &str| -> PyResult<bool> { Ok(!kind.getattr(name)?.is(&base.getattr(name)?)) };
        Ok(Self {
            illegal: module.getattr("ILLEGAL")?,
            unknown: module.getattr("UNKNOWN")?,
            anywhere: module.getattr("ANYWHERE")?,
            nothing: module.getattr("NOTHING")?,
            unsaid: module.getattr("UNSAID")?,
            has_key: own("key")?,
            has_readonly: own("readonly")?,
            has_needs: own("requires")? || own("produces")?,
            has_viable: own("viable")?,
            has_partition: own("partition")?,
            model,
        })
    }

    fn says(&self, name: &Bound<'py, pyo3::types::PyString>, class: &Class<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.model.call_method1(name, (&class.call, &class.output))
    }
}

/// The classes of a history, each asked about once, and of which class each operation is.
struct Classes<'py> {
    list: Vec<Class<'py>>,
    of: Vec<u32>,
}

impl<'py> Classes<'py> {
    /// Declined where the model does not know a call: the reference says what is wrong.
    fn new(py: Python<'py>, held: &Objects, model: &Model<'py>) -> PyResult<Self> {
        let objects = held.columns();
        let kind = py.import("pekan.history.types")?.getattr("Call")?;
        let known: HashMap<String, Bound<'py, PyAny>> = model.model.getattr("calls")?.extract()?;
        let expects =
            !model.model.get_type().getattr("expected")?.is(&py.import("pekan.models.object")?.getattr("Model")?.getattr("expected")?);
        let mut numbers: HashMap<(u32, u32, u32, bool), u32> = HashMap::new();
        let mut classes = Self { list: Vec::new(), of: vec![NONE; objects.len()] };
        for o in 0..objects.len() {
            if objects.outcome[o] == Outcome::Failed as u8 {
                continue;
            }
            let ok = objects.outcome[o] == Outcome::Ok as u8;
            let output = if ok { objects.output[o] } else { NONE };
            let next = classes.list.len() as u32;
            let number = *numbers.entry((objects.f[o], objects.input[o], output, ok)).or_insert(next);
            classes.of[o] = number;
            if number < next {
                continue;
            }
            let f = &objects.names[objects.f[o] as usize];
            if !known.is_empty() && !known.contains_key(f) {
                return Err(Declined::new_err(format!("operation {o} is {f}, which the model does not know")));
            }
            let call = kind.call1((held.name(py, objects.f[o]), held.value(py, objects.input[o])?, held.value(py, objects.key[o])?))?;
            let output = if ok { held.value(py, output)? } else { model.unknown.clone() };
            let mut class = Class { call, output, readonly: false, resets: false };
            if expects && !model.says(intern!(py, "expected"), &class)?.is_none() {
                return Err(Declined::new_err(format!("operation {o} is none of the model")));
            }
            class.readonly = model.has_readonly && model.says(intern!(py, "readonly"), &class)?.is_truthy()?;
            class.resets = model.has_viable && model.says(intern!(py, "resets"), &class)?.is_truthy()?;
            classes.list.push(class);
        }
        Ok(classes)
    }
}

/// One part of a history: its classes by numbers of its own, and its states.
struct Part<'a, 'py> {
    model: &'a Model<'py>,
    classes: &'a [Class<'py>],
    mine: Vec<u32>,
    states: Vec<Bound<'py, PyAny>>,
    numbers: Bound<'py, PyDict>,
    transitions: Transitions,
    viables: Transitions,
}

impl<'a, 'py> Part<'a, 'py> {
    fn new(py: Python<'py>, model: &'a Model<'py>, classes: &'a [Class<'py>], mine: Vec<u32>) -> PyResult<Self> {
        let (transitions, viables) = (Transitions::default(), Transitions::default());
        let mut part = Self { model, classes, mine, states: Vec::new(), numbers: PyDict::new(py), transitions, viables };
        part.number(model.model.call_method0(intern!(py, "init"))?)?;
        Ok(part)
    }

    /// The number of a state.
    fn number(&mut self, state: Bound<'py, PyAny>) -> PyResult<u32> {
        let key = if self.model.has_key { self.model.model.call_method1(intern!(state.py(), "key"), (&state,))? } else { state.clone() };
        if let Some(found) = self.numbers.get_item(&key)? {
            return found.extract();
        }
        let number = self.states.len() as u32;
        self.numbers.set_item(key, number)?;
        self.states.push(state);
        Ok(number)
    }

    fn class(&self, class: u32) -> &'a Class<'py> {
        &self.classes[self.mine[class as usize] as usize]
    }

    fn hints(&mut self, py: Python<'py>) -> PyResult<Hints> {
        let mut hints = Hints::default();
        let model = self.model;
        for number in 0..self.mine.len() as u32 {
            let class = self.class(number);
            if model.has_viable {
                hints.resets.push(class.resets);
            }
            if model.has_needs {
                let requires = model.says(intern!(py, "requires"), class)?;
                let produces = model.says(intern!(py, "produces"), class)?;
                hints.requires.push(if requires.is(&model.anywhere) { ANY } else { self.said(requires)? });
                hints.produces.push(if produces.is(&model.nothing) { ANY } else { self.said(produces)? });
            }
        }
        Ok(hints)
    }

    fn said(&mut self, state: Bound<'py, PyAny>) -> PyResult<i64> {
        if state.is(&self.model.unsaid) { Ok(UNSAID) } else { self.number(state).map(i64::from) }
    }
}

impl Machine for Part<'_, '_> {
    type Error = PyErr;

    #[inline]
    fn step(&mut self, state: u32, class: u32) -> PyResult<u32> {
        if let Some(after) = self.transitions.get(state, class) {
            return Ok(after);
        }
        let from = &self.states[state as usize];
        let Class { call, output, .. } = self.class(class);
        let asked = self.model.model.call_method1(intern!(from.py(), "step"), (from, call, output));
        let after = match asked {
            Ok(after) if after.is(&self.model.illegal) => ILLEGAL,
            Ok(after) => self.number(after)?,
            Err(error) => return Err(noted(error, from, call, output)),
        };
        self.transitions.put(state, class, after);
        Ok(after)
    }

    fn viable(&mut self, state: u32, class: u32) -> PyResult<bool> {
        if let Some(found) = self.viables.get(state, class) {
            return Ok(found != 0);
        }
        let from = &self.states[state as usize];
        let Class { call, output, .. } = self.class(class);
        let found = self.model.model.call_method1(intern!(from.py(), "viable"), (from, call, output))?.is_truthy()?;
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

/// An error of the model's own, with what it was asked.
fn noted(error: PyErr, state: &Bound<'_, PyAny>, call: &Bound<'_, PyAny>, output: &Bound<'_, PyAny>) -> PyErr {
    let told = [state, call, output].map(|of| of.repr().map_or_else(|_| "?".into(), |text| text.to_string()));
    let note = format!("from the model's step({})", told.join(", "));
    let py = state.py();
    // An error that takes no notes is told without one.
    let _ = error.value(py).call_method1("add_note", (note,));
    error
}

/// Judge every object of `held` by `model`, a `pekan.models.object.Model`. Raises Declined where the reference is to divide the objects or to say
/// what is wrong with a call, and whatever the model raises.
#[pyfunction]
pub fn judge_model<'py>(
    py: Python<'py>,
    held: &Bound<'py, Objects>,
    model: Bound<'py, PyAny>,
    time_s: Option<f64>,
    steps: Option<u64>,
    memory_bytes: Option<usize>,
) -> PyResult<Judgement<'py>> {
    guarded(py, "an object's history", || {
        let held = held.get();
        let objects = held.columns();
        let model = Model::new(model)?;
        if model.has_partition {
            return Err(Declined::new_err("the model divides its objects"));
        }
        let classes = Classes::new(py, held, &model)?;
        // Objects are told apart as Python tells their keys apart: 1 and true are one, and so are a keyword and its text.
        let canon = Canon::new(&objects.values).map_err(|declined| Declined::new_err(declined.to_string()))?;
        let mut by_key: HashMap<u32, usize> = HashMap::new();
        let mut operations: Vec<(u32, Vec<u32>)> = Vec::new();
        let mut total = 0;
        for o in 0..objects.len() {
            let part = *by_key.entry(canon.of(objects.key[o])).or_insert(operations.len());
            if part == operations.len() {
                operations.push((objects.key[o], Vec::new()));
            }
            if objects.outcome[o] != Outcome::Failed as u8 {
                total += 1;
                if objects.outcome[o] == Outcome::Ok as u8 || !classes.list[classes.of[o] as usize].readonly {
                    operations[part].1.push(o as u32);
                }
            }
        }
        let questions = operations.iter().map(|(_, mine)| question(py, held, &model, &classes, mine)).collect::<PyResult<Vec<_>>>()?;
        let budget = Budget { time_s, steps, memory_bytes };
        let mut run = Run { budget, slice_steps: SLICE_STEPS, interrupt: &mut || py.check_signals(), tokens: false };
        let answers = solve_all(questions, &mut run)?;
        let mut found: Vec<NotLegal<'py>> = Vec::new();
        let parts = answers.len();
        for ((key, mine), answer) in operations.into_iter().zip(answers).filter(|(_, answer)| answer.verdict != Verdict::Ok) {
            let (verdict, _, blocked, bound, ..) = told(answer);
            let blocked = usize::try_from(blocked).map_or(-1, |place| i64::from(mine[place]));
            found.push((held.value(py, key)?, false, verdict, bound, blocked, 0, "", mine, refused(objects, key)));
        }
        Ok((parts, 0, parts, total, found))
    })
}

fn question<'a, 'py>(
    py: Python<'py>,
    held: &Objects,
    model: &'a Model<'py>,
    classes: &'a Classes<'py>,
    mine: &[u32],
) -> PyResult<(Question, Part<'a, 'py>)> {
    let objects = held.columns();
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let mut of_part = Vec::new();
    let mut of = Vec::with_capacity(mine.len());
    for &o in mine {
        let class = classes.of[o as usize];
        of.push(*numbers.entry(class).or_insert_with(|| {
            of_part.push(class);
            of_part.len() as u32 - 1
        }));
    }
    let ok = |o: u32| objects.outcome[o as usize] == Outcome::Ok as u8;
    let readonly = of_part.iter().map(|&class| classes.list[class as usize].readonly).collect();
    let mut part = Part::new(py, model, &classes.list, of_part)?;
    let question = Question {
        call: mine.iter().map(|&o| objects.call[o as usize]).collect(),
        ret: mine.iter().map(|&o| if ok(o) { objects.ret[o as usize] } else { NEVER }).collect(),
        of,
        readonly,
        init: 0,
        hints: part.hints(py)?,
    };
    match question.fault() {
        Some(fault) => Err(Declined::new_err(fault)),
        None => Ok((question, part)),
    }
}
