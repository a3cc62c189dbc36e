//! SwiGLU on the GPU.

use candle_core::{Result, Tensor};

use crate::cuda::gpu::{Gpu, Module, for_type, launch, module, pairs, pointer, spread};

const ACTIVATION: Module = module!("activation");

pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(gate)?;
    let out = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let n = pairs(gate)?;
    launch!(
        gpu,
        ACTIVATION,
        for_type!("swiglu", gate.dtype()),
        spread(n),
        (pointer(gate)?, pointer(up)?, pointer(&out)?, n)
    );
    Ok(out)
}

pub fn swiglu_backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(gate)?;
    let d_gate = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let d_up = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let n = pairs(gate)?;
    launch!(
        gpu,
        ACTIVATION,
        for_type!("swiglu_backward", gate.dtype()),
        spread(n),
        (
            pointer(gate)?,
            pointer(up)?,
            pointer(grad)?,
            pointer(&d_gate)?,
            pointer(&d_up)?,
            n
        )
    );
    Ok((d_gate, d_up))
}
