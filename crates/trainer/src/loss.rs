//! Losses over one row of student logits.
//!
//! A row is never widened: the few ids a loss treats one by one (the stored ones and the target) are taken out of it
//! and worked on in f64, in log space; all others enter as one log-sum, and their gradients are one factor times the
//! exponentials that the sum was made of. So a loss costs one exponential per logit (`renormalize` away from T=1:
//! four), nothing is ever computed as 1 − Σ, and logits of any size lose nothing to it.

pub mod divergence;
pub mod hard;
pub mod logits;
mod rows;
pub mod soft;
mod split;
mod teacher;

pub use logits::{LogitLoss, Parts};
pub use rows::{LogitRows, WithoutGradient};
pub use teacher::{TeacherRow, TeacherRows};
