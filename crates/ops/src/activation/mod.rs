//! SwiGLU (Shazeer 2020, arXiv:2002.05202).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::by_element;
use cpu::{backward, forward};

/// silu(gate) · up, elementwise; silu(x) = x / (1 + e^−x).
///
/// # Shapes
/// gate, up [N, F] → [N, F], all of one dtype.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(gate, up)?;
    on_gpu!(gate => cuda::forward(gate, up));
    by_element!(gate.dtype(), forward(gate, up))
}

/// Gradients of [`swiglu`] for gate and up.
///
/// # Shapes
/// gate, up, grad [N, F] → two of [N, F].
pub fn swiglu_backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    check(gate, up)?;
    check(gate, grad)?;
    on_gpu!(gate => cuda::backward(gate, up, grad));
    by_element!(gate.dtype(), backward(gate, up, grad))
}

fn check(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        bail!("swiglu: {:?} against {:?}", a.shape(), b.shape());
    }
    Ok(())
}
