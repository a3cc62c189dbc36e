//! Rotary embedding and causal, block-diagonal attention over packed documents.
//!
//! Queries and keys are taken in tiles that stay in the cache, so memory is linear in a document's length. A row's
//! softmax is carried from tile to tile (Milakov and Gimelshein 2018, arXiv:1805.02867); its logarithm is kept, from
//! which the backward pass computes the probabilities again (Dao et al. 2022, arXiv:2205.14135).

mod backward;
mod forward;

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::{Element, Values, by_element};
use crate::gemm::{Arithmetic, Matrix, PANEL};
use crate::rope::RopeTable;
use crate::segments::Segments;
use backward::backward;
use forward::forward;

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
    /// log Σ e^score of every query, f32; [N, H] on the CPU, [H, N] on a GPU.
    pub(crate) log_sums: Tensor,
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
        on_gpu!(q => crate::cuda::attention::forward(self, q, k, v));
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
        on_gpu!(q => crate::cuda::attention::backward(self, [q, k, v], attended, grad));
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
