//! Losses over one row of student logits, and the value the loop takes to know which one it minimises.

pub mod divergence;
pub mod hard;
mod mixed;
pub mod soft;

pub use mixed::{Objective, Parts, RowTeacher, SupervisedRows};
