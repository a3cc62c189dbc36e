//! A projection in the state its use asks for.

use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use ops::packed::PackedMatrix;

/// y = x · weightᵀ (+ bias), x [N, in] → [N, out].
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Bias>,
}

pub(crate) enum Weight {
    /// For decoding: rows of the result do not depend on each other.
    Packed(Arc<PackedMatrix>),
    /// No gradient is computed for it.
    Frozen(Tensor),
    Trained(Var),
    /// Frozen, with a trained adapter: a [r, in], b [out, r].
    Adapted {
        weight: Tensor,
        a: Var,
        b: Var,
        scale: f32,
    },
}

pub(crate) enum Bias {
    Frozen(Tensor),
    Trained(Var),
}

impl Linear {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Packed(weight) => ops::linear::packed(x, weight)?,
            Weight::Frozen(weight) => ops::linear::frozen(x, weight)?,
            Weight::Trained(weight) => ops::linear::trainable(x, weight)?,
            Weight::Adapted {
                weight,
                a,
                b,
                scale,
            } => ops::lora::lora_linear(x, weight, a, b, *scale)?,
        };
        match &self.bias {
            None => Ok(y),
            Some(Bias::Frozen(bias)) => ops::linear::frozen_bias(&y, bias),
            Some(Bias::Trained(bias)) => y.broadcast_add(bias),
        }
    }
}
