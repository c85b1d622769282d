//! What Python sees of the native core: `pekan._native`.

use pyo3::prelude::*;

mod asked;
mod counting;
mod evidence;
mod foreign;
mod gathered;
mod guard;
mod judging;
mod kv;
mod linear;
mod live;
mod monitors;
mod session;
mod watch;

#[pymodule]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::asked::judge_model;
    #[pymodule_export]
    use super::counting::{expiries, first_sights, whole_watches};
    #[pymodule_export]
    use super::evidence::{Evidence, Order};
    #[pymodule_export]
    use super::foreign::Objects;
    #[pymodule_export]
    use super::guard::panics;
    #[pymodule_export]
    use super::judging::judge_objects;
    #[pymodule_export]
    use super::kv::check_kv;
    #[pymodule_export]
    use super::linear::{linear_judge, linear_solve};
    #[pymodule_export]
    use super::live::Live;
    #[pymodule_export]
    use super::monitors::monitor;
    #[pymodule_export]
    use super::session::{Declined, Session};
    #[pymodule_export]
    use super::watch::Watches;

    /// Release of the core; `pekan` refuses one that is not its own.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
