//! Dropout with the masks of [`crate::dropout`].

use candle_core::{Result, Tensor};

use super::gpu::{Gpu, for_type, launch, pointer, spread};
use super::rows::ELEMENTWISE;
use crate::dropout::Dropout;

pub fn apply(dropout: &Dropout<'_>, x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let out = gpu.uninitialised(x.dtype(), x.shape())?;
    let (columns, size) = (x.dim(1)?, x.elem_count());
    let keys = gpu.upload(dropout.rows)?;
    launch!(
        gpu,
        ELEMENTWISE,
        for_type!("dropout", x.dtype()),
        spread(size),
        (
            pointer(x)?,
            pointer(&keys)?,
            pointer(&out)?,
            dropout.module,
            dropout.threshold(),
            1.0 / (1.0 - dropout.rate),
            columns as i32,
            size
        )
    );
    Ok(out)
}
