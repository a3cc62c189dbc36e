//! SwiGLU on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::element::{Element, tensor, with_slices};
use crate::math::{exp, vectorized};
use crate::shared::{filled, filled_pair};

const BLOCK: usize = 1 << 14;

pub fn forward<E: Element>(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let out = with_slices([gate, up], |[gate, up]: [&[E]; 2]| {
        let fill = |out: &mut [MaybeUninit<E>]| {
            let blocks = out
                .par_chunks_mut(BLOCK)
                .zip(gate.par_chunks(BLOCK))
                .zip(up.par_chunks(BLOCK));
            blocks.for_each(|((out, gate), up)| gated(out, gate, up));
        };
        // SAFETY: `check` found gate and up of one length, and `gated` writes every element.
        Ok(unsafe { filled(gate.len(), fill) })
    })?;
    tensor(out, gate.shape())
}

pub fn backward<E: Element>(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = gate.shape();
    let (d_gate, d_up) = with_slices([gate, up, grad], |[gate, up, grad]: [&[E]; 3]| {
        let fill = |d_gate: &mut [MaybeUninit<E>], d_up: &mut [MaybeUninit<E>]| {
            let inputs = gate
                .par_chunks(BLOCK)
                .zip(up.par_chunks(BLOCK))
                .zip(grad.par_chunks(BLOCK));
            let outputs = d_gate.par_chunks_mut(BLOCK).zip(d_up.par_chunks_mut(BLOCK));
            outputs
                .zip(inputs)
                .for_each(|((d_gate, d_up), ((gate, up), grad))| {
                    gradient(d_gate, d_up, gate, up, grad);
                });
        };
        // SAFETY: `check` found all of one length, and `gradient` writes every element of both.
        Ok(unsafe { filled_pair(gate.len(), fill) })
    })?;
    Ok((tensor(d_gate, shape)?, tensor(d_up, shape)?))
}

vectorized! {
    fn gated<E: Element>(out: &mut [MaybeUninit<E>], gate: &[E], up: &[E]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let gate = gate.widen();
            out.write(E::narrow(gate / (1.0 + exp(-gate)) * up.widen()));
        }
    }
}

vectorized! {
    /// d silu(x)/dx = σ·(1 + x·(1 − σ)), σ = 1 / (1 + e^−x).
    fn gradient<E: Element>(
        d_gate: &mut [MaybeUninit<E>],
        d_up: &mut [MaybeUninit<E>],
        gate: &[E],
        up: &[E],
        grad: &[E],
    ) {
        let inputs = gate.iter().zip(up).zip(grad);
        for ((d_gate, d_up), ((gate, up), grad)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
            let (gate, up, grad) = (gate.widen(), up.widen(), grad.widen());
            let sigma = 1.0 / (1.0 + exp(-gate));
            d_up.write(E::narrow(grad * gate * sigma));
            d_gate.write(E::narrow(grad * up * sigma * (1.0 + gate * (1.0 - sigma))));
        }
    }
}
