//! Other people's histories as the core holds them: columns, and Python's values of what a person looks at.

use std::path::PathBuf;
use std::sync::OnceLock;

use pekan_foreign::{NONE, Value, read};
use pyo3::exceptions::{PyIndexError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyString, PyTuple};

use crate::guard::guarded;
use crate::session::{Declined, moment};

/// Outcomes by their numbers in the columns, as `pekan.history.types` names them.
const OUTCOMES: [&str; 3] = ["ok", "failed", "indefinite"];

/// A history of operations on objects, in columns. Operations are named by their index.
#[pyclass(frozen, module = "pekan._native")]
pub struct Objects {
    objects: pekan_foreign::Objects,
    header: pekan_foreign::Header,
    /// The text of each mark, and its time.
    marks: Vec<(Vec<u8>, i64)>,
    /// `Objects::names` as Python's strings.
    names: Vec<Py<PyString>>,
    /// Values that were looked at, by their numbers.
    made: Vec<OnceLock<Py<PyAny>>>,
}

/// The fields of `pekan.history.types.Operation` over a `Call`: process, call, ret, outcome, f, value, key, output, gave up.
type Row<'py> = (
    i64,
    i64,
    Option<i64>,
    Bound<'py, PyString>,
    Bound<'py, PyString>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<i64>,
);

impl Objects {
    /// The columns, for the checkers of the core.
    pub fn columns(&self) -> &pekan_foreign::Objects {
        &self.objects
    }

    /// A name of what was asked as Python's string.
    pub fn name<'py>(&self, py: Python<'py>, index: u32) -> Bound<'py, PyString> {
        self.names[index as usize].bind(py).clone()
    }

    /// The value of a number as Python has it; each is made once.
    pub fn value<'py>(&self, py: Python<'py>, number: u32) -> PyResult<Bound<'py, PyAny>> {
        if number == NONE {
            return Ok(py.None().into_bound(py));
        }
        if let Some(known) = self.made[number as usize].get() {
            return Ok(known.bind(py).clone());
        }
        let parts = |parts: &[u32]| parts.iter().map(|&part| self.value(py, part)).collect::<PyResult<Vec<_>>>();
        let made = match self.objects.values.get(number) {
            Value::Nil => py.None().into_bound(py),
            Value::Bool(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
            Value::Int(whole) => whole.into_pyobject(py)?.into_any(),
            Value::Number(text) => py.get_type::<pyo3::types::PyFloat>().call1((&**text,))?,
            Value::Text(text) => PyString::new(py, text).into_any(),
            Value::Name(name) => values_module(py)?.getattr("Keyword")?.call1((&**name,))?,
            Value::List(of) => PyTuple::new(py, parts(of)?)?.into_any(),
            Value::Set(of) => PyFrozenSet::new(py, parts(of)?)?.into_any(),
            Value::Map(of) => {
                let pairs = PyDict::new(py);
                for pair in of.chunks_exact(2) {
                    pairs.set_item(self.value(py, pair[0])?, self.value(py, pair[1])?)?;
                }
                values_module(py)?.getattr("Map")?.call1((pairs,))?
            }
        };
        Ok(self.made[number as usize].get_or_init(|| made.unbind()).bind(py).clone())
    }
}

fn values_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("pekan.history.values")
}

#[pymethods]
impl Objects {
    /// The history in the file at `path`, written in `format`. Raises Declined where the reader in Python is to read it, OSError where nobody
    /// can.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf, format: &str) -> PyResult<Objects> {
        let name = path.display().to_string();
        guarded(py, &name, || {
            let bytes = std::fs::read(&path).map_err(PyOSError::new_err)?;
            let found = read(&bytes, format).map_err(|declined| Declined::new_err(format!("{name}: {}", declined.0)))?;
            let objects = found.objects;
            let names = objects.names.iter().map(|name| PyString::new(py, name).unbind()).collect();
            let marks = objects.marks.iter().map(|mark| (bytes[mark.start..mark.end].to_vec(), mark.time)).collect();
            let made = (0..objects.values.len()).map(|_| OnceLock::new()).collect();
            Ok(Objects { objects, header: found.header, marks, names, made })
        })
    }

    fn __len__(&self) -> usize {
        self.objects.len()
    }

    /// Operation `index`.
    fn operation<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Row<'py>> {
        let objects = &self.objects;
        if index >= objects.len() {
            return Err(PyIndexError::new_err(format!("no operation at index {index}")));
        }
        Ok((
            objects.process[index],
            objects.call[index],
            moment(objects.ret[index]),
            PyString::intern(py, OUTCOMES[usize::from(objects.outcome[index])]),
            self.names[objects.f[index] as usize].bind(py).clone(),
            self.value(py, objects.input[index])?,
            self.value(py, objects.key[index])?,
            self.value(py, objects.output[index])?,
            moment(objects.gave_up[index]),
        ))
    }

    /// The text of each mark, and its time.
    fn marks<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, i64)> {
        self.marks.iter().map(|(text, time)| (PyBytes::new(py, text), *time)).collect()
    }

    /// What the file says of itself: (model, initial value, whether each process has a clock of its own).
    fn header<'py>(&self, py: Python<'py>) -> PyResult<(Option<&str>, Bound<'py, PyAny>, bool)> {
        Ok((self.header.model.as_deref(), self.value(py, self.header.initial.unwrap_or(NONE))?, self.header.per_process))
    }

    /// How the operations are called.
    #[getter]
    fn calls(&self) -> Vec<&str> {
        self.objects.names.iter().map(String::as_str).collect()
    }

    /// How many distinct values there are.
    #[getter]
    fn values(&self) -> usize {
        self.objects.values.len()
    }
}
