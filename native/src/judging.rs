//! Whole histories of objects judged over columns: `pekan.checkers.objects.decide`.

use pekan_foreign::Outcome;
use pekan_linear::monitors::{self, Answer};
use pekan_linear::objects::{Stopped, judge};
use pekan_linear::{Budget, Run, Verdict};
use pyo3::prelude::*;

use crate::foreign::Objects;
use crate::guard::guarded;
use crate::linear::{NATIVE_SLICE_STEPS, told};
use crate::session::Declined;

/// What is known of one object, or a part of one, that is not simply legal: key; whether a monitor says it; verdict; bound; the operation
/// where a search got stuck, or whose answer ends the monitor's legal prefix, -1 for none; answered operations of that prefix; the monitor's
/// rule; operations by index (all of a search's part; of a monitor those that the rule names, in its roles); failed operations on the same
/// object.
pub type NotLegal<'py> = (Bound<'py, PyAny>, bool, &'static str, &'static str, i64, u32, &'static str, Vec<u32>, Vec<u32>);

/// Objects, parts that a monitor judged, parts that the engine judged, operations that did not fail, and what is not legal.
pub type Judgement<'py> = (usize, usize, usize, usize, Vec<NotLegal<'py>>);

/// Judge every object of `held` by the ready model of that name, its objects unset at first; with `monitored` by monitors where they can.
/// Raises Declined where the model in Python is to judge.
#[pyfunction]
pub fn judge_objects<'py>(
    py: Python<'py>,
    held: &Bound<'py, Objects>,
    model: &str,
    monitored: bool,
    time_s: Option<f64>,
    steps: Option<u64>,
    memory_bytes: Option<usize>,
) -> PyResult<Judgement<'py>> {
    guarded(py, "an object's history", || {
        let held = held.get();
        let objects = held.columns();
        let mut found: Vec<NotLegal<'py>> = Vec::new();
        let mut left = vec![true; objects.len()];
        let mut by_monitor = 0;
        // Where no monitor can look at the history, the engine looks at all of it.
        if let Some(answers) = monitored.then(|| py.detach(|| monitors::monitor(objects, model))).and_then(Result::ok) {
            for object in answers {
                match object.answer {
                    Answer::Declined(_) => continue,
                    Answer::Legal => {}
                    Answer::Illegal(contradiction) => {
                        let key = held.value(py, object.key)?;
                        let (next, answered) = object.prefix.map_or((-1, 0), |prefix| (i64::from(prefix.next), prefix.answered));
                        let rule = contradiction.rule.name();
                        found.push((key, true, "illegal", "", next, answered, rule, contradiction.places, Vec::new()));
                    }
                }
                by_monitor += 1;
                for o in object.operations {
                    left[o as usize] = false;
                }
            }
        }
        let judged = if left.contains(&true) {
            let budget = Budget { time_s, steps, memory_bytes };
            let mut run = Run { budget, slice_steps: NATIVE_SLICE_STEPS, interrupt: &mut || py.check_signals(), tokens: false };
            match judge(objects, model, Some(&left), &mut run) {
                Ok(judged) => judged,
                Err(Stopped::Declined(reason)) => return Err(Declined::new_err(reason.to_string())),
                Err(Stopped::Interrupted(error)) => return Err(error),
            }
        } else {
            Vec::new()
        };
        let by_engine = judged.len();
        for part in judged.into_iter().filter(|part| part.answer.verdict != Verdict::Ok) {
            let key = held.value(py, part.key)?;
            let refused = refused(objects, part.key);
            let (verdict, _, blocked, bound, ..) = told(part.answer);
            found.push((key, false, verdict, bound, blocked, 0, "", part.operations, refused));
        }
        let keys: std::collections::HashSet<u32> = objects.key.iter().copied().collect();
        let operations = objects.outcome.iter().filter(|&&outcome| outcome != Outcome::Failed as u8).count();
        Ok((keys.len(), by_monitor, by_engine, operations, found))
    })
}

/// The failed operations on the object of that key.
pub fn refused(objects: &pekan_foreign::Objects, key: u32) -> Vec<u32> {
    let failed = |o: &u32| objects.outcome[*o as usize] == Outcome::Failed as u8 && objects.key[*o as usize] == key;
    (0..objects.len() as u32).filter(failed).collect()
}
