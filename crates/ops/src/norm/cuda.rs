//! RMSNorm, a block per row.

use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{DType, Result, Tensor};

use super::RmsNormGradients;
use crate::cuda::Gpu;
use crate::cuda::kernel::{
    In, Int, Out, blocks, kernels, pairs, read, read_some, write, write_some,
};
use crate::element::by_element;
use crate::linear::cuda::column_sums;

kernels! { "norm":
    fn rms_norm<E>[rows](
        x: In<E>[rows * d],
        weight: In<f32>[d],
        out: Out<E>[rows * d],
        d: Int,
        eps: f32,
    );
    fn rms_norm_backward<E>[rows](
        x: In<E>[rows * d],
        weight: In<f32>[d],
        grad: In<E>[rows * d],
        add: Option<In<E>>[rows * d],
        dx: Out<E>[rows * d],
        inverses: Option<Out<f32>>[rows],
        d: Int,
        eps: f32,
    );
}

pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, d) = x.dims2()?;
    pairs(x)?;
    let out = gpu.uninitialised(x.dtype(), (rows, d))?;
    if rows > 0 {
        let each = row_blocks(rows, d)?;
        by_element!(
            x.dtype(),
            rms_norm(&gpu, each, read(x)?, read(weight)?, write(&out)?, d, eps)
        )?;
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
        by_element!(
            x.dtype(),
            rms_norm_backward(
                &gpu,
                row_blocks(rows, d)?,
                read(x)?,
                read(weight)?,
                read(grad)?,
                read_some(add)?,
                write(&dx)?,
                write_some(inverses.as_ref())?,
                d,
                eps,
            )
        )?;
    }
    let weight = inverses
        .map(|inverses| column_sums(grad, Some(x), Some(&inverses)))
        .transpose()?;
    Ok(RmsNormGradients { x: dx, weight })
}

/// With warps enough for a few pairs each.
fn row_blocks(rows: usize, d: usize) -> Result<LaunchConfig> {
    blocks(rows, (d / 8).next_multiple_of(32).clamp(32, 512) as u32)
}
