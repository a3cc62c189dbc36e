//! The LM head with its loss, in chunks of rows: [tokens, vocabulary] never exists beyond one.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::{gemm, slices};

/// How many values a [`RowLoss`] reports per row; the first is the loss itself.
pub const N_PARTS: usize = 6;

/// The sums a loss reports beside itself.
pub type Parts = [f64; N_PARTS];

/// A loss on one supervised position's logits.
pub trait RowLoss: Send + Sync {
    /// Overwrites `logits` [V] of supervised row `row` with d loss / d logits and returns the
    /// loss (first) and what else is summed for the metrics. Rows are taken in parallel and
    /// in any order; a row's result depends on nothing but the row.
    fn row(&self, row: usize, logits: &mut [f32]) -> Parts;
}

/// A summed loss and its parts.
pub struct HeadLoss {
    /// Scalar; its backward reaches the hidden states, and the weight when that is tracked.
    pub loss: Tensor,
    /// Sums over the rows, added in row order.
    pub parts: Parts,
}

/// Σ over rows of loss(hidden_row · weightᵀ).
///
/// # Shapes
/// hidden [S, D] (supervised rows only), weight [V, D] → scalar. At most `chunk_rows` rows of
/// logits exist at a time. The gradients are computed in the forward pass, unless nothing is
/// tracked.
pub fn head_loss(
    hidden: &Tensor,
    weight: &Tensor,
    loss: Arc<dyn RowLoss>,
    chunk_rows: usize,
) -> Result<HeadLoss> {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let op = Op {
        loss,
        chunk_rows: chunk_rows.max(1),
        needs_gradient: hidden.track_op() || weight.track_op(),
        weight: weight.clone(),
        kept: kept.clone(),
    };
    let loss = if weight.track_op() {
        hidden.apply_op2(weight, op)?
    } else {
        hidden.apply_op1(op)?
    };
    let parts = kept.lock().map_or([f64::NAN; N_PARTS], |kept| kept.parts);
    Ok(HeadLoss { loss, parts })
}

#[derive(Default)]
struct Kept {
    parts: Parts,
    d_hidden: Option<Tensor>,
    d_weight: Option<Tensor>,
}

struct Op {
    loss: Arc<dyn RowLoss>,
    chunk_rows: usize,
    needs_gradient: bool,
    weight: Tensor,
    kept: Arc<Mutex<Kept>>,
}

impl Op {
    fn forward(
        &self,
        hidden: &[f32],
        (s, d): (usize, usize),
        weight: &[f32],
    ) -> Result<(CpuStorage, Shape)> {
        let (v, columns) = self.weight.dims2()?;
        if columns != d {
            bail!("head-loss: hidden of {s} x {d} against a weight of {v} x {columns}");
        }
        let mut kept = Kept::default();
        let mut d_hidden = Vec::with_capacity(if self.needs_gradient { s * d } else { 0 });
        let mut d_weight = vec![0.0; if self.weight.track_op() { v * d } else { 0 }];
        for (chunk, hidden) in hidden.chunks(self.chunk_rows * d).enumerate() {
            let rows = hidden.len() / d;
            let mut logits = gemm::nt(rows, v, d, hidden, weight); // [rows, V]
            let first = chunk * self.chunk_rows;
            let parts: Vec<Parts> = logits
                .par_chunks_mut(v)
                .enumerate()
                .map(|(row, logits)| self.loss.row(first + row, logits))
                .collect();
            for row in parts {
                kept.parts
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, part)| *sum += part);
            }
            if self.needs_gradient {
                d_hidden.extend(gemm::nn(rows, d, v, &logits, weight));
            }
            if !d_weight.is_empty() {
                gemm::tn_add(v, d, rows, &logits, hidden, &mut d_weight);
            }
        }
        let loss = kept.parts[0] as f32;
        if self.needs_gradient {
            kept.d_hidden = Some(slices::tensor(d_hidden, (s, d))?);
        }
        if !d_weight.is_empty() {
            kept.d_weight = Some(slices::tensor(d_weight, (v, d))?);
        }
        if let Ok(mut slot) = self.kept.lock() {
            *slot = kept;
        }
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn gradients(&self, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = f64::from(grad.to_scalar::<f32>()?);
        let Ok(mut kept) = self.kept.lock() else {
            bail!("head-loss: a row loss panicked");
        };
        let scaled = |tensor: Option<Tensor>| {
            tensor
                .map(|t| if factor == 1.0 { Ok(t) } else { t * factor })
                .transpose()
        };
        Ok((scaled(kept.d_hidden.take())?, scaled(kept.d_weight.take())?))
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let hidden = slices::of(hidden, layout)?;
        slices::with(&self.weight, |weight| {
            self.forward(hidden, slices::dims2(layout)?, weight)
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.gradients(grad)?.0)
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = slices::of(weight, weight_layout)?;
        self.forward(slices::of(hidden, layout)?, slices::dims2(layout)?, weight)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(grad)
    }
}
