//! Cosines and sines on the GPU, and heads turned by them.

use candle_core::{DType, Result, Tensor};

use crate::cuda::gpu::{Gpu, Module, for_type, launch, module, per_row, pointer, spread};

const ROPE: Module = module!("rope");

/// Tables of a pass on the GPU: cosines and sines, f32 [N, C/2].
#[derive(Debug)]
pub struct Tables {
    cosines: Tensor,
    sines: Tensor,
}

impl Tables {
    pub fn new(gpu: &Gpu, frequencies: &[f32], scaling: f32, positions: &[usize]) -> Result<Self> {
        let half = frequencies.len();
        let positions: Vec<u32> = positions.iter().map(|&position| position as u32).collect();
        let cosines = gpu.uninitialised(DType::F32, (positions.len(), half))?;
        let sines = gpu.uninitialised(DType::F32, (positions.len(), half))?;
        let size = positions.len() * half;
        let (frequencies, positions) = (gpu.upload(frequencies)?, gpu.upload(&positions)?);
        launch!(
            gpu,
            ROPE,
            "rope_table",
            spread(size),
            (
                pointer(&frequencies)?,
                pointer(&positions)?,
                pointer(&cosines)?,
                pointer(&sines)?,
                scaling,
                half as i32,
                size
            )
        );
        Ok(Self { cosines, sines })
    }

    /// The heads of x [N, heads · C] turned, or turned back.
    pub fn rotate(&self, gpu: &Gpu, x: &Tensor, head_dim: usize, back: bool) -> Result<Tensor> {
        let out = gpu.uninitialised(x.dtype(), x.shape())?;
        let (rows, columns) = x.dims2()?;
        if rows == 0 {
            return Ok(out);
        }
        launch!(
            gpu,
            ROPE,
            for_type!("rotate", x.dtype()),
            per_row(rows, columns / 2),
            (
                pointer(x)?,
                pointer(&self.cosines)?,
                pointer(&self.sines)?,
                pointer(&out)?,
                if back { -1f32 } else { 1f32 },
                (columns / head_dim) as i32,
                (head_dim / 2) as i32
            )
        );
        Ok(out)
    }
}
