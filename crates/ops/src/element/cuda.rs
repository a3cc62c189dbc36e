//! From one number type to the other, on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use crate::cuda::gpu::{Gpu, Module, launch, module, pointer, spread};

const ELEMENT: Module = module!("element");

/// `tensor` as `dtype`; itself where it is.
pub fn cast(gpu: &Gpu, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    let name = match (tensor.dtype(), dtype) {
        (DType::F32, DType::BF16) => "narrowed",
        (DType::BF16, DType::F32) => "widened",
        (from, to) => bail!("no way from {from:?} to {to:?} on the GPU"),
    };
    let out = gpu.uninitialised(dtype, tensor.shape())?;
    let size = tensor.elem_count();
    launch!(
        gpu,
        ELEMENT,
        name,
        spread(size),
        (pointer(tensor)?, pointer(&out)?, size)
    );
    Ok(out)
}
