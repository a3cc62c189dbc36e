//! Kernels as functions: what a kernel takes is declared once, beside what launches it.

use std::marker::PhantomData;

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{DType, Result, Tensor, WithDType, bail};
use half::bf16;

use super::THREADS;
use super::gpu::{Gpu, pointer};

/// Defines a function for every kernel of a `.cu` file that launches it.
///
/// A declaration has the kernel's name, its arguments in its order, and `<E>` where there is one kernel for each type
/// ([`Variant`]). What stands in brackets behind an argument is how many values the kernel touches there, of the other
/// arguments and of the grid, whose sizes the brackets behind the name give names to. A launch with fewer is an error.
/// `tests/kernels.rs` compares names, order and types with the file.
macro_rules! kernels {
    ($file:literal: $(
        $(#[$meta:meta])*
        fn $name:ident $(<$variant:ident>)? $([$($size:pat_param),+])?
            ($($argument:ident: $kind:ty $([$len:expr])?),* $(,)?);
    )+) => {
        const MODULE: $crate::cuda::gpu::Module = $crate::cuda::gpu::Module {
            name: $file,
            image: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".fatbin")),
        };
        $(
            $(#[$meta])*
            #[allow(clippy::too_many_arguments)]
            fn $name $(<$variant: $crate::cuda::kernel::Variant>)? (
                gpu: &$crate::cuda::gpu::Gpu,
                blocks: candle_core::cuda_backend::cudarc::driver::LaunchConfig,
                $($argument: <$kind as $crate::cuda::kernel::Argument>::Given),*
            ) -> candle_core::Result<()> {
                use candle_core::cuda_backend::WrapErr;
                use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
                use $crate::cuda::kernel::Argument;
                $(
                    let (x, y, _) = blocks.grid_dim;
                    let [$($size,)+ ..] = [x as usize, y as usize, 0];
                )?
                $($(
                    let what = concat!(stringify!($name), ": ", stringify!($argument));
                    <$kind as Argument>::check(&$argument, $len, what)?;
                )?)*
                $(
                    let what = concat!(stringify!($name), ": ", stringify!($argument));
                    let $argument = <$kind as Argument>::raw($argument, what)?;
                )*
                let variant = None $(.or(Some(<$variant as $crate::cuda::kernel::Variant>::SUFFIX)))?;
                let function =
                    gpu.function(&MODULE, stringify!($name), variant, blocks.shared_mem_bytes)?;
                let mut builder = gpu.stream.launch_builder(&function);
                $(builder.arg(&$argument);)*
                // SAFETY: the arguments are the kernel's in number, order and type, which tests/kernels.rs compares, and
                // its memory is as large as the declaration asks for.
                unsafe { builder.launch(blocks) }.w()?;
                Ok(())
            }
        )+
    };
}
pub(crate) use kernels;

/// What one of several kernels of a name is for: `NAME_SUFFIX` in the file.
pub trait Variant {
    const SUFFIX: &'static str;
    /// What its tensors hold.
    type Value;
}

impl Variant for f32 {
    const SUFFIX: &'static str = "f32";
    type Value = f32;
}

impl Variant for bf16 {
    const SUFFIX: &'static str = "bf16";
    type Value = bf16;
}

/// What a kernel can take.
pub trait Argument {
    /// What its launcher is called with.
    type Given;
    /// What the kernel gets.
    type Raw: DeviceRepr;

    /// # Errors
    /// A number that the kernel's type does not hold; `what` names it.
    fn raw(given: Self::Given, what: &str) -> Result<Self::Raw>;

    /// # Errors
    /// Fewer than `len` values in memory.
    fn check(_given: &Self::Given, _len: usize, _what: &str) -> Result<()> {
        Ok(())
    }
}

/// Arguments that are what they are given as.
macro_rules! by_value {
    ($($kind:ty),+) => {
        $(
            impl $crate::cuda::kernel::Argument for $kind {
                type Given = Self;
                type Raw = Self;

                fn raw(given: Self, _what: &str) -> candle_core::Result<Self> {
                    Ok(given)
                }
            }
        )+
    };
}
pub(crate) use by_value;

by_value!(f32, u64, usize);

/// `int` there, a size here.
pub enum Int {}

impl Argument for Int {
    type Given = usize;
    type Raw = i32;

    fn raw(given: usize, what: &str) -> Result<i32> {
        match i32::try_from(given) {
            Ok(n) => Ok(n),
            Err(_) => bail!("{what}: {given} is too large for the GPU"),
        }
    }
}

/// A size as C's `int`.
pub fn int(n: usize) -> Result<i32> {
    Int::raw(n, "size")
}

/// A position or an id in 32 bits.
pub fn word(n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{n} is too large for the GPU"),
    }
}

/// Values that a kernel reads: `const T *` there.
pub struct In<'a, T>(Place<'a, T>);

/// Values that a kernel writes, or reads and writes: `T *` there.
pub struct Out<'a, T>(Place<'a, T>);

struct Place<'a, T> {
    address: u64,
    len: usize,
    values: PhantomData<&'a T>,
}

impl<T> Place<'_, T> {
    fn check(&self, len: usize, what: &str) -> Result<()> {
        if self.len < len {
            bail!("{what} has {} values, and {len} are used", self.len);
        }
        Ok(())
    }
}

/// A pointer, and one that may be null: nothing is then behind it.
macro_rules! pointers {
    ($($kind:ident),+) => {
        $(
            impl<T> Argument for $kind<'_, T> {
                type Given = Self;
                type Raw = u64;

                fn raw(given: Self, _what: &str) -> Result<u64> {
                    Ok(given.0.address)
                }

                fn check(given: &Self, len: usize, what: &str) -> Result<()> {
                    given.0.check(len, what)
                }
            }

            impl<T> Argument for Option<$kind<'_, T>> {
                type Given = Self;
                type Raw = u64;

                fn raw(given: Self, _what: &str) -> Result<u64> {
                    Ok(given.map_or(0, |given| given.0.address))
                }

                fn check(given: &Self, len: usize, what: &str) -> Result<()> {
                    given.as_ref().map_or(Ok(()), |given| given.0.check(len, what))
                }
            }
        )+
    };
}
pointers!(In, Out);

/// # Errors
/// A tensor of another type, not contiguous, or on the CPU.
pub fn read<T: WithDType>(tensor: &Tensor) -> Result<In<'_, T>> {
    Ok(In(place(tensor)?))
}

/// [`read`] where there is a tensor.
pub fn read_some<T: WithDType>(tensor: Option<&Tensor>) -> Result<Option<In<'_, T>>> {
    tensor.map(read).transpose()
}

/// # Errors
/// As of [`read`].
pub fn write<T: WithDType>(tensor: &Tensor) -> Result<Out<'_, T>> {
    Ok(Out(place(tensor)?))
}

/// [`write`] where there is a tensor.
pub fn write_some<T: WithDType>(tensor: Option<&Tensor>) -> Result<Option<Out<'_, T>>> {
    tensor.map(write).transpose()
}

fn place<T: WithDType>(tensor: &Tensor) -> Result<Place<'_, T>> {
    if tensor.dtype() != T::DTYPE {
        bail!("expected {:?}, got {:?}", T::DTYPE, tensor.dtype());
    }
    Ok(Place {
        address: pointer(tensor)?,
        len: tensor.elem_count(),
        values: PhantomData,
    })
}

/// Values in the GPU's memory that are no tensor: of other types, or a kernel's own.
#[derive(Clone, Debug)]
pub struct Array<T> {
    /// Of 4 bytes each.
    words: Tensor,
    len: usize,
    values: PhantomData<T>,
}

impl<T: DeviceRepr> Array<T> {
    /// `len` values that are for a kernel to write.
    pub fn uninitialised(gpu: &Gpu, len: usize) -> Result<Self> {
        let words = (len * size_of::<T>()).div_ceil(4);
        Ok(Self {
            words: gpu.uninitialised(DType::U32, words.max(1))?,
            len,
            values: PhantomData,
        })
    }

    /// `values` on the GPU.
    pub fn upload(gpu: &Gpu, values: &[T]) -> Result<Self> {
        let array = Self::uninitialised(gpu, values.len())?;
        gpu.with_staging(|staging| staging.upload(&gpu.stream, values, array.address()?))?;
        Ok(array)
    }

    pub fn address(&self) -> Result<u64> {
        pointer(&self.words)
    }

    pub fn read(&self) -> Result<In<'_, T>> {
        Ok(In(self.place()?))
    }

    pub fn write(&self) -> Result<Out<'_, T>> {
        Ok(Out(self.place()?))
    }

    fn place(&self) -> Result<Place<'_, T>> {
        Ok(Place {
            address: self.address()?,
            len: self.len,
            values: PhantomData,
        })
    }
}

/// `x` times `y` blocks.
pub fn grid(x: usize, y: usize, threads: u32) -> Result<LaunchConfig> {
    let most = i32::MAX as usize;
    match (u32::try_from(x), u32::try_from(y)) {
        (Ok(columns), Ok(rows)) if x <= most && y <= MOST_ROWS => Ok(LaunchConfig {
            grid_dim: (columns, rows, 1),
            block_dim: (threads, 1, 1),
            shared_mem_bytes: 0,
        }),
        _ => bail!("{x} x {y} blocks are too many for one launch"),
    }
}

/// Blocks that a grid has at most in its second dimension.
pub const MOST_ROWS: usize = 65_535;

/// `n` blocks in a row.
pub fn blocks(n: usize, threads: u32) -> Result<LaunchConfig> {
    grid(n, 1, threads)
}

/// Blocks of [`THREADS`] over `size` elements, of which a thread may take several.
pub fn spread(size: usize) -> Result<LaunchConfig> {
    blocks(size.div_ceil(THREADS as usize).clamp(1, 1 << 16), THREADS)
}

/// A block per row, or as many side by side as `columns` elements keep busy.
pub fn per_row(rows: usize, columns: usize) -> Result<LaunchConfig> {
    let across = columns.div_ceil(4 * THREADS as usize).max(1);
    grid(rows.max(1), across, THREADS)
}

/// How many pairs of neighbours a tensor holds.
pub fn pairs(tensor: &Tensor) -> Result<usize> {
    let size = tensor.elem_count();
    if !size.is_multiple_of(2) || !tensor.dims().last().is_some_and(|d| d.is_multiple_of(2)) {
        bail!(
            "on the GPU rows have an even length, got {:?}",
            tensor.shape()
        );
    }
    Ok(size / 2)
}
