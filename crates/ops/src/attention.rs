//! Rotary embedding and causal, block-diagonal attention over packed documents.
//!
//! Queries and keys are taken in tiles that stay in the cache, so memory is linear in a document's length. A row's
//! softmax is carried from tile to tile (Milakov and Gimelshein 2018, arXiv:1805.02867); its logarithm is kept, from
//! which the backward pass computes the probabilities again (Dao et al. 2022, arXiv:2205.14135).

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::element::{Element, Values, by_element, tensor, with_slice};
use crate::gemm::{Arithmetic, Matrix, PANEL, Panels, Right, Rows};
use crate::math::{exp_down, max, sum_by, vectorized};
use crate::rope::RopeTable;
use crate::segments::Segments;
use crate::shared::{Shared, filled};

/// Queries of a tile.
const QUERIES: usize = 48;
/// Keys of a tile: a multiple of [`PANEL`].
const KEYS: usize = 512;
/// From this length on the heads that share keys are separate tasks in the backward pass: a document alone then gives
/// every thread some, and sums of its keys' gradients to add up.
const LONG: usize = 1024;

/// The sizes of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// H, query heads.
    pub n_heads: usize,
    /// G, key-value heads; each serves H/G query heads.
    pub n_kv_heads: usize,
    /// C, the dimension of a head.
    pub head_dim: usize,
    /// What scores are multiplied with, 1/√C.
    pub scale: f32,
}

/// Rotary attention over packed documents.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub heads: Heads,
    pub rope: &'a RopeTable,
    pub segments: &'a Segments,
}

/// What [`Attention::forward`] gives.
pub struct Attended {
    /// [N, H·C], of the inputs' dtype.
    pub out: Tensor,
    /// log Σ e^score of every query, [N, H].
    log_sums: Vec<f32>,
}

/// Gradients of [`Attention::forward`].
pub struct AttentionGradients {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

impl Attention<'_> {
    /// softmax(scale · rope(q) · rope(k)ᵀ) · v within each document, each token seeing itself and
    /// what stands before it.
    ///
    /// # Shapes
    /// q [N, H·C], k and v [N, G·C], all of one dtype. bf16 operands are multiplied as such where the CPU does it.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Attended> {
        self.check(q, k, v)?;
        by_element!(q.dtype(), forward(self, q, k, v))
    }

    /// `attended` is what [`Self::forward`] gave for the same inputs, `grad` [N, H·C] the gradient of it.
    pub fn backward(
        &self,
        [q, k, v]: [&Tensor; 3],
        attended: &Attended,
        grad: &Tensor,
    ) -> Result<AttentionGradients> {
        self.check(q, k, v)?;
        if attended.out.dims() != q.dims() || grad.dims() != q.dims() {
            bail!(
                "attention: a gradient of {:?} for {:?}",
                grad.dims(),
                q.dims()
            );
        }
        by_element!(q.dtype(), backward(self, [q, k, v], attended, grad))
    }

    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.heads;
        let (n, q_columns) = q.dims2()?;
        let expected = (n, n_kv_heads * head_dim);
        if q_columns != n_heads * head_dim
            || k.dims2()? != expected
            || v.dims2()? != expected
            || n_kv_heads == 0
            || n_heads % n_kv_heads != 0
            || self.segments.n_tokens() != n
            || self.rope.n_tokens() != n
        {
            bail!(
                "attention: q {:?}, k {:?}, v {:?} for {:?}, {} tokens in segments, {} in the rope table",
                q.shape(),
                k.shape(),
                v.shape(),
                self.heads,
                self.segments.n_tokens(),
                self.rope.n_tokens()
            );
        }
        Ok(())
    }

    /// Every (document, key-value head) pair that has work.
    fn parts(&self) -> Vec<Part> {
        let spans = self.segments.spans().filter(|&(_, length)| length > 0);
        spans
            .flat_map(|(start, length)| {
                (0..self.heads.n_kv_heads).map(move |kv_head| Part {
                    start,
                    length,
                    kv_head,
                })
            })
            .collect()
    }

    /// The query heads of a key-value head.
    fn group(&self, kv_head: usize) -> Range<usize> {
        let size = self.heads.n_heads / self.heads.n_kv_heads;
        kv_head * size..(kv_head + 1) * size
    }

    /// One head's columns of some tokens as f32, [tokens, [`Attention::stride`]]; rotated and scaled for queries and
    /// keys.
    fn rows<E: Element>(
        &self,
        values: &[E],
        tokens: Range<usize>,
        (n_heads, head): (usize, usize),
        turn: Option<f32>,
    ) -> Vec<f32> {
        let (c, stride) = (self.heads.head_dim, self.stride());
        let mut rows = vec![0.0; tokens.len() * stride];
        for (token, row) in tokens.zip(rows.chunks_exact_mut(stride)) {
            let row = &mut row[..c];
            let at = token * n_heads * c + head * c;
            row.iter_mut()
                .zip(&values[at..at + c])
                .for_each(|(out, value)| *out = value.widen());
            if let Some(scale) = turn {
                self.rope.rotate(token, row);
                if scale != 1.0 {
                    row.iter_mut().for_each(|x| *x *= scale);
                }
            }
        }
        rows
    }

    fn queries<E: Element>(&self, q: &[E], tokens: Range<usize>, head: usize) -> Vec<f32> {
        let heads = self.heads;
        self.rows(q, tokens, (heads.n_heads, head), Some(heads.scale))
    }

    /// C, rounded up to whole panels.
    fn stride(&self) -> usize {
        self.heads.head_dim.next_multiple_of(PANEL)
    }
}

/// One document's tokens in one key-value head.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    length: usize,
    kv_head: usize,
}

impl Part {
    fn tokens(&self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// The queries of each tile, the last ones, which see most, first.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let length = self.length;
        let starts = (0..length).step_by(QUERIES).rev();
        starts.map(move |first| first..length.min(first + QUERIES))
    }

    /// Between rows of a tile's scores, which do not then all fall into a few cache sets.
    fn score_stride(&self) -> usize {
        KEYS.min(self.length.next_multiple_of(PANEL)) + 16
    }
}

fn view(values: &[f32], stride: usize) -> Matrix<'_> {
    Matrix::rows(Values::F32(values), stride)
}

fn arithmetic<E: Element>() -> Arithmetic {
    match E::DTYPE {
        DType::BF16 => Arithmetic::Bf16.of_this_cpu(),
        _ => Arithmetic::F32,
    }
}

/// The tiles of keys that a tile of queries sees.
fn key_tiles(queries: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = queries.end;
    (0..end)
        .step_by(KEYS)
        .map(move |first| first..end.min(first + KEYS))
}

fn forward<E: Element>(op: &Attention<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Attended> {
    let heads = op.heads;
    let n = q.dim(0)?;
    let columns = heads.n_heads * heads.head_dim;
    let mut log_sums = vec![0.0; n * heads.n_heads];
    let shared_sums = Shared::new(&mut log_sums);
    let out = with_slice::<E, _>(q, |q| {
        with_slice::<E, _>(k, |k| {
            with_slice::<E, _>(v, |v| {
                let parts = op.parts();
                let keys: Vec<Keys> = parts
                    .par_iter()
                    .map(|&part| Keys::new(op, part, k, v))
                    .collect();
                let tiles: Vec<(&Keys, usize, Range<usize>)> = keys
                    .iter()
                    .flat_map(|keys| op.group(keys.part.kv_head).map(move |head| (keys, head)))
                    .flat_map(|(keys, head)| {
                        keys.part.tiles().map(move |queries| (keys, head, queries))
                    })
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
            })
        })
    })?;
    Ok(Attended {
        out: tensor(out, (n, columns))?,
        log_sums,
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

fn backward<E: Element>(
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
    let (mut dk, mut dv) = (Vec::new(), Vec::new());
    let dq = with_slice::<E, _>(q, |q| {
        with_slice::<E, _>(k, |k| {
            with_slice::<E, _>(v, |v| {
                with_slice::<E, _>(&attended.out, |out| {
                    with_slice::<E, _>(grad, |grad| {
                        let inputs = Inputs {
                            q,
                            k,
                            v,
                            out,
                            grad,
                            log_sums: &attended.log_sums,
                        };
                        let mut sums = Vec::new();
                        let fill = |dq: &mut [MaybeUninit<E>]| {
                            sums = op.backward_parts(&inputs, &Shared::new(dq));
                        };
                        // SAFETY: the heads of all documents write every token's columns.
                        let dq = unsafe { filled(n * n_heads * c, fill) };
                        let fill = |dk: &mut [MaybeUninit<E>]| {
                            let dk = Shared::new(dk);
                            let fill = |dv: &mut [MaybeUninit<E>]| {
                                let dv = Shared::new(dv);
                                sums.par_iter_mut()
                                    .for_each(|(part, sums)| op.finish(*part, sums, &dk, &dv));
                            };
                            // SAFETY: as above, of the key-value heads.
                            dv = unsafe { filled(n * n_kv_heads * c, fill) };
                        };
                        // SAFETY: as above.
                        dk = unsafe { filled(n * n_kv_heads * c, fill) };
                        Ok(dq)
                    })
                })
            })
        })
    })?;
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
