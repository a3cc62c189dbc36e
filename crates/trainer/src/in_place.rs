//! A CPU tensor's f32 values where they lie, to read and to write.

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// Runs `f` over a tensor's values, in row-major order; only a strided tensor is copied.
pub(crate) fn read<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => f(&values[start..end]),
        _ => bail!("training holds f32 tensors on the CPU in this build"),
    }
}

/// Runs `f` over a contiguous tensor's values and keeps what it makes of them.
///
/// `tensor` is locked meanwhile: `f` must not read it, nor what shares its memory.
pub(crate) fn write(tensor: &Tensor, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    tensor.inplace_op1(&Write(Cell::new(Some(f))))
}

/// candle lends a tensor's storage to custom ops only.
struct Write<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets(), self.0.take()) {
            (CpuStorage::F32(values), Some((start, end)), Some(f)) => f(&mut values[start..end]),
            _ => bail!("training holds contiguous f32 tensors"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn values_are_read_in_order_and_written_where_they_lie() {
        let tensor = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let transposed = read(&tensor.t().unwrap(), |values| Ok(values.to_vec())).unwrap();
        assert_eq!(transposed, [1.0, 3.0, 2.0, 4.0]);
        let variable = Var::from_tensor(&tensor).unwrap();
        let double = |values: &mut [f32]| {
            values.iter_mut().for_each(|value| *value *= 2.0);
            Ok(())
        };
        write(variable.as_tensor(), double).unwrap();
        assert_eq!(variable.to_vec2::<f32>().unwrap(), [[2.0, 4.0], [6.0, 8.0]]);
        assert!(write(&tensor.t().unwrap(), double).is_err());
        let wide = tensor.to_dtype(DType::F64).unwrap();
        assert!(write(&wide, double).is_err());
        assert!(read(&wide, |_| Ok(())).is_err());
    }
}
