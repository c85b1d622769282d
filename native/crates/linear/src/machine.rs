//! What the search asks about the object.

/// A sequential object, its states and classes of operations by number.
pub trait Machine {
    /// What can go wrong in asking (a model in Python raises).
    type Error;

    /// The state after an operation of class `class` in `state`, or [`crate::ILLEGAL`]. Must be a function: the search may ask twice.
    fn step(&mut self, state: u32, class: u32) -> Result<u32, Self::Error>;

    /// False where no operations without a reset lead from `state` to one in which `class` is legal.
    fn viable(&mut self, _state: u32, _class: u32) -> Result<bool, Self::Error> {
        Ok(true)
    }

    /// The error for a class declared read-only that leads from `state` to `after`.
    fn contradiction(&self, state: u32, class: u32, after: u32) -> Self::Error;

    /// Distinct transitions asked of the model.
    fn asked(&self) -> u64 {
        0
    }

    /// Bytes held for states and transitions, about.
    fn memory_bytes(&self) -> usize {
        0
    }
}
