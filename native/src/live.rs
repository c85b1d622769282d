//! `pekan._native.Live`: a record judged while it grows.

use pekan_live::Live as Checker;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::guard::guarded;

/// Judges a record while it grows; see the crate `live`. `definite(code, message)` says whether an error promises that nothing happened.
#[pyclass(name = "Live")]
pub struct Live {
    checker: Checker,
    definite: Py<PyAny>,
}

#[pymethods]
impl Live {
    #[new]
    fn new(definite: Py<PyAny>) -> Self {
        Live { checker: Checker::default(), definite }
    }

    /// Takes bytes as they were appended; returns suspicions as (code, time in ns, revision). ValueError names the byte of a damaged record.
    fn feed(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<Vec<(&'static str, i64, i64)>> {
        let mut raised = None;
        let (checker, definite) = (&mut self.checker, &self.definite);
        let suspicions = guarded(py, "a growing record", || {
            let mut ask = |code: u32, message: &str| match definite.call1(py, (code, message)).and_then(|said| said.is_truthy(py)) {
                Ok(said) => said,
                Err(error) => {
                    raised = Some(error);
                    false
                }
            };
            checker.feed(data, &mut ask).map_err(|damaged| PyValueError::new_err(format!("byte {}: no whole record", damaged.at)))
        });
        if let Some(error) = raised {
            return Err(error);
        }
        Ok(suspicions?.into_iter().map(|s| (s.code, s.time, s.revision)).collect())
    }

    /// Operations invoked so far.
    #[getter]
    fn operations(&self) -> u64 {
        self.checker.operations()
    }

    /// Highest revision whose contents have been judged; None where contents are not followed.
    #[getter]
    fn settled(&self) -> Option<i64> {
        self.checker.settled()
    }

    /// Highest revision that anything has shown.
    #[getter]
    fn reached(&self) -> i64 {
        self.checker.reached()
    }

    /// Answers, revisions and requests in flight that are kept until they can be settled.
    #[getter]
    fn window(&self) -> usize {
        self.checker.window()
    }

    /// Live keys.
    #[getter]
    fn keys(&self) -> usize {
        self.checker.keys()
    }
}
