//! Rows of a matrix, by their ids.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{DType, Result, Tensor};

use crate::device::on_gpu;

/// Rows `ids` of `x`, as `dtype`: an embedding.
///
/// # Shapes
/// x [V, D] → [N, D].
///
/// # Errors
/// On the CPU an id that is not below V; on a GPU that is the caller's to check.
pub fn gather(x: &Tensor, ids: &[u32], dtype: DType) -> Result<Tensor> {
    on_gpu!(x => cuda::gather(x, ids, dtype));
    x.index_select(&Tensor::new(ids, x.device())?, 0)?
        .to_dtype(dtype)
}

/// `n` rows, of which `ids`, distinct, are those of `x` and the others zero: the transpose of [`gather`].
///
/// # Shapes
/// x [S, D] → [n, D].
pub fn scatter(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    on_gpu!(x => cuda::scatter(x, ids, n));
    let ids = Tensor::new(ids, x.device())?;
    Tensor::zeros((n, x.dim(1)?), x.dtype(), x.device())?.index_add(&ids, x, 0)
}

/// The sums of the rows that have the same id: an embedding's gradient.
///
/// # Shapes
/// x [N, D] → f32 [n, D].
pub fn sum_by_id(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    on_gpu!(x => cuda::sum_by_id(x, ids, n));
    let ids = Tensor::new(ids, x.device())?;
    let zeros = Tensor::zeros((n, x.dim(1)?), DType::F32, x.device())?;
    zeros.index_add(&ids, &x.to_dtype(DType::F32)?, 0)
}

/// x + y, of one shape and type.
pub fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    on_gpu!(x => cuda::sum(x, y));
    x + y
}

/// sum + x, f32; on a GPU where `sum` lies.
pub fn add(sum: Tensor, x: &Tensor) -> Result<Tensor> {
    on_gpu!(sum => cuda::add(&sum, x).map(|()| sum));
    sum + x
}
