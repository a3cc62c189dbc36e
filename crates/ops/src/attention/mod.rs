//! Rotary embedding and causal, block-diagonal attention over packed documents.
//!
//! Queries and keys are taken in tiles that stay in the cache, so memory is linear in a document's length. A row's
//! softmax is carried from tile to tile (Milakov and Gimelshein 2018, arXiv:1805.02867); its logarithm is kept, from
//! which the backward pass computes the probabilities again (Dao et al. 2022, arXiv:2205.14135).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::by_element;
use crate::rope::RopeTable;
use crate::segments::Segments;
use cpu::{backward, forward};

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
        on_gpu!(q => cuda::forward(self, q, k, v));
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
        on_gpu!(q => cuda::backward(self, [q, k, v], attended, grad));
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
}
