//! Cosines and sines on the GPU, and heads turned by them.

use candle_core::{DType, Result, Tensor};

use crate::cuda::Gpu;
use crate::cuda::kernel::{Array, In, Int, Out, kernels, per_row, read, spread, word, write};
use crate::element::by_element;

kernels! { "rope":
    fn rope_table(
        frequencies: In<f32>[half],
        positions: In<u32>[size / half.max(1)],
        cosines: Out<f32>[size],
        sines: Out<f32>[size],
        scaling: f32,
        half: Int,
        size: usize,
    );
    fn rotate<E>[rows](
        x: In<E>[rows * heads * 2 * half],
        cosines: In<f32>[rows * half],
        sines: In<f32>[rows * half],
        out: Out<E>[rows * heads * 2 * half],
        direction: f32,
        heads: Int,
        half: Int,
    );
}

/// Tables of a pass on the GPU: cosines and sines, f32 [N, C/2].
#[derive(Debug)]
pub struct Tables {
    cosines: Tensor,
    sines: Tensor,
}

impl Tables {
    pub fn new(gpu: &Gpu, frequencies: &[f32], scaling: f32, positions: &[usize]) -> Result<Self> {
        let half = frequencies.len();
        let positions = positions.iter().map(|&position| word(position));
        let positions = positions.collect::<Result<Vec<u32>>>()?;
        let cosines = gpu.uninitialised(DType::F32, (positions.len(), half))?;
        let sines = gpu.uninitialised(DType::F32, (positions.len(), half))?;
        let size = positions.len() * half;
        rope_table(
            gpu,
            spread(size)?,
            Array::upload(gpu, frequencies)?.read()?,
            Array::upload(gpu, &positions)?.read()?,
            write(&cosines)?,
            write(&sines)?,
            scaling,
            half,
            size,
        )?;
        Ok(Self { cosines, sines })
    }

    /// The heads of x [N, heads · C] turned, or turned back.
    pub fn rotate(&self, gpu: &Gpu, x: &Tensor, head_dim: usize, back: bool) -> Result<Tensor> {
        let out = gpu.uninitialised(x.dtype(), x.shape())?;
        let (rows, columns) = x.dims2()?;
        if rows == 0 {
            return Ok(out);
        }
        by_element!(
            x.dtype(),
            rotate(
                gpu,
                per_row(rows, columns / 2)?,
                read(x)?,
                read(&self.cosines)?,
                read(&self.sines)?,
                write(&out)?,
                if back { -1.0 } else { 1.0 },
                columns / head_dim,
                head_dim / 2,
            )
        )?;
        Ok(out)
    }
}
