//! Dropout with the masks of [`crate::dropout`].

use candle_core::{Result, Tensor};

use super::Dropout;
use crate::cuda::Gpu;
use crate::cuda::kernel::{Array, In, Int, Out, kernels, per_row, read, write};
use crate::element::by_element;

kernels! { "dropout":
    fn dropout<E>[rows](
        x: In<E>[rows * columns],
        keys: In<u64>[rows],
        out: Out<E>[rows * columns],
        module: u64,
        dropped: u64,
        scale: f32,
        columns: Int,
    );
}

pub fn apply(op: &Dropout<'_>, x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let out = gpu.uninitialised(x.dtype(), x.shape())?;
    let (rows, columns) = x.dims2()?;
    if rows == 0 {
        return Ok(out);
    }
    let keys = Array::upload(&gpu, op.rows)?;
    by_element!(
        x.dtype(),
        dropout(
            &gpu,
            per_row(rows, columns)?,
            read(x)?,
            keys.read()?,
            write(&out)?,
            op.module,
            op.threshold(),
            1.0 / (1.0 - op.rate),
            columns,
        )
    )?;
    Ok(out)
}
