//! The LM head with its loss, in chunks of rows: [tokens, vocabulary] never exists beyond one.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::{Values, by_element, with};
use crate::gemm::Arithmetic;
use cpu::chunks;

/// A loss on one supervised position's logits.
///
/// [`Self::row`] is the whole of it. The other two are the same loss for logits on a GPU, where what is as long as the
/// vocabulary is done by kernels: they sum up all ids but those that [`Self::taken`] names, [`Self::charge`] answers
/// with the gradient of what they found.
pub trait RowLoss: Send + Sync {
    /// How many values a row measures.
    fn n_measures(&self) -> usize;

    /// Overwrites `logits` [V] of supervised row `row` with d loss / d logits, and `measures`, of which there are
    /// [`Self::n_measures`], with the loss (first) and what else is summed for the metrics. Rows are taken in parallel
    /// and in any order; a row's result depends on nothing but the row. `teacher` is the same position's row of the
    /// teacher's head, empty without one.
    fn row(&self, row: usize, logits: &mut [f32], teacher: &[f32], measures: &mut [f64]);

    /// The ids of a row that the loss treats one by one.
    fn taken(&self, row: usize) -> Taken<'_>;

    /// The measures of [`Self::row`], from what was found in the row. `gradient`, as long as `found.logits`, becomes
    /// the gradient of those logits, `target` that of the target where it is not among them.
    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target: &mut f32,
        measures: &mut [f64],
    ) -> Factors;
}

/// What a loss treats apart from the rest of a row.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Distinct.
    pub ids: &'a [u32],
    /// May be one of `ids`.
    pub target: u32,
    /// What the rest's logits are multiplied with for [`Rest::scaled_sum`].
    pub scale: f32,
}

/// What a row's loss needs to know of its logits.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Of [`Taken::ids`].
    pub logits: &'a [f32],
    /// Of no meaning where the target is one of them.
    pub target_logit: f32,
    pub rest: Rest,
}

/// A row's logits without those taken out of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// The largest; −inf where there is no mass.
    pub most: f32,
    /// The lowest id that has it.
    pub at: u32,
    /// Σ e^(x − most).
    pub sum: f32,
    /// Σ e^((x − most)·scale).
    pub scaled_sum: f32,
}

/// The gradient of every logit of the rest: plain · e^(x − shift) + tempered · e^((x − shift)·scale).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    pub plain: f32,
    pub tempered: f32,
    pub shift: f32,
    pub scale: f32,
}

/// A summed loss and its gradients.
pub struct HeadLoss {
    /// What the rows measured, added in their order; the first is the loss.
    pub sums: Vec<f64>,
    /// [S, D] of the hidden states' dtype; none where it was not asked for.
    pub d_hidden: Option<Tensor>,
    /// [V, D] f32, likewise.
    pub d_weight: Option<Tensor>,
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub hidden: bool,
    pub weight: bool,
}

/// What logits are the product of.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// [S, D], supervised rows only; f32 or bf16.
    pub hidden: &'a Tensor,
    /// [V, D]; f32 or bf16.
    pub weight: &'a Tensor,
    pub arithmetic: Arithmetic,
}

impl Head<'_> {
    /// [S, D, V].
    fn sizes(&self) -> Result<[usize; 3]> {
        let (s, d) = self.hidden.dims2()?;
        let (v, columns) = self.weight.dims2()?;
        if columns != d {
            bail!("head-loss: hidden of {s} x {d} against a weight of {v} x {columns}");
        }
        Ok([s, d, v])
    }
}

/// Σ over rows of the loss on hidden · weightᵀ, the logits in f32, of the student beside those of a teacher, which may
/// have another D and another V. At most `chunk_rows` rows of logits exist at a time on either side: a row's gradient
/// takes its logits' place before the next chunk is begun.
pub fn head_loss(
    student: Head<'_>,
    teacher: Option<Head<'_>>,
    loss: &dyn RowLoss,
    chunk_rows: usize,
    wanted: Wanted,
) -> Result<HeadLoss> {
    let Head {
        hidden,
        weight,
        arithmetic,
    } = student;
    let [s, d, v] = student.sizes()?;
    if let Some(teacher) = &teacher {
        let rows = teacher.sizes()?[0];
        if rows != s {
            bail!("head-loss: {rows} rows of the teacher beside {s} of the student");
        }
    }
    // Of one size: a last chunk of a few rows would have the weights packed for little.
    let chunk_rows = s.div_ceil(s.div_ceil(chunk_rows.max(1)).max(1)).max(1);
    on_gpu!(hidden => cuda::head_loss(hidden, weight, teacher, loss, chunk_rows, wanted));
    let run = |weight: Values<'_>| {
        by_element!(
            hidden.dtype(),
            chunks(
                hidden,
                weight,
                [s, d, v],
                arithmetic,
                teacher,
                loss,
                chunk_rows,
                wanted
            )
        )
    };
    with(weight, run)
}

/// Adds what rows measured, in their order.
fn add_measures(sums: &mut [f64], rows: &[f64]) {
    for row in rows.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
