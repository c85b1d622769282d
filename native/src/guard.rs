//! A panic is a bug of ours, and never the end of the process: Python gets an exception that names the input.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

/// What `work` gives; a panic in it becomes `pekan.errors.CoreFailure`, which names `input` (a file, or what else was looked at).
///
/// Every function that Python calls and that looks at data goes through here. What `work` was changing when it panicked must not be looked
/// at again: it is to work on values of its own.
pub fn guarded<T>(py: Python<'_>, input: &str, work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let message = format!("{input}: the native core failed on it: {}; --engine reference does without the core", text(&*panic));
            let kind = py.import("pekan.errors")?.getattr("CoreFailure")?;
            Err(PyErr::from_value(kind.call1((message,))?))
        }
    }
}

/// Panics, as a bug would: so that it can be tried what callers then get.
#[pyfunction]
pub fn panics(py: Python<'_>, input: &str) -> PyResult<()> {
    guarded(py, input, || panic!("as a bug would"))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
