//! softmax(scale · rope(q) · rope(k)ᵀ) · v, a tile of queries at a time.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Part, QUERIES, arithmetic, key_tiles, view};
use crate::attention::{Attended, Attention, Heads};
use crate::element::{Element, tensor, with_slices};
use crate::gemm::{Arithmetic, Panels, Right, Rows};
use crate::math::{exp_down, max, sum_by, vectorized};
use crate::shared::{Shared, filled};

pub fn forward<E: Element>(
    op: &Attention<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Attended> {
    let heads = op.heads;
    let n = q.dim(0)?;
    let columns = heads.n_heads * heads.head_dim;
    let mut log_sums = vec![0.0; n * heads.n_heads];
    let shared_sums = Shared::new(&mut log_sums);
    let out = with_slices([q, k, v], |[q, k, v]: [&[E]; 3]| {
        let parts = op.parts();
        let keys: Vec<Keys> = parts
            .par_iter()
            .map(|&part| Keys::new(op, part, k, v))
            .collect();
        let tiles: Vec<(&Keys, usize, Range<usize>)> = keys
            .iter()
            .flat_map(|keys| op.group(keys.part.kv_head).map(move |head| (keys, head)))
            .flat_map(|(keys, head)| keys.part.tiles().map(move |queries| (keys, head, queries)))
            .collect();
        let fill = |out: &mut [MaybeUninit<E>]| {
            let out = Shared::new(out);
            let tiles = tiles.into_par_iter().with_max_len(1);
            tiles.for_each(|(keys, head, queries)| {
                keys.forward(op, q, head, queries, &out, &shared_sums);
            });
        };
        // SAFETY: the tiles of all documents and heads write every token's columns.
        Ok(unsafe { filled(n * columns, fill) })
    })?;
    Ok(Attended {
        out: tensor(out, (n, columns))?,
        log_sums: tensor(log_sums, (n, heads.n_heads))?,
    })
}

/// What all query heads of a part read in the forward pass.
struct Keys {
    part: Part,
    /// Rotated, transposed: [C, T].
    keys: Panels,
    /// [T, C]
    values: Panels,
    arithmetic: Arithmetic,
}

impl Keys {
    fn new<E: Element>(op: &Attention<'_>, part: Part, k: &[E], v: &[E]) -> Self {
        let (c, stride) = (op.heads.head_dim, op.stride());
        let head = (op.heads.n_kv_heads, part.kv_head);
        let arithmetic = arithmetic::<E>();
        let keys = op.rows(k, part.tokens(), head, Some(1.0));
        let values = op.rows(v, part.tokens(), head, None);
        Self {
            part,
            keys: Panels::of(view(&keys, stride).t(), c, part.length, arithmetic),
            values: Panels::of(view(&values, stride), part.length, stride, arithmetic),
            arithmetic,
        }
    }

    fn forward<E: Element>(
        &self,
        op: &Attention<'_>,
        q: &[E],
        head: usize,
        queries: Range<usize>,
        out: &Shared<'_, MaybeUninit<E>>,
        log_sums: &Shared<'_, f32>,
    ) {
        let Heads {
            n_heads,
            head_dim: c,
            ..
        } = op.heads;
        let (stride, score_stride) = (op.stride(), self.part.score_stride());
        let (n, first) = (queries.len(), self.part.start + queries.start);
        let q = op.queries(q, first..first + n, head);
        let q = Rows::of(view(&q, stride), 0..n, c, self.arithmetic);
        let mut scores = vec![0.0; n * score_stride];
        let mut sums = vec![0.0; n * stride];
        let mut state = [Softmax {
            top: f32::NEG_INFINITY,
            sum: 0.0,
        }; QUERIES];
        for keys in key_tiles(&queries) {
            let visible = queries.start as isize - keys.start as isize;
            let panels = Right::Panels(&self.keys);
            let target = (scores.as_mut_slice(), score_stride);
            q.times(n, panels, keys.clone(), 0..c, target, false);
            let (scores, sums) = (scores.as_mut_slice(), sums.as_mut_slice());
            soften(
                scores,
                score_stride,
                keys.len(),
                visible,
                &mut state[..n],
                sums,
                stride,
            );
            let weights = Rows::of(
                view(scores, score_stride),
                0..n,
                keys.len(),
                self.arithmetic,
            );
            let panels = Right::Panels(&self.values);
            weights.times(
                n,
                panels,
                0..c,
                keys.clone(),
                (sums, stride),
                keys.start > 0,
            );
        }
        for (r, (sums, state)) in sums.chunks_exact(stride).zip(&state).enumerate() {
            let inverse = 1.0 / state.sum;
            // SAFETY: this task alone has these tokens of this head.
            let (out, log_sum) = unsafe {
                let row = (first + r) * n_heads + head;
                (out.slice(row * c, c), log_sums.slice(row, 1))
            };
            log_sum[0] = state.top + state.sum.ln();
            for (out, sum) in out.iter_mut().zip(sums) {
                out.write(E::narrow(sum * inverse));
            }
        }
    }
}

/// A row's largest score so far, and Σ e^(score − top).
#[derive(Clone, Copy)]
struct Softmax {
    top: f32,
    sum: f32,
}

vectorized! {
    /// Scores to e^(score − top), row r seeing `visible` + r + 1 of the tile's `keys`; `sums` and the state of rows
    /// whose largest score grew are scaled down.
    fn soften(
        scores: &mut [f32],
        stride: usize,
        keys: usize,
        visible: isize,
        state: &mut [Softmax],
        sums: &mut [f32],
        sum_stride: usize,
    ) {
        let rows = scores.chunks_exact_mut(stride).zip(sums.chunks_exact_mut(sum_stride));
        for (r, ((scores, sums), state)) in rows.zip(state).enumerate() {
            let seen = (visible + r as isize + 1).clamp(0, keys as isize) as usize;
            let (seen, hidden) = scores[..keys].split_at_mut(seen);
            hidden.fill(0.0);
            if seen.is_empty() {
                continue;
            }
            let top = state.top.max(max(seen));
            for x in seen.iter_mut() {
                *x = exp_down(*x - top);
            }
            let sum = sum_by(seen, seen, |x, _| x);
            if top == state.top {
                state.sum += sum;
            } else {
                let shrunk = if state.sum == 0.0 { 0.0 } else { exp_down(state.top - top) };
                *state = Softmax { top, sum: state.sum * shrunk + sum };
                sums.iter_mut().for_each(|x| *x *= shrunk);
            }
        }
    }
}
