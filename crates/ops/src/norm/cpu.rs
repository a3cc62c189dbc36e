//! RMSNorm on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::RmsNormGradients;
use crate::element::{Element, tensor, with_slices};
use crate::math::{sum_by, vectorized};
use crate::shared::filled;

/// Rows of one task; the weight's gradient is summed per block, in block order.
const BLOCK: usize = 32;

pub fn forward<E: Element>(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (rows, d) = x.dims2()?;
    let out = with_slices([x], |[x]: [&[E]; 1]| {
        with_slices([weight], |[weight]: [&[f32]; 1]| {
            let fill = |out: &mut [MaybeUninit<E>]| {
                out.par_chunks_mut(BLOCK * d)
                    .zip(x.par_chunks(BLOCK * d))
                    .for_each(|(out, x)| block_forward(out, x, weight, eps));
            };
            // SAFETY: blocks of whole rows, of which `block_forward` writes every element.
            Ok(unsafe { filled(rows * d, fill) })
        })
    })?;
    tensor(out, (rows, d))
}

vectorized! {
    fn block_forward<E: Element>(out: &mut [MaybeUninit<E>], x: &[E], weight: &[f32], eps: f32) {
        let d = weight.len();
        for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let inverse = inverse_rms(x, eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                out.write(E::narrow(x.widen() * inverse * weight));
            }
        }
    }
}

#[inline(always)]
fn inverse_rms<E: Element>(x: &[E], eps: f32) -> f32 {
    let squares = sum_by(x, x, |x, y| x.widen() * y.widen());
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

pub fn backward<E: Element>(
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    grad: &Tensor,
    add: Option<&Tensor>,
    weight_gradient: bool,
) -> Result<RmsNormGradients> {
    let (rows, d) = x.dims2()?;
    let mut partial: Vec<Vec<f32>> = Vec::new();
    // Without an addend `x` stands for it, and nothing of it is read.
    let dx = with_slices(
        [x, grad, add.unwrap_or(x)],
        |[x, grad, addend]: [&[E]; 3]| {
            with_slices([weight], |[weight]: [&[f32]; 1]| {
                let addend = if add.is_some() { addend } else { &[] };
                let fill = |dx: &mut [MaybeUninit<E>]| {
                    let blocks = dx
                        .par_chunks_mut(BLOCK * d)
                        .zip(x.par_chunks(BLOCK * d))
                        .zip(grad.par_chunks(BLOCK * d))
                        .enumerate();
                    partial = blocks
                        .map(|(index, ((dx, x), grad))| {
                            let add = addend.get(index * BLOCK * d..).unwrap_or_default();
                            block_gradient(dx, x, grad, add, weight, eps, weight_gradient)
                        })
                        .collect();
                };
                // SAFETY: blocks of whole rows, of which `block_gradient` writes every element.
                Ok(unsafe { filled(rows * d, fill) })
            })
        },
    )?;
    let weight = if weight_gradient {
        let mut dw = vec![0.0; d];
        for block in &partial {
            dw.iter_mut()
                .zip(block)
                .for_each(|(sum, value)| *sum += value);
        }
        Some(tensor(dw, d)?)
    } else {
        None
    };
    Ok(RmsNormGradients {
        x: tensor(dx, (rows, d))?,
        weight,
    })
}

vectorized! {
/// Returns Σ grad·x̂ over the block's rows; nothing where it is not asked for.
fn block_gradient<E: Element>(
    dx: &mut [MaybeUninit<E>],
    x: &[E],
    grad: &[E],
    add: &[E],
    weight: &[f32],
    eps: f32,
    weight_gradient: bool,
) -> Vec<f32> {
    let d = weight.len();
    let mut dw = vec![0.0; if weight_gradient { d } else { 0 }];
    let mut scaled = vec![0f32; d];
    let rows = dx
        .chunks_exact_mut(d)
        .zip(x.chunks_exact(d))
        .zip(grad.chunks_exact(d));
    for (row, ((dx, x), grad)) in rows.enumerate() {
        let inverse = inverse_rms(x, eps);
        for (out, (grad, weight)) in scaled.iter_mut().zip(grad.iter().zip(weight)) {
            *out = grad.widen() * weight;
        }
        let mut along = 0.0;
        let (scaled_chunks, x_chunks) = (scaled.chunks(64), x.chunks(64));
        for (scaled, x) in scaled_chunks.zip(x_chunks) {
            let mut wide = [0f32; 64];
            wide.iter_mut().zip(x).for_each(|(w, x)| *w = x.widen());
            along += sum_by(scaled, &wide[..x.len()], |g, x| g * x);
        }
        let along = along * inverse * inverse / d as f32;
        match add.get(row * d..(row + 1) * d) {
            Some(add) => {
                for (((out, x), scaled), add) in dx.iter_mut().zip(x).zip(&scaled).zip(add) {
                    let value = inverse * (scaled - x.widen() * along) + add.widen();
                    out.write(E::narrow(value));
                }
            }
            None => {
                for ((out, x), scaled) in dx.iter_mut().zip(x).zip(&scaled) {
                    out.write(E::narrow(inverse * (scaled - x.widen() * along)));
                }
            }
        }
        for ((dw, grad), x) in dw.iter_mut().zip(grad).zip(x) {
            *dw += grad.widen() * x.widen() * inverse;
        }
    }
    dw
}
}
