//! A loaded record file, as Python sees it: places and bytes of what a person looks at, numbers of all the rest.

use std::path::PathBuf;

use pekan_foreign::robustness::{File, records};
use pekan_history::{Columns, NEVER, NO_ERROR, NotLoaded, Op, Outcome, Recorded};
use pekan_wire::Malformed;
use pyo3::exceptions::{PyIndexError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::counting;
use crate::guard::guarded;

pyo3::create_exception!(
    pekan._native,
    Declined,
    pyo3::exceptions::PyException,
    "The core leaves this to the reference in Python; the message says why."
);

/// One record file, mapped, in columns. Operations and streams are named by their index.
#[pyclass(frozen, module = "pekan._native")]
pub struct Session {
    recorded: Recorded,
    /// The file, for messages.
    path: String,
    /// `Columns::names` as Python's strings, each made once.
    names: Vec<Py<PyString>>,
}

impl Session {
    /// The columns, for the checkers of the core.
    pub fn columns(&self) -> &Columns<'_> {
        self.recorded.columns()
    }

    /// The file that was loaded, for [`guarded`].
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A name of the columns as Python's string.
    pub fn name<'py>(&self, py: Python<'py>, index: u16) -> Bound<'py, PyString> {
        self.names[usize::from(index)].bind(py).clone()
    }

    /// Bytes that are no message of their method, though the loader let them pass.
    pub fn declined(&self, malformed: Malformed) -> PyErr {
        Declined::new_err(format!("{}: expected {} (byte {} of a message)", self.path, malformed.expected, malformed.at))
    }

    fn op(&self, index: usize) -> PyResult<&Op<'_>> {
        self.columns().ops.get(index).ok_or_else(|| PyIndexError::new_err(format!("{}: has no operation at index {index}", self.path)))
    }
}

/// A time, None where it never came.
pub fn moment(time: i64) -> Option<i64> {
    (time != NEVER).then_some(time)
}

/// An outcome as `pekan.history.types` names it.
pub fn outcome(of: Outcome) -> &'static str {
    match of {
        Outcome::Ok => "ok",
        Outcome::Failed => "failed",
        Outcome::Indefinite => "indefinite",
    }
}

#[pymethods]
impl Session {
    /// Maps and loads the record file at `path`. `definite(code, message)` says of an error whether it promises that nothing happened; it is
    /// asked once for each distinct one. Raises Declined where the reader in Python is to read the file, OSError where nobody can.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, definite: &Bound<'_, PyAny>) -> PyResult<Session> {
        let name = path.display().to_string();
        guarded(py, &name, || {
            let mut failed = None;
            let opened = Recorded::open(&path, &mut |code, message| {
                definite.call1((code, message)).and_then(|answer| answer.is_truthy()).map_err(|error| failed = Some(error)).ok()
            });
            match (opened, failed) {
                (_, Some(error)) => Err(error),
                (Ok(recorded), _) => {
                    let names = recorded.columns().names.iter().map(|name| PyString::intern(py, name).unbind()).collect();
                    Ok(Session { recorded, path: name.clone(), names })
                }
                (Err(NotLoaded::Declined(declined)), _) => Err(Declined::new_err(format!("{name}: {declined}"))),
                (Err(NotLoaded::Io(error)), _) => Err(PyOSError::new_err(format!("{name}: {error}"))),
            }
        })
    }

    /// The traffic of a robustness report: its session, whether the store began empty, answers that count for their revision and count alone,
    /// and watch events left out. `files` names client, file, and whether it holds watches; `definite` and what is raised are as in `open`.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)] // PyO3 gives it so
    fn report(
        py: Python<'_>,
        path: PathBuf,
        files: Vec<(String, PathBuf, bool)>,
        definite: &Bound<'_, PyAny>,
    ) -> PyResult<(Session, bool, u64, u64)> {
        let name = path.display().to_string();
        guarded(py, &name, || {
            let texts = files
                .iter()
                .map(|(_, file, _)| {
                    let bytes = std::fs::read(file).map_err(PyOSError::new_err)?;
                    String::from_utf8(bytes).map_err(|_| Declined::new_err(format!("{}: not UTF-8", file.display())))
                })
                .collect::<PyResult<Vec<_>>>()?;
            let parts: Vec<File<'_>> =
                files.iter().zip(&texts).map(|((client, _, watches), text)| File { client, text, watches: *watches }).collect();
            let mut failed = None;
            let mut ask = |code: u32, message: &str| {
                definite.call1((code, message)).and_then(|answer| answer.is_truthy()).map_err(|error| failed = Some(error)).ok()
            };
            let told = records(&parts, &mut ask).map_err(|declined| declined.0.to_owned());
            let told = told.and_then(|told| {
                let loaded = Recorded::of(told.records, &mut ask).map_err(|declined| declined.to_string())?;
                Ok((loaded, told.empty, told.weakened, told.left_out))
            });
            match (told, failed) {
                (_, Some(error)) => Err(error),
                (Ok((recorded, empty, weakened, left_out)), None) => {
                    let names = recorded.columns().names.iter().map(|name| PyString::intern(py, name).unbind()).collect();
                    Ok((Session { recorded, path: name.clone(), names }, empty, weakened, left_out))
                }
                (Err(reason), None) => Err(Declined::new_err(format!("{name}: {reason}"))),
            }
        })
    }

    /// How many operations there are.
    fn __len__(&self) -> usize {
        self.columns().ops.len()
    }

    /// Bytes dropped at the end of a file that was cut in mid-record.
    #[getter]
    fn cut(&self) -> u64 {
        self.columns().cut
    }

    /// How many operations are ok, failed, indefinite.
    fn outcomes(&self) -> (usize, usize, usize) {
        let mut counts = [0; 3];
        for op in &self.columns().ops {
            counts[op.outcome as usize] += 1;
        }
        (counts[0], counts[1], counts[2])
    }

    /// How many operations there are of each method.
    fn methods<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyString>, usize)> {
        let mut counts = vec![0; self.names.len()];
        for op in &self.columns().ops {
            counts[usize::from(op.method)] += 1;
        }
        (0..).zip(counts).filter(|&(_, count)| count > 0).map(|(method, count)| (self.name(py, method), count)).collect()
    }

    /// The indexes of the operations of these `methods`, ascending.
    #[allow(clippy::needless_pass_by_value)] // PyO3 gives it so
    fn select(&self, methods: Vec<String>) -> Vec<usize> {
        let wanted: Vec<bool> = self.columns().names.iter().map(|name| methods.iter().any(|method| method == name)).collect();
        let ops = self.columns().ops.iter().enumerate();
        ops.filter(|(_, op)| wanted[usize::from(op.method)]).map(|(index, _)| index).collect()
    }

    /// Where operation `index` lies in the file: the bytes at which its two records begin (the second None where there is none).
    fn place(&self, index: usize) -> PyResult<(u64, Option<u64>)> {
        let op = self.op(index)?;
        Ok((op.invoked_at, (op.completed_at != u64::MAX).then_some(op.completed_at)))
    }

    /// Operation `index`: (id, process, call, ret, outcome, method, request, response, error, client, member, user, gave up); request and
    /// response encoded, error (code, message), and None for what there is not.
    fn operation<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyTuple>> {
        let op = self.op(index)?;
        let response = (op.outcome == Outcome::Ok).then(|| PyBytes::new(py, op.response));
        let error = (op.error != NO_ERROR).then(|| self.columns().errors[op.error as usize]);
        let fields: [Bound<'py, PyAny>; 13] = [
            op.id.into_pyobject(py)?.into_any(),
            op.process.into_pyobject(py)?.into_any(),
            op.call.into_pyobject(py)?.into_any(),
            moment(op.ret).into_pyobject(py)?.into_any(),
            PyString::intern(py, outcome(op.outcome)).into_any(),
            self.name(py, op.method).into_any(),
            PyBytes::new(py, op.request).into_any(),
            response.into_pyobject(py)?.into_any(),
            error.into_pyobject(py)?.into_any(),
            self.name(py, op.client).into_any(),
            self.name(py, op.member).into_any(),
            self.name(py, op.user).into_any(),
            moment(op.gave_up).into_pyobject(py)?.into_any(),
        ];
        PyTuple::new(py, fields)
    }

    /// How many streams there are.
    #[getter]
    fn streams(&self) -> usize {
        self.columns().streams.len()
    }

    /// Stream `index` without its messages: (id, method, client, member, user, ended, code, reason, by client, number of messages).
    #[allow(clippy::type_complexity)] // the row of a table
    fn stream<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(
        u64,
        Bound<'py, PyString>,
        Bound<'py, PyString>,
        Bound<'py, PyString>,
        Bound<'py, PyString>,
        Option<i64>,
        u32,
        String,
        bool,
        usize,
    )> {
        let s = self.columns().streams.get(index);
        let s = s.ok_or_else(|| PyIndexError::new_err(format!("{}: has no stream at index {index}", self.path)))?;
        let [method, client, member, user] = [s.method, s.client, s.member, s.user].map(|name| self.name(py, name));
        Ok((s.id, method, client, member, user, moment(s.ended), s.code, s.reason.to_owned(), s.by_client, s.messages.len()))
    }

    /// Message `at` of stream `index`: (time, sent, the encoded message).
    fn message<'py>(&self, py: Python<'py>, index: usize, at: usize) -> PyResult<(i64, bool, Bound<'py, PyBytes>)> {
        let message = self.columns().streams.get(index).and_then(|stream| stream.messages.get(at));
        let m = message.ok_or_else(|| PyIndexError::new_err(format!("{}: stream {index} has no message at index {at}", self.path)))?;
        Ok((m.time, m.sent, PyBytes::new(py, m.data)))
    }

    /// Distinct errors: (code, message).
    fn errors(&self) -> Vec<(u32, &str)> {
        self.columns().errors.clone()
    }

    /// When the last operation was called or answered what proves something; 0 where there is none.
    fn last_moment(&self) -> i64 {
        // As `op.ret or op.call` in Python: a return at 0 is none.
        let moments = self.columns().ops.iter().map(|op| if op.ret == NEVER || op.ret == 0 { op.call } else { op.ret });
        moments.max().unwrap_or(0)
    }

    /// See `counting::served`; `decided` is asked for each of `errors()`.
    #[allow(clippy::needless_pass_by_value)]
    fn served(
        &self,
        py: Python<'_>,
        besides: Vec<String>,
        decided: Vec<bool>,
        spans: Vec<(i64, Option<i64>)>,
    ) -> PyResult<(usize, usize, usize, usize)> {
        let spans: Vec<(i64, i64)> = spans.into_iter().map(|(start, end)| (start, end.unwrap_or(NEVER))).collect();
        guarded(py, &self.path, || Ok(counting::served(self.columns(), &besides, &decided, &spans)))
    }

    /// See `counting::due`.
    #[allow(clippy::needless_pass_by_value)]
    fn due(&self, py: Python<'_>, watches: Vec<(i64, i64, i64)>) -> PyResult<Vec<usize>> {
        guarded(py, &self.path, || counting::due(self.columns(), &watches).map_err(|malformed| self.declined(malformed)))
    }

    /// See `counting::suspects`.
    #[allow(clippy::needless_pass_by_value)]
    fn suspects(&self, py: Python<'_>, revisions: Vec<i64>) -> PyResult<Vec<usize>> {
        guarded(py, &self.path, || counting::suspects(self.columns(), &revisions).map_err(|malformed| self.declined(malformed)))
    }

    /// The encoded records of faults and marks, in order.
    fn rest<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let bytes = self.recorded.bytes();
        let records = self.columns().rest.iter();
        records.map(|&(start, length)| PyBytes::new(py, &bytes[start as usize..start as usize + length as usize])).collect()
    }
}
