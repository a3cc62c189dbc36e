//! The LM head with its loss, in chunks of rows: [tokens, vocabulary] never exists beyond one.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::{Values, by_element, with};
use crate::gemm::Arithmetic;
use cpu::chunks;

/// How many values a [`RowLoss`] reports per row; the first is the loss itself.
pub const N_PARTS: usize = 6;

/// The sums a loss reports beside itself.
pub type Parts = [f64; N_PARTS];

/// A loss on one supervised position's logits.
///
/// [`Self::row`] is the whole of it. The other two are the same loss for logits on a GPU, where what is as long as the
/// vocabulary is done by kernels: they sum up all ids but those that [`Self::taken`] names, [`Self::charge`] answers
/// with the gradient of what they found.
pub trait RowLoss: Send + Sync {
    /// Overwrites `logits` [V] of supervised row `row` with d loss / d logits and returns the
    /// loss (first) and what else is summed for the metrics. Rows are taken in parallel and
    /// in any order; a row's result depends on nothing but the row.
    fn row(&self, row: usize, logits: &mut [f32]) -> Parts;

    /// The ids of a row that the loss treats one by one.
    fn taken(&self, row: usize) -> Taken<'_>;

    /// Loss and parts as of [`Self::row`], from what was found in the row. `gradient`, as long as `found.logits`, becomes
    /// the gradient of those logits, `target` that of the target where it is not among them.
    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target: &mut f32,
    ) -> (Parts, Factors);
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

/// A summed loss, its parts and its gradients.
pub struct HeadLoss {
    /// Sums over the rows, added in row order.
    pub parts: Parts,
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

/// Σ over rows of loss(hidden_row · weightᵀ), the logits in f32.
///
/// # Shapes
/// hidden [S, D] (supervised rows only), weight [V, D]; f32 or bf16 each. At most `chunk_rows` rows of logits
/// exist at a time: a row's gradient takes its logits' place before the next chunk is begun.
pub fn head_loss(
    hidden: &Tensor,
    weight: &Tensor,
    arithmetic: Arithmetic,
    loss: &dyn RowLoss,
    chunk_rows: usize,
    wanted: Wanted,
) -> Result<HeadLoss> {
    let (s, d) = hidden.dims2()?;
    let (v, columns) = weight.dims2()?;
    if columns != d {
        bail!("head-loss: hidden of {s} x {d} against a weight of {v} x {columns}");
    }
    // Of one size: a last chunk of a few rows would have the weights packed for little.
    let chunk_rows = s.div_ceil(s.div_ceil(chunk_rows.max(1)).max(1)).max(1);
    on_gpu!(hidden => cuda::head_loss(hidden, weight, loss, chunk_rows, wanted));
    let run = |weight: Values<'_>| {
        by_element!(
            hidden.dtype(),
            chunks(
                hidden,
                weight,
                [s, d, v],
                arithmetic,
                loss,
                chunk_rows,
                wanted
            )
        )
    };
    with(weight, run)
}

/// Adds the rows' parts, in their order.
fn add_parts(sums: &mut Parts, rows: &[Parts]) {
    for row in rows {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, part)| *sum += part);
    }
}
