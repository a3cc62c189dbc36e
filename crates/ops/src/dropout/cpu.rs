//! Dropout on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Dropout, GAMMA, mix};
use crate::element::{Element, tensor, with_slices};
use crate::math::vectorized;
use crate::shared::filled;

/// Rows of one task.
const BLOCK: usize = 32;

pub fn apply<E: Element>(dropout: &Dropout<'_>, x: &Tensor) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    let out = with_slices([x], |[x]: [&[E]; 1]| {
        let fill = |out: &mut [MaybeUninit<E>]| {
            let size = (BLOCK * d).max(1);
            let blocks = out.par_chunks_mut(size).zip(x.par_chunks(size));
            let blocks = blocks.zip(dropout.rows.par_chunks(BLOCK));
            blocks.for_each(|((out, x), keys)| rows(out, x, keys, dropout));
        };
        // SAFETY: blocks of whole rows, of which `rows` writes every element.
        Ok(unsafe { filled(n * d, fill) })
    })?;
    tensor(out, (n, d))
}

vectorized! {
    fn rows<E: Element>(out: &mut [MaybeUninit<E>], x: &[E], keys: &[u64], dropout: &Dropout<'_>) {
        let d = x.len() / keys.len().max(1);
        let scale = 1.0 / (1.0 - dropout.rate);
        let dropped = dropout.threshold();
        for ((out, x), row) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(keys) {
            let start = row ^ dropout.module;
            for (column, (out, x)) in out.iter_mut().zip(x).enumerate() {
                let number = mix(start.wrapping_add((column as u64).wrapping_mul(GAMMA))) >> 32;
                let factor = if number < dropped { 0.0 } else { scale };
                out.write(E::narrow(x.widen() * factor));
            }
        }
    }
}
