//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::math::{dot, sum_by, vectorized};
use crate::slices;

/// y = weight · x / sqrt(mean(x²) + eps), over the last dimension. The weight gets a gradient
/// only when it is tracked.
///
/// # Shapes
/// x [R, D], weight [D] → [R, D].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.apply_op2(weight, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

/// Rows of one task; the weight's gradient is summed per block, in block order.
const BLOCK: usize = 64;

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, d) = slices::dims2(x_layout)?;
        let (x, weight) = (slices::of(x, x_layout)?, slices::of(weight, weight_layout)?);
        if weight.len() != d {
            bail!("rms-norm: rows of {d} against a weight of {}", weight.len());
        }
        let mut out = vec![0.0; rows * d];
        let block = |(out, x): (&mut [f32], &[f32])| {
            vectorized(|| {
                for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                    let inverse = self.inverse_rms(x);
                    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                        *out = x * inverse * weight;
                    }
                }
            });
        };
        out.par_chunks_mut(BLOCK * d)
            .zip(x.par_chunks(BLOCK * d))
            .for_each(block);
        Ok(slices::output(out, (rows, d)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, d) = x.dims2()?;
        let grad = grad.contiguous()?;
        let mut dx = vec![0.0; rows * d];
        let partial: Vec<Vec<f32>> = slices::with(x, |x| {
            slices::with(weight, |weight| {
                slices::with(&grad, |grad| {
                    let blocks = dx
                        .par_chunks_mut(BLOCK * d)
                        .zip(x.par_chunks(BLOCK * d))
                        .zip(grad.par_chunks(BLOCK * d));
                    Ok(blocks
                        .map(|((dx, x), grad)| {
                            vectorized(|| self.block_gradient(dx, x, grad, weight))
                        })
                        .collect())
                })
            })
        })?;
        let dw = if weight.track_op() {
            let mut dw = vec![0.0; d];
            for block in &partial {
                dw.iter_mut()
                    .zip(block)
                    .for_each(|(sum, value)| *sum += value);
            }
            Some(slices::tensor(dw, d)?)
        } else {
            None
        };
        let dx = if x.track_op() {
            Some(slices::tensor(dx, (rows, d))?)
        } else {
            None
        };
        Ok((dx, dw))
    }
}

impl RmsNorm {
    #[inline(always)]
    fn inverse_rms(&self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.eps).sqrt()
    }

    /// With x̂ = x·inverse and ĝ = grad·weight: dx = inverse·(ĝ − x̂·mean(ĝ·x̂)). Returns Σ grad·x̂.
    #[inline(always)]
    fn block_gradient(&self, dx: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32]) -> Vec<f32> {
        let d = weight.len();
        let mut dw = vec![0.0; d];
        for ((dx, x), grad) in dx
            .chunks_exact_mut(d)
            .zip(x.chunks_exact(d))
            .zip(grad.chunks_exact(d))
        {
            let inverse = self.inverse_rms(x);
            for (out, (grad, weight)) in dx.iter_mut().zip(grad.iter().zip(weight)) {
                *out = grad * weight;
            }
            let along = sum_by(dx, x, |g, x| g * x) * inverse / d as f32;
            for ((out, x), (dw, grad)) in dx.iter_mut().zip(x).zip(dw.iter_mut().zip(grad)) {
                let normed = x * inverse;
                *out = inverse * (*out - normed * along);
                *dw += grad * normed;
            }
        }
        dw
    }
}
