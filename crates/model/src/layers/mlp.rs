//! The second half of a decoder layer: normalise, SwiGLU, add.

use std::ops::Range;

use candle_core::{Result, Tensor};
use ops::activation::{swiglu, swiglu_backward};

use super::linear::{InputGradient, Linear, LowTape, Projected, Weight};
use super::norm::Norm;
use crate::gradients::Gradients;

/// y = x + down(silu(gate(n)) ∘ up(n)), n = norm(x).
pub struct Mlp {
    pub(crate) norm: Norm,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// Most tokens that go through together: what lies between the projections takes the memory of so many, however long
/// a pass is. Fewer would be slower, as the weights are packed for each lot.
pub const TOGETHER: usize = 2048;
/// The same on a GPU, which takes more to be busy.
pub const TOGETHER_ON_GPU: usize = 8192;

/// What the backward pass needs of the forward pass beside the input, some tokens after others.
pub struct MlpTape(Vec<Part>);

struct Part {
    tokens: Range<usize>,
    /// None where activations are checkpointed.
    gate_up: Option<[Projected; 2]>,
    down: Option<LowTape>,
}

impl Mlp {
    /// x [N, D] → [N, D].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_kept(x, None, true)?.0)
    }

    /// [`Self::forward`], and what [`Self::backward`] needs of it; `keys` [N] are dropout's.
    pub fn forward_kept(
        &self,
        x: &Tensor,
        keys: Option<&[u64]>,
        checkpointing: bool,
    ) -> Result<(Tensor, MlpTape)> {
        let (mut outs, mut parts) = (Vec::new(), Vec::new());
        for tokens in self.parts(x)? {
            let x = rows(x, &tokens)?;
            let keys = keys.map(|keys| &keys[tokens.clone()]);
            let gate_up = self.gate_up(&self.norm.forward(&x)?, keys)?;
            let [(gate, _), (up, _)] = &gate_up;
            let act = swiglu(gate, up)?;
            let (out, down) = self.down.forward_kept(&act, Some(&x), keys)?;
            outs.push(out);
            parts.push(Part {
                tokens,
                gate_up: (!checkpointing).then_some(gate_up),
                down,
            });
        }
        Ok((joined(outs)?, MlpTape(parts)))
    }

    /// The gradient of `x`, given that of the output; those of what is trained are added to `gradients`.
    pub fn backward(
        &self,
        x: &Tensor,
        tape: MlpTape,
        grad: &Tensor,
        keys: Option<&[u64]>,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let mut found = Vec::new();
        for part in tape.0 {
            let (x, grad) = (rows(x, &part.tokens)?, rows(grad, &part.tokens)?);
            let keys = keys.map(|keys| &keys[part.tokens.clone()]);
            let normed = self.norm.forward(&x)?;
            let [(gate, gate_low), (up, up_low)] = match part.gate_up {
                Some(kept) => kept,
                None => self.gate_up(&normed, keys)?,
            };
            let mut sum = InputGradient::default();
            let act = swiglu(&gate, &up)?;
            let from = (&act, &part.down);
            self.down.backward(from, &grad, keys, gradients, &mut sum)?;
            drop(act);
            let d_inner = sum.sum(x.dtype())?;
            let (d_gate, d_up) = swiglu_backward(&gate, &up, &d_inner)?;
            drop((gate, up, d_inner));
            let mut sum = InputGradient::default();
            for (layer, low, grad) in [(&self.gate, gate_low, d_gate), (&self.up, up_low, d_up)] {
                layer.backward((&normed, &low), &grad, keys, gradients, &mut sum)?;
            }
            drop(normed);
            let d_normed = sum.sum(x.dtype())?;
            let d_x = self.norm.backward(&x, &d_normed, Some(&grad), gradients)?;
            found.push(d_x);
        }
        joined(found)
    }

    fn gate_up(&self, normed: &Tensor, keys: Option<&[u64]>) -> Result<[Projected; 2]> {
        Ok([
            self.gate.forward_kept(normed, None, keys)?,
            self.up.forward_kept(normed, None, keys)?,
        ])
    }

    /// Parts of about one size. All tokens are together where the weights are trained, whose gradients are sums over
    /// them.
    fn parts(&self, x: &Tensor) -> Result<impl Iterator<Item = Range<usize>> + use<>> {
        let n = x.dim(0)?;
        let together = match self.gate.weight {
            Weight::Trained(_) => n,
            _ if x.device().is_cuda() => n.div_ceil(n.div_ceil(TOGETHER_ON_GPU).max(1)),
            _ => n.div_ceil(n.div_ceil(TOGETHER).max(1)),
        };
        let starts = (0..n).step_by(together.max(1));
        Ok(starts.map(move |start| start..n.min(start + together)))
    }
}

fn rows(x: &Tensor, tokens: &Range<usize>) -> Result<Tensor> {
    x.narrow(0, tokens.start, tokens.len())
}

fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, 0),
    }
}
