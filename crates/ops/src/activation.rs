//! SwiGLU (Shazeer 2020, arXiv:2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::math::{exp, vectorized};
use crate::slices;

/// silu(gate) · up, elementwise; silu(x) = x / (1 + e^−x).
///
/// # Shapes
/// gate, up [N, F] → [N, F].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2(up, SwiGlu)
}

struct SwiGlu;

const BLOCK: usize = 1 << 14;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = gate_layout.shape().clone();
        if up_layout.shape() != &shape {
            bail!("swiglu: gate {shape:?} against up {:?}", up_layout.shape());
        }
        let (gate, up) = (slices::of(gate, gate_layout)?, slices::of(up, up_layout)?);
        let mut out = vec![0.0; gate.len()];
        let blocks = out
            .par_chunks_mut(BLOCK)
            .zip(gate.par_chunks(BLOCK))
            .zip(up.par_chunks(BLOCK));
        blocks.for_each(|((out, gate), up)| {
            vectorized(|| {
                for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate / (1.0 + exp(-gate)) * up;
                }
            });
        });
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut d_gate = vec![0.0; gate.elem_count()];
        let mut d_up = vec![0.0; gate.elem_count()];
        slices::with(gate, |gate| {
            slices::with(up, |up| {
                slices::with(&grad, |grad| {
                    let inputs = gate
                        .par_chunks(BLOCK)
                        .zip(up.par_chunks(BLOCK))
                        .zip(grad.par_chunks(BLOCK));
                    let outputs = d_gate.par_chunks_mut(BLOCK).zip(d_up.par_chunks_mut(BLOCK));
                    outputs
                        .zip(inputs)
                        .for_each(|((d_gate, d_up), ((gate, up), grad))| {
                            vectorized(|| gradient(d_gate, d_up, gate, up, grad));
                        });
                    Ok(())
                })
            })
        })?;
        let shape = gate.shape();
        Ok((
            Some(slices::tensor(d_gate, shape)?),
            Some(slices::tensor(d_up, shape)?),
        ))
    }
}

/// d silu(x)/dx = σ·(1 + x·(1 − σ)), σ = 1 / (1 + e^−x).
#[inline(always)]
fn gradient(d_gate: &mut [f32], d_up: &mut [f32], gate: &[f32], up: &[f32], grad: &[f32]) {
    let inputs = gate.iter().zip(up).zip(grad);
    for ((d_gate, d_up), ((&gate, &up), &grad)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let sigma = 1.0 / (1.0 + exp(-gate));
        *d_up = grad * gate * sigma;
        *d_gate = grad * up * sigma * (1.0 + gate * (1.0 - sigma));
    }
}
