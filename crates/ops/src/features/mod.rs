//! Distances between rows of a student's hidden states and a teacher's, with their gradient.
//!
//! - mse: mean over D of (a − b)². Gradient: 2 (a − b) / D.
//! - cosine: 1 − cos(a, b), as ½ |a/|a| − b/|b||², which keeps its digits where they agree. With u = a/|a| − b/|b| the
//!   gradient is (u − ½ |u|² a/|a|) / |a|. Norms below 1e-8 count as that, as in PyTorch.

mod cpu;

use candle_core::{Result, Tensor, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Mse,
    Cosine,
}

/// The distance summed over rows, and `scale` times its gradient by the student's.
///
/// # Shapes
/// student and teacher [S, D], f32 or bf16 each → f32 [S, D].
///
/// # Errors
/// Shapes that differ; tensors that do not lie on the CPU.
pub fn distance(
    metric: Metric,
    student: &Tensor,
    teacher: &Tensor,
    scale: f32,
) -> Result<(f64, Tensor)> {
    let (rows, columns) = student.dims2()?;
    if teacher.dims() != [rows, columns] {
        bail!(
            "features: {:?} against {:?}",
            student.dims(),
            teacher.dims()
        );
    }
    cpu::distance(metric, student, teacher, scale)
}
