//! SwiGLU on the GPU.

use candle_core::{Result, Tensor};

use crate::cuda::Gpu;
use crate::cuda::kernel::{In, Out, kernels, pairs, read, spread, write};
use crate::element::by_element;

kernels! { "activation":
    fn swiglu<E>(
        gate: In<E>[2 * pairs],
        up: In<E>[2 * pairs],
        out: Out<E>[2 * pairs],
        pairs: usize,
    );
    fn swiglu_backward<E>(
        gate: In<E>[2 * pairs],
        up: In<E>[2 * pairs],
        grad: In<E>[2 * pairs],
        d_gate: Out<E>[2 * pairs],
        d_up: Out<E>[2 * pairs],
        pairs: usize,
    );
}

pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(gate)?;
    let out = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let n = pairs(gate)?;
    by_element!(
        gate.dtype(),
        swiglu(&gpu, spread(n)?, read(gate)?, read(up)?, write(&out)?, n)
    )?;
    Ok(out)
}

pub fn backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(gate)?;
    let d_gate = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let d_up = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let n = pairs(gate)?;
    by_element!(
        gate.dtype(),
        swiglu_backward(
            &gpu,
            spread(n)?,
            read(gate)?,
            read(up)?,
            read(grad)?,
            write(&d_gate)?,
            write(&d_up)?,
            n,
        )
    )?;
    Ok((d_gate, d_up))
}
