//! Dropout with the masks of [`crate::dropout`].

use candle_core::{Result, Tensor};

use super::Dropout;
use crate::cuda::gpu::{Gpu, Module, for_type, launch, module, per_row, pointer};

const DROPOUT: Module = module!("dropout");

pub fn apply(dropout: &Dropout<'_>, x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let out = gpu.uninitialised(x.dtype(), x.shape())?;
    let (rows, columns) = x.dims2()?;
    if rows == 0 {
        return Ok(out);
    }
    let keys = gpu.upload(dropout.rows)?;
    launch!(
        gpu,
        DROPOUT,
        for_type!("dropout", x.dtype()),
        per_row(rows, columns),
        (
            pointer(x)?,
            pointer(&keys)?,
            pointer(&out)?,
            dropout.module,
            dropout.threshold(),
            1.0 / (1.0 - dropout.rate),
            columns as i32
        )
    );
    Ok(out)
}
