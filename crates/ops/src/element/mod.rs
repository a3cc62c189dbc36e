//! The two number types activations and frozen weights come in.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use candle_core::{Device, Result, Shape, Storage, Tensor, bail};
use half::bf16;

/// Numbers as they are stored.
#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// The values from `start` on.
    pub(crate) fn tail(self, start: usize) -> Self {
        match self {
            Values::F32(values) => Values::F32(&values[start..]),
            Values::Bf16(values) => Values::Bf16(&values[start..]),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The contiguous values behind a CPU tensor's storage.
    pub(crate) fn of(storage: &'a Storage, tensor: &Tensor) -> Result<Self> {
        let Some((start, end)) = tensor.layout().contiguous_offsets() else {
            bail!(
                "stillroom ops take contiguous tensors, got strides {:?}",
                tensor.stride()
            );
        };
        match storage {
            Storage::Cpu(candle_core::CpuStorage::F32(values)) => {
                Ok(Values::F32(&values[start..end]))
            }
            Storage::Cpu(candle_core::CpuStorage::BF16(values)) => {
                Ok(Values::Bf16(&values[start..end]))
            }
            Storage::Cpu(_) => bail!("stillroom ops take f32 and bf16, got {:?}", tensor.dtype()),
            _ => bail!("stillroom ops run on the CPU in this build"),
        }
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Values::Bf16(values)
    }
}

/// f32 or bf16. Arithmetic is f32; what is stored is rounded to nearest even.
pub trait Element: Copy + Default + Send + Sync + candle_core::WithDType {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    fn to_bf16(self) -> bf16;
    /// The values as this type, where they are.
    fn slice<'a>(values: &Values<'a>) -> Option<&'a [Self]>;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        <bf16 as Element>::narrow(self)
    }

    fn slice<'a>(values: &Values<'a>) -> Option<&'a [Self]> {
        match values {
            Values::F32(values) => Some(values),
            Values::Bf16(_) => None,
        }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without `half`'s branches, so that loops over it vectorise. A NaN stays one.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
    }

    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        self
    }

    fn slice<'a>(values: &Values<'a>) -> Option<&'a [Self]> {
        match values {
            Values::F32(_) => None,
            Values::Bf16(values) => Some(values),
        }
    }
}

/// Runs `f` over the contiguous values of a CPU tensor, without a copy.
pub(crate) fn with<T>(tensor: &Tensor, f: impl FnOnce(Values<'_>) -> Result<T>) -> Result<T> {
    let (storage, _) = tensor.storage_and_layout();
    f(Values::of(&storage, tensor)?)
}

/// [`with`] for tensors whose type is known.
pub(crate) fn with_slices<E: Element, T, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[E]; N]) -> Result<T>,
) -> Result<T> {
    let stored = tensors.map(|tensor| tensor.storage_and_layout().0);
    let mut slices: [&[E]; N] = [&[]; N];
    for ((slice, storage), tensor) in slices.iter_mut().zip(&stored).zip(tensors) {
        match E::slice(&Values::of(storage, tensor)?) {
            Some(values) => *slice = values,
            None => bail!("expected {:?}, got {:?}", E::DTYPE, tensor.dtype()),
        }
    }
    f(slices)
}

pub(crate) fn tensor<E: Element>(data: Vec<E>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}

/// Calls a function generic over [`Element`] for a tensor's type.
macro_rules! by_element {
    ($dtype:expr, $f:ident($($argument:expr),* $(,)?)) => {
        match $dtype {
            candle_core::DType::F32 => $f::<f32>($($argument),*),
            candle_core::DType::BF16 => $f::<half::bf16>($($argument),*),
            other => candle_core::bail!("stillroom ops take f32 and bf16, got {other:?}"),
        }
    };
}
pub(crate) use by_element;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_as_half_does() {
        for bits in (0..=u32::MAX).step_by(65_537 / 3) {
            let value = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Element>::narrow(value), bf16::from_f32(value));
            assert!(
                ours == theirs || (value.is_nan() && ours.is_nan()),
                "{value}"
            );
        }
    }
}
