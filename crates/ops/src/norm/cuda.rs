//! RMSNorm, a block per row.

use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{DType, Result, Tensor};

use super::RmsNormGradients;
use crate::cuda::gpu::{
    Gpu, Module, blocks, for_type, launch, module, pairs, pointer, pointer_or_null,
};
use crate::linear::cuda::column_sums;

const NORM: Module = module!("norm");

pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, d) = x.dims2()?;
    pairs(x)?;
    let out = gpu.uninitialised(x.dtype(), (rows, d))?;
    if rows > 0 {
        launch!(
            gpu,
            NORM,
            for_type!("rms_norm", x.dtype()),
            row_blocks(rows, d),
            (pointer(x)?, pointer(weight)?, pointer(&out)?, d as i32, eps)
        );
    }
    Ok(out)
}

pub fn backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    grad: &Tensor,
    add: Option<&Tensor>,
    weight_gradient: bool,
) -> Result<RmsNormGradients> {
    let gpu = Gpu::of(x)?;
    let (rows, d) = x.dims2()?;
    pairs(x)?;
    let dx = gpu.uninitialised(x.dtype(), (rows, d))?;
    let inverses = weight_gradient
        .then(|| gpu.uninitialised(DType::F32, rows))
        .transpose()?;
    if rows > 0 {
        launch!(
            gpu,
            NORM,
            for_type!("rms_norm_backward", x.dtype()),
            row_blocks(rows, d),
            (
                pointer(x)?,
                pointer(weight)?,
                pointer(grad)?,
                pointer_or_null(add)?,
                pointer(&dx)?,
                pointer_or_null(inverses.as_ref())?,
                d as i32,
                eps
            )
        );
    }
    let weight = inverses
        .map(|inverses| column_sums(grad, Some(x), Some(&inverses)))
        .transpose()?;
    Ok(RmsNormGradients { x: dx, weight })
}

/// With warps enough for a few pairs each.
fn row_blocks(rows: usize, d: usize) -> LaunchConfig {
    blocks(rows, (d / 8).next_multiple_of(32).clamp(32, 512) as u32)
}
