//! The gradients, from the logarithms of the softmax's sums.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{LONG, Part, QUERIES, arithmetic, key_tiles, view};
use crate::attention::{Attended, Attention, AttentionGradients, Heads};
use crate::element::{Element, tensor, with_slices};
use crate::gemm::{Arithmetic, PANEL, Panels, Right, Rows};
use crate::math::{exp_down, vectorized};
use crate::shared::{Shared, filled, filled_pair};

pub fn backward<E: Element>(
    op: &Attention<'_>,
    [q, k, v]: [&Tensor; 3],
    attended: &Attended,
    grad: &Tensor,
) -> Result<AttentionGradients> {
    let Heads {
        n_heads,
        n_kv_heads,
        head_dim: c,
        ..
    } = op.heads;
    let n = q.dim(0)?;
    let tensors = [q, k, v, &attended.out, grad];
    let gradients = |log_sums: &[f32]| {
        with_slices(tensors, |[q, k, v, out, grad]: [&[E]; 5]| {
            let inputs = Inputs {
                q,
                k,
                v,
                out,
                grad,
                log_sums,
            };
            let mut sums = Vec::new();
            let fill = |dq: &mut [MaybeUninit<E>]| {
                sums = op.backward_parts(&inputs, &Shared::new(dq));
            };
            // SAFETY: the heads of all documents write every token's columns.
            let dq = unsafe { filled(n * n_heads * c, fill) };
            let fill = |dk: &mut [MaybeUninit<E>], dv: &mut [MaybeUninit<E>]| {
                let (dk, dv) = (Shared::new(dk), Shared::new(dv));
                sums.par_iter_mut()
                    .for_each(|(part, sums)| op.finish(*part, sums, &dk, &dv));
            };
            // SAFETY: as above, of the key-value heads.
            let d_keys = unsafe { filled_pair(n * n_kv_heads * c, fill) };
            Ok((dq, d_keys))
        })
    };
    let (dq, (dk, dv)) = with_slices([&attended.log_sums], |[sums]: [&[f32]; 1]| gradients(sums))?;
    Ok(AttentionGradients {
        q: tensor(dq, (n, n_heads * c))?,
        k: tensor(dk, (n, n_kv_heads * c))?,
        v: tensor(dv, (n, n_kv_heads * c))?,
    })
}

struct Inputs<'a, E> {
    q: &'a [E],
    k: &'a [E],
    v: &'a [E],
    out: &'a [E],
    grad: &'a [E],
    log_sums: &'a [f32],
}

/// Gradients of the rotated keys and of the values, transposed: [C, T] each, rows [`KeySums::stride`] apart.
struct KeySums {
    keys: Vec<f32>,
    values: Vec<f32>,
    stride: usize,
}

impl Attention<'_> {
    /// Writes the gradient of the queries; those of the keys and values come back in sums over some query heads each.
    fn backward_parts<E: Element>(
        &self,
        inputs: &Inputs<'_, E>,
        dq: &Shared<'_, MaybeUninit<E>>,
    ) -> Vec<(Part, Vec<KeySums>)> {
        let parts = self.parts();
        let panels: Vec<BackwardKeys> = parts
            .par_iter()
            .map(|&part| BackwardKeys::new(self, part, inputs))
            .collect();
        let tasks: Vec<(usize, Range<usize>)> = parts
            .iter()
            .enumerate()
            .flat_map(|(index, part)| {
                let heads = self.group(part.kv_head);
                let size = if part.length < LONG { heads.len() } else { 1 };
                let starts = heads.step_by(size.max(1));
                starts.map(move |head| (index, head..head + size))
            })
            .collect();
        let found: Vec<KeySums> = tasks
            .par_iter()
            .with_max_len(1)
            .map(|(index, heads)| panels[*index].backward(self, inputs, heads.clone(), dq))
            .collect();
        let mut sums: Vec<(Part, Vec<KeySums>)> =
            parts.into_iter().map(|part| (part, Vec::new())).collect();
        for ((index, _), found) in tasks.iter().zip(found) {
            sums[*index].1.push(found);
        }
        sums
    }

    /// Adds up a part's sums, in the order of the heads, and writes the gradients of its keys and values.
    fn finish<E: Element>(
        &self,
        part: Part,
        sums: &mut [KeySums],
        dk: &Shared<'_, MaybeUninit<E>>,
        dv: &Shared<'_, MaybeUninit<E>>,
    ) {
        let Some((total, others)) = sums.split_first_mut() else {
            return;
        };
        for other in others {
            add(&mut total.keys, &other.keys);
            add(&mut total.values, &other.values);
        }
        let Heads {
            n_kv_heads,
            head_dim: c,
            ..
        } = self.heads;
        let mut row = vec![0.0; c];
        for (t, token) in part.tokens().enumerate() {
            for (sums, out, is_key) in [(&total.keys, dk, true), (&total.values, dv, false)] {
                let columns = sums[t..].iter().step_by(total.stride);
                row.iter_mut().zip(columns).for_each(|(x, sum)| *x = *sum);
                if is_key {
                    self.rope.rotate_back(token, &mut row);
                }
                // SAFETY: this task alone has this part's tokens of its key-value head.
                let out = unsafe { out.slice((token * n_kv_heads + part.kv_head) * c, c) };
                for (out, x) in out.iter_mut().zip(&row) {
                    out.write(E::narrow(*x));
                }
            }
        }
    }
}

/// What all query heads of a part read in the backward pass.
struct BackwardKeys {
    part: Part,
    /// Rotated: [C, T] and [T, C].
    keys: [Panels; 2],
    /// [C, T]
    values: Panels,
    arithmetic: Arithmetic,
}

impl BackwardKeys {
    fn new<E: Element>(op: &Attention<'_>, part: Part, inputs: &Inputs<'_, E>) -> Self {
        let (c, stride) = (op.heads.head_dim, op.stride());
        let head = (op.heads.n_kv_heads, part.kv_head);
        let arithmetic = arithmetic::<E>();
        let keys = op.rows(inputs.k, part.tokens(), head, Some(1.0));
        let values = op.rows(inputs.v, part.tokens(), head, None);
        let across = |rows: &[f32]| Panels::of(view(rows, stride).t(), c, part.length, arithmetic);
        Self {
            part,
            keys: [
                across(&keys),
                Panels::of(view(&keys, stride), part.length, stride, arithmetic),
            ],
            values: across(&values),
            arithmetic,
        }
    }

    /// With P the probabilities and dP = grad·vᵀ: dS = P ∘ (dP − rowsum(grad ∘ out)),
    /// dq = scale·dS·k, dk = scale·dSᵀ·q, dv = Pᵀ·grad (Dao et al. 2022, B.2).
    fn backward<E: Element>(
        &self,
        op: &Attention<'_>,
        inputs: &Inputs<'_, E>,
        heads: Range<usize>,
        dq: &Shared<'_, MaybeUninit<E>>,
    ) -> KeySums {
        let Heads {
            n_heads,
            head_dim: c,
            scale,
            ..
        } = op.heads;
        let (stride, score_stride) = (op.stride(), self.part.score_stride());
        let sum_stride = self.part.length.next_multiple_of(PANEL) + PANEL;
        let mut sums = KeySums {
            keys: vec![0.0; c * sum_stride],
            values: vec![0.0; c * sum_stride],
            stride: sum_stride,
        };
        let mut scores = vec![0.0; QUERIES * score_stride];
        let mut d_scores = scores.clone();
        let mut d_queries = vec![0.0; QUERIES * stride];
        let mut rows = [Row::default(); QUERIES];
        let tiles = heads.flat_map(|head| self.part.tiles().map(move |queries| (head, queries)));
        for (head, queries) in tiles {
            let (n, first) = (queries.len(), self.part.start + queries.start);
            let tokens = first..first + n;
            let q = op.queries(inputs.q, tokens.clone(), head);
            let grad = op.rows(inputs.grad, tokens.clone(), (n_heads, head), None);
            for (row, (grad, token)) in rows.iter_mut().zip(grad.chunks_exact(stride).zip(tokens)) {
                let at = token * n_heads + head;
                let out = &inputs.out[at * c..(at + 1) * c];
                let along = grad.iter().zip(out).map(|(g, o)| g * o.widen()).sum();
                *row = Row {
                    log_sum: inputs.log_sums[at],
                    along,
                };
            }
            let across = |rows| Rows::of(view(rows, stride), 0..n, c, self.arithmetic);
            let down = |rows| Rows::of(view(rows, stride).t(), 0..c, n, self.arithmetic);
            let (q_rows, grad_rows, q_columns, grad_columns) =
                (across(&q), across(&grad), down(&q), down(&grad));
            for keys in key_tiles(&queries) {
                let visible = queries.start as isize - keys.start as isize;
                let all = 0..keys.len();
                q_rows.times(
                    n,
                    Right::Panels(&self.keys[0]),
                    keys.clone(),
                    0..c,
                    (&mut scores, score_stride),
                    false,
                );
                grad_rows.times(
                    n,
                    Right::Panels(&self.values),
                    keys.clone(),
                    0..c,
                    (&mut d_scores, score_stride),
                    false,
                );
                score_gradients(
                    &mut scores,
                    &mut d_scores,
                    score_stride,
                    keys.len(),
                    visible,
                    &rows[..n],
                );
                let d_rows = view(&d_scores, score_stride);
                Rows::of(d_rows, 0..n, keys.len(), self.arithmetic).times(
                    n,
                    Right::Panels(&self.keys[1]),
                    0..c,
                    keys.clone(),
                    (&mut d_queries, stride),
                    keys.start > 0,
                );
                for (rows, scores, sums) in [
                    (&q_columns, &d_scores, &mut sums.keys),
                    (&grad_columns, &scores, &mut sums.values),
                ] {
                    let out = (&mut sums[keys.start..], sum_stride);
                    match self.arithmetic {
                        Arithmetic::F32 => {
                            let right = Right::Rows {
                                values: scores,
                                stride: score_stride,
                            };
                            rows.times(c, right, all.clone(), 0..n, out, true);
                        }
                        Arithmetic::Bf16 => {
                            let right = view(scores, score_stride);
                            let panels = Panels::of(right, n, keys.len(), self.arithmetic);
                            rows.times(c, Right::Panels(&panels), all.clone(), 0..n, out, true);
                        }
                    }
                }
            }
            for (r, row) in d_queries.chunks_exact_mut(stride).take(n).enumerate() {
                let row = &mut row[..c];
                row.iter_mut().for_each(|x| *x *= scale);
                op.rope.rotate_back(first + r, row);
                // SAFETY: this task alone has these tokens of this head.
                let out = unsafe { dq.slice(((first + r) * n_heads + head) * c, c) };
                for (out, x) in out.iter_mut().zip(row) {
                    out.write(E::narrow(*x));
                }
            }
        }
        sums
    }
}

/// What a query's gradient needs of its forward pass: log Σ e^score, and Σ grad ∘ out.
#[derive(Clone, Copy, Default)]
struct Row {
    log_sum: f32,
    along: f32,
}

vectorized! {
    /// Scores to P, and dP to dS = P ∘ (dP − rowsum(grad ∘ out)); row r sees `visible` + r + 1 of the tile's `keys`.
    fn score_gradients(
        scores: &mut [f32],
        d_scores: &mut [f32],
        stride: usize,
        keys: usize,
        visible: isize,
        rows: &[Row],
    ) {
        let tile = scores.chunks_exact_mut(stride).zip(d_scores.chunks_exact_mut(stride));
        for (r, ((scores, d_scores), row)) in tile.zip(rows).enumerate() {
            let seen = (visible + r as isize + 1).clamp(0, keys as isize) as usize;
            let (scores, hidden) = scores.split_at_mut(seen);
            let (d_scores, d_hidden) = d_scores.split_at_mut(seen);
            // Panels are read whole.
            hidden.fill(0.0);
            d_hidden.fill(0.0);
            for (score, d) in scores.iter_mut().zip(d_scores) {
                let probability = exp_down(*score - row.log_sum);
                *score = probability;
                *d = probability * (*d - row.along);
            }
        }
    }
}

vectorized! {
    fn add(sums: &mut [f32], others: &[f32]) {
        sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
    }
}
