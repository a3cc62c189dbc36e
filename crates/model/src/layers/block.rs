//! One decoder layer of the Qwen2, Qwen3 and Llama families.

use candle_core::{Result, Tensor};

use super::linear::Linear;

/// Normalise, attend, add; normalise, SwiGLU, add.
pub struct Block {
    pub(crate) input_norm: Tensor,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    /// Qwen3's norms over each query and key head, [head_dim].
    pub(crate) qk_norms: Option<(Tensor, Tensor)>,
    pub(crate) post_attention_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) rms_norm_eps: f64,
    pub(crate) head_dim: usize,
}

impl Block {
    /// x [N, D] → [N, D]. `attend` maps q [N, H·C], k and v [N, G·C] to [N, H·C]; whether it
    /// looks at packed documents or at a cache is its own affair.
    pub fn forward(
        &self,
        x: &Tensor,
        attend: &mut dyn FnMut(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let normed = self.norm(x, &self.input_norm)?;
        let mut q = self.q.forward(&normed)?;
        let mut k = self.k.forward(&normed)?;
        let v = self.v.forward(&normed)?;
        if let Some((q_norm, k_norm)) = &self.qk_norms {
            q = self.head_norm(&q, q_norm)?;
            k = self.head_norm(&k, k_norm)?;
        }
        let attended = attend(&q, &k, &v)?;
        let x = (x + self.o.forward(&attended)?)?;
        let normed = self.norm(&x, &self.post_attention_norm)?;
        let inner =
            ops::activation::swiglu(&self.gate.forward(&normed)?, &self.up.forward(&normed)?)?;
        x + self.down.forward(&inner)?
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        ops::norm::rms_norm(x, weight, self.rms_norm_eps)
    }

    fn head_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (n, columns) = x.dims2()?;
        let heads = x.reshape((n * columns / self.head_dim, self.head_dim))?;
        self.norm(&heads, weight)?.reshape((n, columns))
    }
}
