//! Rotary embedding and causal, block-diagonal attention over packed documents.
//!
//! Queries are taken in blocks, so that memory is linear in a document's length; nothing but
//! the inputs is kept for the backward pass, which computes the probabilities again.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::gemm::{self, Rows, Threads};
use crate::math::{exp, max, sum_by, vectorized};
use crate::rope::RopeTable;
use crate::segments::Segments;
use crate::slices;
use std::sync::Arc;

/// Queries computed together.
const BLOCK: usize = 64;

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

/// softmax(scale · rope(q) · rope(k)ᵀ) · v within each document, each token seeing itself and
/// what stands before it.
///
/// # Shapes
/// q [N, H·C], k and v [N, G·C] → [N, H·C]; `rope` has N tokens.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: Heads,
    rope: &Arc<RopeTable>,
    segments: &Arc<Segments>,
) -> Result<Tensor> {
    let op = Attention {
        heads,
        rope: rope.clone(),
        segments: segments.clone(),
    };
    q.apply_op3(k, v, op)
}

struct Attention {
    heads: Heads,
    rope: Arc<RopeTable>,
    segments: Arc<Segments>,
}

/// One document's share of a buffer [N, columns], which tasks of other documents and of
/// other key-value heads do not touch.
#[derive(Clone, Copy)]
struct Shared {
    data: *mut f32,
    len: usize,
}

// SAFETY: see `Shared::tail`; every task writes the rows of its document and the columns of its head.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(buffer: &mut [f32]) -> Self {
        Self {
            data: buffer.as_mut_ptr(),
            len: buffer.len(),
        }
    }

    /// The buffer from `offset` on.
    ///
    /// # Safety
    /// The caller touches only elements that belong to its own document and heads.
    #[allow(clippy::mut_from_ref)]
    unsafe fn tail(&self, offset: usize) -> &mut [f32] {
        assert!(offset <= self.len);
        // SAFETY: within the buffer; the caller keeps to elements that are its own.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(offset), self.len - offset) }
    }
}

impl Attention {
    fn rotated(&self, values: &[f32], columns: usize) -> Vec<f32> {
        let mut turned = values.to_vec();
        turned
            .par_chunks_mut(columns)
            .enumerate()
            .for_each(|(token, row)| self.rope.rotate(token, row));
        turned
    }

    /// Every (document, key-value head) pair that has work.
    fn tasks(&self) -> Vec<(usize, usize, usize)> {
        let spans = self.segments.spans().filter(|&(_, length)| length > 0);
        spans
            .flat_map(|(start, length)| (0..self.heads.n_kv_heads).map(move |g| (start, length, g)))
            .collect()
    }

    fn query_heads(&self, kv_head: usize) -> std::ops::Range<usize> {
        let per_group = self.heads.n_heads / self.heads.n_kv_heads;
        kv_head * per_group..(kv_head + 1) * per_group
    }

    fn check(&self, q: &Layout, k: &Layout, v: &Layout) -> Result<usize> {
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.heads;
        let (n, q_columns) = slices::dims2(q)?;
        let expected = (n, n_kv_heads * head_dim);
        if q_columns != n_heads * head_dim
            || slices::dims2(k)? != expected
            || slices::dims2(v)? != expected
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
        Ok(n)
    }

    /// Probabilities of `rows` queries from document row `first`, [rows, first + rows].
    fn probabilities(&self, q: Rows<'_>, k: Rows<'_>, first: usize, rows: usize, out: &mut [f32]) {
        let columns = first + rows;
        let sizes = [rows, columns, self.heads.head_dim];
        gemm::product(
            Threads::One,
            sizes,
            out,
            columns,
            0.0,
            self.heads.scale,
            (q, false),
            (k, true),
        );
        vectorized(|| {
            for (row, scores) in out.chunks_exact_mut(columns).enumerate() {
                let (seen, hidden) = scores.split_at_mut(first + row + 1);
                softmax(seen);
                hidden.fill(0.0);
            }
        });
    }
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - top);
    }
    let inverse = 1.0 / sum_by(row, row, |x, _| x);
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "rope-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let n = self.check(q_layout, k_layout, v_layout)?;
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.heads;
        let (q_stride, kv_stride) = (n_heads * head_dim, n_kv_heads * head_dim);
        let q = self.rotated(slices::of(q, q_layout)?, q_stride);
        let k = self.rotated(slices::of(k, k_layout)?, kv_stride);
        let v = slices::of(v, v_layout)?;
        let mut out = vec![0.0; n * q_stride];
        let shared = Shared::new(&mut out);
        self.tasks()
            .into_par_iter()
            .for_each(|(start, length, kv_head)| {
                let kv = start * kv_stride + kv_head * head_dim;
                let (k, v) = (
                    Rows::new(&k[kv..], kv_stride),
                    Rows::new(&v[kv..], kv_stride),
                );
                let mut scores = vec![0.0; BLOCK.min(length) * length];
                for head in self.query_heads(kv_head) {
                    for first in (0..length).step_by(BLOCK) {
                        let rows = BLOCK.min(length - first);
                        let at = (start + first) * q_stride + head * head_dim;
                        let scores = &mut scores[..rows * (first + rows)];
                        self.probabilities(Rows::new(&q[at..], q_stride), k, first, rows, scores);
                        // SAFETY: the product writes `rows` rows of this document in this head's columns.
                        let out = unsafe { shared.tail(at) };
                        let sizes = [rows, head_dim, first + rows];
                        gemm::product(
                            Threads::One,
                            sizes,
                            out,
                            q_stride,
                            0.0,
                            1.0,
                            (Rows::new(scores, first + rows), false),
                            (v, false),
                        );
                    }
                }
            });
        Ok(slices::output(out, (n, q_stride)))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.heads;
        let (q_stride, kv_stride) = (n_heads * head_dim, n_kv_heads * head_dim);
        let n = q.dim(0)?;
        let grad = grad.contiguous()?;
        let q = slices::with(q, |q| Ok(self.rotated(q, q_stride)))?;
        let k = slices::with(k, |k| Ok(self.rotated(k, kv_stride)))?;
        let (mut dq, mut dk, mut dv) = (
            vec![0.0; n * q_stride],
            vec![0.0; n * kv_stride],
            vec![0.0; n * kv_stride],
        );
        slices::with(v, |v| {
            slices::with(out, |out| {
                slices::with(&grad, |grad| {
                    let inputs = Inputs {
                        q: &q,
                        k: &k,
                        v,
                        out,
                        grad,
                    };
                    let (dq, dk, dv) = (
                        Shared::new(&mut dq),
                        Shared::new(&mut dk),
                        Shared::new(&mut dv),
                    );
                    self.tasks()
                        .into_par_iter()
                        .for_each(|task| self.backward_task(task, &inputs, &dq, &dk, &dv));
                    Ok(())
                })
            })
        })?;
        dq.par_chunks_mut(q_stride)
            .enumerate()
            .for_each(|(token, row)| self.rope.rotate_back(token, row));
        dk.par_chunks_mut(kv_stride)
            .enumerate()
            .for_each(|(token, row)| self.rope.rotate_back(token, row));
        Ok((
            Some(slices::tensor(dq, (n, q_stride))?),
            Some(slices::tensor(dk, (n, kv_stride))?),
            Some(slices::tensor(dv, (n, kv_stride))?),
        ))
    }
}

struct Inputs<'a> {
    /// Rotated queries [N, H·C] and keys [N, G·C].
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    grad: &'a [f32],
}

impl Attention {
    /// With P the probabilities and dP = grad·vᵀ: dS = P ∘ (dP − rowsum(grad ∘ out)),
    /// dq = scale·dS·k, dk = scale·dSᵀ·q, dv = Pᵀ·grad (Dao et al. 2022, arXiv:2205.14135, B.2).
    fn backward_task(
        &self,
        (start, length, kv_head): (usize, usize, usize),
        inputs: &Inputs<'_>,
        dq: &Shared,
        dk: &Shared,
        dv: &Shared,
    ) {
        let Heads {
            n_heads,
            n_kv_heads,
            head_dim,
            scale,
        } = self.heads;
        let (q_stride, kv_stride) = (n_heads * head_dim, n_kv_heads * head_dim);
        let kv = start * kv_stride + kv_head * head_dim;
        let (k, v) = (
            Rows::new(&inputs.k[kv..], kv_stride),
            Rows::new(&inputs.v[kv..], kv_stride),
        );
        let size = BLOCK.min(length) * length;
        let (mut scores, mut d_scores) = (vec![0.0; size], vec![0.0; size]);
        for head in self.query_heads(kv_head) {
            for first in (0..length).step_by(BLOCK) {
                let rows = BLOCK.min(length - first);
                let columns = first + rows;
                let at = (start + first) * q_stride + head * head_dim;
                let q = Rows::new(&inputs.q[at..], q_stride);
                let grad = Rows::new(&inputs.grad[at..], q_stride);
                let scores = &mut scores[..rows * columns];
                let d_scores = &mut d_scores[..rows * columns];
                self.probabilities(q, k, first, rows, scores);
                gemm::product(
                    Threads::One,
                    [rows, columns, head_dim],
                    d_scores,
                    columns,
                    0.0,
                    1.0,
                    (grad, false),
                    (v, true),
                );
                vectorized(|| {
                    let rows = d_scores
                        .chunks_exact_mut(columns)
                        .zip(scores.chunks_exact(columns));
                    for (row, (d_scores, scores)) in rows.enumerate() {
                        let own = at + row * q_stride..at + row * q_stride + head_dim;
                        let along =
                            sum_by(&inputs.grad[own.clone()], &inputs.out[own], |g, o| g * o);
                        for (d, p) in d_scores.iter_mut().zip(scores) {
                            *d = p * (*d - along);
                        }
                    }
                });
                let probabilities = Rows::new(scores, columns);
                let d_scores = Rows::new(d_scores, columns);
                // SAFETY: dq takes rows of this document in this query head's columns; dk and dv
                // take rows of this document in this key-value head's. No other task has them.
                let (dq, dk, dv) = unsafe { (dq.tail(at), dk.tail(kv), dv.tail(kv)) };
                gemm::product(
                    Threads::One,
                    [rows, head_dim, columns],
                    dq,
                    q_stride,
                    0.0,
                    scale,
                    (d_scores, false),
                    (k, false),
                );
                gemm::product(
                    Threads::One,
                    [columns, head_dim, rows],
                    dk,
                    kv_stride,
                    1.0,
                    scale,
                    (d_scores, true),
                    (q, false),
                );
                gemm::product(
                    Threads::One,
                    [columns, head_dim, rows],
                    dv,
                    kv_stride,
                    1.0,
                    1.0,
                    (probabilities, true),
                    (grad, false),
                );
            }
        }
    }
}
