//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::by_element;
use cpu::{backward, forward};

/// y = weight · x / sqrt(mean(x²) + eps), over the last dimension.
///
/// # Shapes
/// x [R, D] f32 or bf16, weight [D] f32 → [R, D] of x's dtype.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check(x, weight)?;
    on_gpu!(x => cuda::forward(x, weight, eps as f32));
    by_element!(x.dtype(), forward(x, weight, eps as f32))
}

/// Gradients of [`rms_norm`].
pub struct RmsNormGradients {
    /// [R, D], of x's dtype.
    pub x: Tensor,
    /// [D] f32, where asked for.
    pub weight: Option<Tensor>,
}

/// With x̂ = x·inverse and ĝ = grad·weight: dx = inverse·(ĝ − x̂·mean(ĝ·x̂)) + `add`, dw = Σ grad·x̂.
///
/// # Shapes
/// x, grad and add [R, D] of one dtype, weight [D] f32.
pub fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    grad: &Tensor,
    add: Option<&Tensor>,
    weight_gradient: bool,
) -> Result<RmsNormGradients> {
    check(x, weight)?;
    if grad.dims() != x.dims() || add.is_some_and(|add| add.dims() != x.dims()) {
        bail!(
            "rms-norm: a gradient of {:?} for {:?}",
            grad.dims(),
            x.dims()
        );
    }
    on_gpu!(x => cuda::backward(x, weight, eps as f32, grad, add, weight_gradient));
    by_element!(
        x.dtype(),
        backward(x, weight, eps as f32, grad, add, weight_gradient)
    )
}

fn check(x: &Tensor, weight: &Tensor) -> Result<()> {
    let (_, d) = x.dims2()?;
    if weight.dims() != [d] {
        bail!(
            "rms-norm: rows of {d} against a weight of {:?}",
            weight.dims()
        );
    }
    Ok(())
}
