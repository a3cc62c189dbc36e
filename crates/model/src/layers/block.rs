//! One decoder layer of the Qwen2, Qwen3 and Llama families.

use candle_core::{Result, Tensor};
use ops::activation::{swiglu, swiglu_backward};
use ops::attention::{Attended, Attention};
use ops::norm::{rms_norm, rms_norm_backward};

use super::linear::{InputTerm, Linear, Parameter, input_gradient};
use crate::gradients::Gradients;

/// Normalise, attend, add; normalise, SwiGLU, add.
pub struct Block {
    pub(crate) input_norm: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    /// Qwen3's norms over each query and key head, [head_dim].
    pub(crate) qk_norms: Option<(Norm, Norm)>,
    pub(crate) post_attention_norm: Norm,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) head_dim: usize,
}

/// An RMSNorm's weight, f32.
pub(crate) struct Norm {
    pub(crate) weight: NormWeight,
    pub(crate) eps: f64,
}

pub(crate) enum NormWeight {
    Frozen(Tensor),
    Trained(Parameter),
}

/// What a block's backward pass needs of its forward pass, besides the weights.
pub struct BlockTape {
    /// The block's input [N, D].
    x: Tensor,
    attended: Attended,
    /// The input of the second half, [N, D].
    middle: Tensor,
    /// What is computed again in the backward pass where activations are checkpointed.
    inner: Option<Inner>,
}

struct Inner {
    qkv: [Tensor; 3],
    gate: Tensor,
    up: Tensor,
}

impl Block {
    /// x [N, D] → [N, D]. `attend` maps q [N, H·C], k and v [N, G·C] to [N, H·C]; whether it
    /// looks at packed documents or at a cache is its own affair.
    pub fn forward(
        &self,
        x: &Tensor,
        attend: &mut dyn FnMut(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [q, k, v] = self.project(x)?;
        let [q, k] = self.normed_heads(&q, &k)?;
        let attended = attend(&q, &k, &v)?;
        drop((q, k, v));
        let middle = self.o.forward(&attended, Some(x))?;
        let (gate, up) = self.gate_up(&middle)?;
        self.down.forward(&swiglu(&gate, &up)?, Some(&middle))
    }

    /// [`Self::forward`] over packed documents, keeping what [`Self::backward`] needs. With `checkpointing` that
    /// is three tensors of the residual stream's size, and the projections are computed twice.
    pub fn forward_with_tape(
        &self,
        x: &Tensor,
        attention: &Attention<'_>,
        checkpointing: bool,
    ) -> Result<(Tensor, BlockTape)> {
        let qkv = self.project(x)?;
        let [q, k, v] = &qkv;
        let [q, k] = self.normed_heads(q, k)?;
        let attended = attention.forward(&q, &k, v)?;
        drop((q, k));
        let qkv = (!checkpointing).then_some(qkv);
        let middle = self.o.forward(&attended.out, Some(x))?;
        let (gate, up) = self.gate_up(&middle)?;
        let out = self.down.forward(&swiglu(&gate, &up)?, Some(&middle))?;
        let tape = BlockTape {
            x: x.clone(),
            attended,
            middle,
            inner: qkv.map(|qkv| Inner { qkv, gate, up }),
        };
        Ok((out, tape))
    }

    /// The gradient of the block's input, given that of its output; those of what is trained are added to
    /// `gradients`. Without `input`, what the block's own input would get is not computed.
    pub fn backward(
        &self,
        tape: BlockTape,
        grad: Tensor,
        attention: &Attention<'_>,
        input: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let BlockTape {
            x,
            attended,
            middle,
            inner,
        } = tape;
        let (qkv, gate_up) = match inner {
            Some(Inner { qkv, gate, up }) => (Some(qkv), Some((gate, up))),
            None => (None, None),
        };
        let grad = self.backward_mlp(&middle, gate_up, grad, gradients)?;
        drop(middle);
        let terms = self.o.backward(&attended.out, &grad, gradients)?;
        let d_attended = input_gradient(&terms, x.dtype())?;
        let normed = self.input_norm.forward(&x)?;
        let [q, k, v] = match qkv {
            Some(qkv) => qkv,
            None => self.project_normed(&normed)?,
        };
        let [q_turned, k_turned] = self.normed_heads(&q, &k)?;
        let d = attention.backward([&q_turned, &k_turned, &v], &attended, &d_attended)?;
        drop((attended, d_attended));
        let (dq, dk) = match &self.qk_norms {
            None => (d.q, d.k),
            Some((q_norm, k_norm)) => (
                self.head_norm_backward(&q, q_norm, &d.q, gradients)?,
                self.head_norm_backward(&k, k_norm, &d.k, gradients)?,
            ),
        };
        drop((q, k, v, q_turned, k_turned));
        let mut terms: Vec<InputTerm> = self.q.backward(&normed, &dq, gradients)?;
        terms.extend(self.k.backward(&normed, &dk, gradients)?);
        terms.extend(self.v.backward(&normed, &d.v, gradients)?);
        drop(normed);
        if !input && !self.input_norm.is_trained() {
            return Ok(None);
        }
        let d_normed = input_gradient(&terms, x.dtype())?;
        drop(terms);
        let grad = self
            .input_norm
            .backward(&x, &d_normed, Some(&grad), gradients)?;
        Ok(Some(grad))
    }

    /// From the gradient of the block's output to that of its middle.
    fn backward_mlp(
        &self,
        middle: &Tensor,
        gate_up: Option<(Tensor, Tensor)>,
        grad: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let normed = self.post_attention_norm.forward(middle)?;
        let (gate, up) = match gate_up {
            Some(kept) => kept,
            None => (
                self.gate.forward(&normed, None)?,
                self.up.forward(&normed, None)?,
            ),
        };
        let terms = self.down.backward(&swiglu(&gate, &up)?, &grad, gradients)?;
        let d_inner = input_gradient(&terms, middle.dtype())?;
        let (d_gate, d_up) = swiglu_backward(&gate, &up, &d_inner)?;
        drop((gate, up, d_inner));
        let mut terms = self.gate.backward(&normed, &d_gate, gradients)?;
        terms.extend(self.up.backward(&normed, &d_up, gradients)?);
        drop((normed, d_gate, d_up));
        let d_normed = input_gradient(&terms, middle.dtype())?;
        drop(terms);
        self.post_attention_norm
            .backward(middle, &d_normed, Some(&grad), gradients)
    }

    fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        self.project_normed(&self.input_norm.forward(x)?)
    }

    fn project_normed(&self, normed: &Tensor) -> Result<[Tensor; 3]> {
        Ok([
            self.q.forward(normed, None)?,
            self.k.forward(normed, None)?,
            self.v.forward(normed, None)?,
        ])
    }

    fn gate_up(&self, middle: &Tensor) -> Result<(Tensor, Tensor)> {
        let normed = self.post_attention_norm.forward(middle)?;
        Ok((
            self.gate.forward(&normed, None)?,
            self.up.forward(&normed, None)?,
        ))
    }

    fn normed_heads(&self, q: &Tensor, k: &Tensor) -> Result<[Tensor; 2]> {
        Ok(match &self.qk_norms {
            None => [q.clone(), k.clone()],
            Some((q_norm, k_norm)) => {
                let normed =
                    |x: &Tensor, norm: &Norm| norm.forward(&self.heads(x)?)?.reshape(x.shape());
                [normed(q, q_norm)?, normed(k, k_norm)?]
            }
        })
    }

    fn head_norm_backward(
        &self,
        x: &Tensor,
        norm: &Norm,
        grad: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (heads, grad) = (self.heads(x)?, self.heads(grad)?);
        norm.backward(&heads, &grad, None, gradients)?
            .reshape(x.shape())
    }

    /// [N, heads · C] → [N · heads, C]
    fn heads(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape((x.elem_count() / self.head_dim.max(1), self.head_dim))
    }
}

impl Norm {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, self.weight.tensor(), self.eps)
    }

    /// The gradient of x, plus `add` where given.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        grad: &Tensor,
        add: Option<&Tensor>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let weight = self.weight.tensor();
        let found = rms_norm_backward(x, weight, self.eps, grad, add, self.is_trained())?;
        if let (NormWeight::Trained(parameter), Some(dw)) = (&self.weight, found.weight) {
            gradients.add(&parameter.name, dw)?;
        }
        Ok(found.x)
    }

    fn is_trained(&self) -> bool {
        matches!(self.weight, NormWeight::Trained(_))
    }
}

impl NormWeight {
    fn tensor(&self) -> &Tensor {
        match self {
            NormWeight::Frozen(weight) => weight,
            NormWeight::Trained(parameter) => parameter.var.as_tensor(),
        }
    }
}
