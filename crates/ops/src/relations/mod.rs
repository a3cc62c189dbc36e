//! Relations between the positions of a document, a student's against a teacher's, with their gradient.
//!
//! - [`Relation::Attention`]: MiniLMv2 (Wang et al. 2021, arXiv:2012.15828, eq. 2–3). X [n, W] is cut into R heads of d = W / R columns;
//!   of each, A = softmax(X Xᵀ / √d) by rows, and KL(A of the teacher ‖ A of the student), mean over rows and heads.
//!   Widths of the two sides may differ.
//! - [`Relation::TokenSimilarity`]: the mean square of the difference of the two matrices of cosines between all positions.
//!
//! Both look at all positions of a document and at nothing beyond it, and work on blocks of rows: no [n, n] exists.

mod cpu;

use candle_core::{Result, Tensor, bail};

use crate::segments::Segments;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// With this many relation heads.
    Attention {
        heads: usize,
    },
    TokenSimilarity,
}

/// The relation loss of each document, summed, and `scale` times its gradient by the student's activations.
///
/// # Shapes
/// student [N, W], teacher [N, W of the teacher], f32 or bf16 each → f32 [N, W].
///
/// # Errors
/// Rows that differ, widths that R does not divide; tensors that do not lie on the CPU.
pub fn relation(
    kind: Relation,
    student: &Tensor,
    teacher: &Tensor,
    segments: &Segments,
    scale: f32,
) -> Result<(f64, Tensor)> {
    let ((n, width), (rows, teacher_width)) = (student.dims2()?, teacher.dims2()?);
    if n != rows || n != segments.n_tokens() {
        bail!(
            "relations: {n} and {rows} rows of {} tokens",
            segments.n_tokens()
        );
    }
    if let Relation::Attention { heads } = kind
        && (heads == 0 || width % heads != 0 || teacher_width % heads != 0)
    {
        bail!("relations: {heads} heads of {width} and {teacher_width} columns");
    }
    cpu::relation(kind, student, teacher, segments, scale)
}
