//! Linearizability of any sequential object: the generic engine, and monitors for objects with distinct values.

pub mod monitors;
