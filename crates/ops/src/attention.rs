//! Rotary embedding and causal, block-diagonal attention over packed documents.
//!
//! Queries are taken in blocks, so that memory is linear in a document's length; nothing but
//! the inputs is kept for the backward pass, which computes the probabilities again.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::element::{Element, Values, by_element, tensor, with};
use crate::gemm::{Arithmetic, Epilogue, Matrix, Out, Term, Threads, product};
use crate::math::{exp, max, sum_by, vectorized};
use crate::rope::RopeTable;
use crate::segments::Segments;

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

/// Rotary attention over packed documents.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub heads: Heads,
    pub rope: &'a RopeTable,
    pub segments: &'a Segments,
}

/// Gradients of [`Attention::forward`].
pub struct AttentionGradients {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
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

impl Attention<'_> {
    /// softmax(scale · rope(q) · rope(k)ᵀ) · v within each document, each token seeing itself and
    /// what stands before it.
    ///
    /// # Shapes
    /// q [N, H·C], k and v [N, G·C] → [N, H·C], all of one dtype.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.check(q, k, v)?;
        by_element!(q.dtype(), forward(self, q, k, v))
    }

    /// `out` is what [`Self::forward`] gave for the same inputs, `grad` [N, H·C] the gradient of it.
    pub fn backward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<AttentionGradients> {
        self.check(q, k, v)?;
        if out.dims() != q.dims() || grad.dims() != q.dims() {
            bail!(
                "attention: a gradient of {:?} for {:?}",
                grad.dims(),
                q.dims()
            );
        }
        by_element!(q.dtype(), backward(self, [q, k, v], out, grad))
    }

    /// Rotated, in f32.
    fn rotated(&self, values: &Tensor) -> Result<Vec<f32>> {
        let columns = values.dim(1)?;
        let mut turned = widened(values)?;
        turned
            .par_chunks_mut(columns)
            .enumerate()
            .for_each(|(token, row)| self.rope.rotate(token, row));
        Ok(turned)
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

    /// Probabilities of `rows` queries from document row `first`, [rows, first + rows].
    fn probabilities(
        &self,
        q: Matrix<'_>,
        k: Matrix<'_>,
        first: usize,
        rows: usize,
        out: &mut [f32],
    ) {
        let columns = first + rows;
        let sizes = [rows, columns, self.heads.head_dim];
        multiply(sizes, out, columns, false, self.heads.scale, q, k.t());
        causal_softmax(out, columns, first);
    }
}

vectorized! {
    /// Rows of `columns` scores; row r sees `first` + r + 1 of them, the others become 0.
    fn causal_softmax(scores: &mut [f32], columns: usize, first: usize) {
        for (row, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let (seen, hidden) = scores.split_at_mut(first + row + 1);
            softmax(seen);
            hidden.fill(0.0);
        }
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

/// out = scale · a · b, or added to it.
fn multiply(
    [m, n, depth]: [usize; 3],
    out: &mut [f32],
    out_stride: usize,
    accumulate: bool,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let term = Term {
        a,
        b,
        depth,
        arithmetic: Arithmetic::F32,
    };
    let epilogue = Epilogue {
        scale,
        accumulate,
        ..Epilogue::default()
    };
    product(
        Threads::One,
        [m, n],
        Out::F32(out),
        out_stride,
        &[term],
        epilogue,
    );
}

fn view(values: &[f32], stride: usize) -> Matrix<'_> {
    Matrix::rows(Values::F32(values), stride)
}

/// A copy in f32.
fn widened(values: &Tensor) -> Result<Vec<f32>> {
    with(values, |values| {
        Ok(match values {
            Values::F32(values) => values.to_vec(),
            Values::Bf16(values) => values.iter().map(|value| value.widen()).collect(),
        })
    })
}

fn narrowed<E: Element>(values: &[f32], shape: (usize, usize)) -> Result<Tensor> {
    tensor(
        values
            .iter()
            .map(|&value| E::narrow(value))
            .collect::<Vec<_>>(),
        shape,
    )
}

fn forward<E: Element>(op: &Attention<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        ..
    } = op.heads;
    let (q_stride, kv_stride) = (n_heads * head_dim, n_kv_heads * head_dim);
    let n = q.dim(0)?;
    let (q, k, v) = (op.rotated(q)?, op.rotated(k)?, widened(v)?);
    let mut out = vec![0.0; n * q_stride];
    let shared = Shared::new(&mut out);
    op.tasks()
        .into_par_iter()
        .for_each(|(start, length, kv_head)| {
            let kv = start * kv_stride + kv_head * head_dim;
            let (k, v) = (view(&k[kv..], kv_stride), view(&v[kv..], kv_stride));
            let mut scores = vec![0.0; BLOCK.min(length) * length];
            for head in op.query_heads(kv_head) {
                for first in (0..length).step_by(BLOCK) {
                    let rows = BLOCK.min(length - first);
                    let at = (start + first) * q_stride + head * head_dim;
                    let scores = &mut scores[..rows * (first + rows)];
                    op.probabilities(view(&q[at..], q_stride), k, first, rows, scores);
                    // SAFETY: the product writes `rows` rows of this document in this head's columns.
                    let out = unsafe { shared.tail(at) };
                    let sizes = [rows, head_dim, first + rows];
                    multiply(
                        sizes,
                        out,
                        q_stride,
                        false,
                        1.0,
                        view(scores, first + rows),
                        v,
                    );
                }
            }
        });
    if q_stride == 0 || E::DTYPE == DType::F32 {
        return tensor(out, (n, q_stride));
    }
    narrowed::<E>(&out, (n, q_stride))
}

fn backward<E: Element>(
    op: &Attention<'_>,
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    grad: &Tensor,
) -> Result<AttentionGradients> {
    let Heads {
        n_heads,
        n_kv_heads,
        head_dim,
        ..
    } = op.heads;
    let (q_stride, kv_stride) = (n_heads * head_dim, n_kv_heads * head_dim);
    let n = q.dim(0)?;
    let (q, k, v) = (op.rotated(q)?, op.rotated(k)?, widened(v)?);
    let (out, grad) = (widened(out)?, widened(grad)?);
    let (mut dq, mut dk, mut dv) = (
        vec![0.0; n * q_stride],
        vec![0.0; n * kv_stride],
        vec![0.0; n * kv_stride],
    );
    let inputs = Inputs {
        q: &q,
        k: &k,
        v: &v,
        out: &out,
        grad: &grad,
    };
    let shares = (
        Shared::new(&mut dq),
        Shared::new(&mut dk),
        Shared::new(&mut dv),
    );
    op.tasks()
        .into_par_iter()
        .for_each(|task| op.backward_task(task, &inputs, &shares.0, &shares.1, &shares.2));
    for (gradient, stride) in [(&mut dq, q_stride), (&mut dk, kv_stride)] {
        gradient
            .par_chunks_mut(stride)
            .enumerate()
            .for_each(|(token, row)| op.rope.rotate_back(token, row));
    }
    Ok(AttentionGradients {
        q: narrowed::<E>(&dq, (n, q_stride))?,
        k: narrowed::<E>(&dk, (n, kv_stride))?,
        v: narrowed::<E>(&dv, (n, kv_stride))?,
    })
}

struct Inputs<'a> {
    /// Rotated queries [N, H·C] and keys [N, G·C].
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    grad: &'a [f32],
}

impl Attention<'_> {
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
            view(&inputs.k[kv..], kv_stride),
            view(&inputs.v[kv..], kv_stride),
        );
        let size = BLOCK.min(length) * length;
        let (mut scores, mut d_scores) = (vec![0.0; size], vec![0.0; size]);
        for head in self.query_heads(kv_head) {
            for first in (0..length).step_by(BLOCK) {
                let rows = BLOCK.min(length - first);
                let columns = first + rows;
                let at = (start + first) * q_stride + head * head_dim;
                let q = view(&inputs.q[at..], q_stride);
                let grad = view(&inputs.grad[at..], q_stride);
                let scores = &mut scores[..rows * columns];
                let d_scores = &mut d_scores[..rows * columns];
                self.probabilities(q, k, first, rows, scores);
                multiply(
                    [rows, columns, head_dim],
                    d_scores,
                    columns,
                    false,
                    1.0,
                    grad,
                    v.t(),
                );
                score_gradients(
                    d_scores,
                    scores,
                    columns,
                    &inputs.grad[at..],
                    &inputs.out[at..],
                    q_stride,
                    head_dim,
                );
                let probabilities = view(scores, columns);
                let d_scores = view(d_scores, columns);
                // SAFETY: dq takes rows of this document in this query head's columns; dk and dv
                // take rows of this document in this key-value head's. No other task has them.
                let (dq, dk, dv) = unsafe { (dq.tail(at), dk.tail(kv), dv.tail(kv)) };
                multiply(
                    [rows, head_dim, columns],
                    dq,
                    q_stride,
                    false,
                    scale,
                    d_scores,
                    k,
                );
                multiply(
                    [columns, head_dim, rows],
                    dk,
                    kv_stride,
                    true,
                    scale,
                    d_scores.t(),
                    q,
                );
                multiply(
                    [columns, head_dim, rows],
                    dv,
                    kv_stride,
                    true,
                    1.0,
                    probabilities.t(),
                    grad,
                );
            }
        }
    }
}

vectorized! {
    /// dS = P ∘ (dP − rowsum(grad ∘ out)), dP in place; grad's and out's rows are `stride` apart.
    fn score_gradients(
        d_scores: &mut [f32],
        scores: &[f32],
        columns: usize,
        grad: &[f32],
        out: &[f32],
        stride: usize,
        head_dim: usize,
    ) {
        let rows = d_scores
            .chunks_exact_mut(columns)
            .zip(scores.chunks_exact(columns));
        for (row, (d_scores, scores)) in rows.enumerate() {
            let own = row * stride..row * stride + head_dim;
            let along = sum_by(&grad[own.clone()], &out[own], |g, o| g * o);
            for (d, p) in d_scores.iter_mut().zip(scores) {
                *d = p * (*d - along);
            }
        }
    }
}
