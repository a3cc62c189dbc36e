//! From one number type to the other, on the GPU.

use candle_core::{DType, Result, Tensor, bail};
use half::bf16;

use crate::cuda::Gpu;
use crate::cuda::kernel::{In, Out, kernels, read, spread, write};

kernels! { "element":
    fn narrowed(x: In<f32>[size], out: Out<bf16>[size], size: usize);
    fn widened(x: In<bf16>[size], out: Out<f32>[size], size: usize);
}

/// `tensor` as `dtype`; itself where it is.
pub fn cast(gpu: &Gpu, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    let out = gpu.uninitialised(dtype, tensor.shape())?;
    let size = tensor.elem_count();
    let blocks = spread(size)?;
    match (tensor.dtype(), dtype) {
        (DType::F32, DType::BF16) => narrowed(gpu, blocks, read(tensor)?, write(&out)?, size)?,
        (DType::BF16, DType::F32) => widened(gpu, blocks, read(tensor)?, write(&out)?, size)?,
        (from, to) => bail!("no way from {from:?} to {to:?} on the GPU"),
    }
    Ok(out)
}
