//! RMSNorm with its weight.

use candle_core::{Result, Tensor};
use ops::norm::{rms_norm, rms_norm_backward};

use super::linear::Value;
use crate::gradients::Gradients;

/// An RMSNorm's weight, f32.
pub(crate) struct Norm {
    pub(crate) weight: Value,
    pub(crate) eps: f64,
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
        let (weight, trained) = (self.weight.tensor(), self.weight.trained());
        let found = rms_norm_backward(x, weight, self.eps, grad, add, trained.is_some())?;
        if let (Some(name), Some(dw)) = (trained, found.weight) {
            gradients.add(name, dw)?;
        }
        Ok(found.x)
    }
}
