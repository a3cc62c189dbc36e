//! One decoder layer of the Qwen2, Qwen3 and Llama families.

use candle_core::{Result, Tensor};
use ops::attention::{Attended, Attention};

use super::linear::{InputGradient, Linear, LowTape, Projected};
use super::mlp::{Mlp, MlpTape};
use super::norm::Norm;
use crate::gradients::Gradients;
use crate::taps::{Tap, Tapped};

/// Normalise, attend, add; then what [`Mlp`] does.
pub struct Block {
    pub(crate) input_norm: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    /// Qwen3's norms over each query and key head, [head_dim].
    pub(crate) qk_norms: Option<(Norm, Norm)>,
    pub(crate) mlp: Mlp,
    pub(crate) head_dim: usize,
}

/// What a block's forward and backward pass share, beside its own.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub attention: Attention<'a>,
    /// Whether projections are computed again in the backward pass, and not kept.
    pub checkpointing: bool,
    /// Of dropout, one per token.
    pub row_keys: Option<&'a [u64]>,
}

/// What a block's backward pass needs of its forward pass, besides the weights.
pub struct BlockTape {
    /// The block's input [N, D].
    x: Tensor,
    attended: Attended,
    o: Option<LowTape>,
    mlp: MlpTape,
    /// What is computed again in the backward pass where activations are checkpointed.
    inner: Option<Inner>,
}

struct Inner {
    qkv: [Projected; 3],
    /// The input of the second half, [N, D].
    middle: Tensor,
}

impl Block {
    /// x [N, D] → [N, D]. `attend` maps q [N, H·C], k and v [N, G·C] to [N, H·C]; whether it
    /// looks at packed documents or at a cache is its own affair.
    pub fn forward(
        &self,
        x: &Tensor,
        attend: &mut dyn FnMut(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [(q, _), (k, _), (v, _)] = self.project(&self.input_norm.forward(x)?, None)?;
        let [q, k] = self.normed_heads(&q, &k)?;
        let attended = attend(&q, &k, &v)?;
        drop((q, k, v));
        let middle = self.o.forward(&attended, Some(x))?;
        drop(attended);
        self.mlp.forward(&middle)
    }

    /// [`Self::forward`] over packed documents, keeping what [`Self::backward`] needs. With checkpointing that
    /// is the block's input and what attention gave; the projections are computed twice, attention once.
    ///
    /// `taps` takes what it wants of layer `layer`.
    pub fn forward_with_tape(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        (layer, taps): (usize, &mut Tapped),
    ) -> Result<(Tensor, BlockTape)> {
        let keys = pass.row_keys;
        let qkv = self.project(&self.input_norm.forward(x)?, keys)?;
        let [(q, _), (k, _), (v, _)] = &qkv;
        let [q, k] = self.normed_heads(q, k)?;
        let attended = pass.attention.forward(&q, &k, v)?;
        taps.show_attention(layer, [&q, &k, v], &attended.out);
        drop((q, k));
        let qkv = (!pass.checkpointing).then_some(qkv);
        let (middle, o) = self.o.forward_kept(&attended.out, Some(x), keys)?;
        let (out, mlp) = self.mlp.forward_kept(&middle, keys, pass.checkpointing)?;
        taps.show(Tap::Output(layer), &out);
        let tape = BlockTape {
            x: x.clone(),
            attended,
            o,
            mlp,
            inner: qkv.map(|qkv| Inner { qkv, middle }),
        };
        Ok((out, tape))
    }

    /// The gradient of the block's input, given that of its output; those of what is trained are added to
    /// `gradients`, and those that `taps` has for layer `layer` to what they are of. Without `input`, what the block's own
    /// input would get is not computed.
    pub fn backward(
        &self,
        tape: BlockTape,
        grad: Tensor,
        pass: &Pass<'_>,
        input: bool,
        (layer, taps): (usize, &mut Tapped),
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let grad = taps.with(Tap::Output(layer), grad)?;
        let BlockTape {
            x,
            attended,
            o,
            mlp,
            inner,
        } = tape;
        let keys = pass.row_keys;
        let (qkv, middle) = match inner {
            Some(Inner { qkv, middle }) => (Some(qkv), middle),
            None => (None, self.o.forward_kept(&attended.out, Some(&x), keys)?.0),
        };
        let grad = self.mlp.backward(&middle, mlp, &grad, keys, gradients)?;
        drop(middle);
        let mut sum = InputGradient::default();
        let from = (&attended.out, &o);
        self.o.backward(from, &grad, keys, gradients, &mut sum)?;
        let d_attended = taps.with(Tap::Attention(layer), sum.sum(x.dtype())?)?;
        let normed = self.input_norm.forward(&x)?;
        let [(q, q_low), (k, k_low), (v, v_low)] = match qkv {
            Some(qkv) => qkv,
            None => self.project(&normed, keys)?,
        };
        let [q_turned, k_turned] = self.normed_heads(&q, &k)?;
        let inputs = [&q_turned, &k_turned, &v];
        let d = pass.attention.backward(inputs, &attended, &d_attended)?;
        drop((attended, d_attended));
        let (dq, dk) = (
            taps.with(Tap::Query(layer), d.q)?,
            taps.with(Tap::Key(layer), d.k)?,
        );
        let dv = taps.with(Tap::Value(layer), d.v)?;
        let (dq, dk) = match &self.qk_norms {
            None => (dq, dk),
            Some((q_norm, k_norm)) => (
                self.head_norm_backward(&q, q_norm, &dq, gradients)?,
                self.head_norm_backward(&k, k_norm, &dk, gradients)?,
            ),
        };
        drop((q, k, v, q_turned, k_turned));
        let mut sum = InputGradient::default();
        for (layer, low, grad) in [
            (&self.q, q_low, dq),
            (&self.k, k_low, dk),
            (&self.v, v_low, dv),
        ] {
            layer.backward((&normed, &low), &grad, keys, gradients, &mut sum)?;
        }
        drop(normed);
        if !input && self.input_norm.weight.trained().is_none() {
            return Ok(None);
        }
        let d_normed = sum.sum(x.dtype())?;
        drop(sum);
        let grad = self
            .input_norm
            .backward(&x, &d_normed, Some(&grad), gradients)?;
        Ok(Some(grad))
    }

    fn project(&self, normed: &Tensor, keys: Option<&[u64]>) -> Result<[Projected; 3]> {
        Ok([
            self.q.forward_kept(normed, None, keys)?,
            self.k.forward_kept(normed, None, keys)?,
            self.v.forward_kept(normed, None, keys)?,
        ])
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
