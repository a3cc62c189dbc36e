//! From candle tensors to plain slices and back.

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// The contiguous f32 slice behind a custom op's argument.
pub fn of<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else {
        bail!("stillroom ops take f32, got {:?}", dtype(storage));
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!(
            "stillroom ops take contiguous tensors, got strides {:?}",
            layout.stride()
        ),
    }
}

fn dtype(storage: &CpuStorage) -> candle_core::DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// Runs `f` over the contiguous f32 slice of a CPU tensor, without a copy.
pub fn with<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(of(storage, layout)?),
        _ => bail!("stillroom ops run on the CPU in this build"),
    }
}

pub fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}

pub fn output(data: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(data), shape.into())
}

/// Rows and columns of a rank-2 layout.
pub fn dims2(layout: &Layout) -> Result<(usize, usize)> {
    layout.shape().dims2()
}
