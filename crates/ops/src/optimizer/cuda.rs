//! Updates and norms of many tensors in one launch each.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{DType, Result, Tensor, bail};

use crate::cuda::Gpu;
use crate::cuda::gpu::pointer;
use crate::cuda::kernel::{Array, In, Int, Out, blocks, by_value, kernels, write};

kernels! { "optimizer":
    fn adamw_step(entries: In<Entry>[n], n: Int, c: Coefficients);
    fn sum_squares[blocks](entries: In<Entry>[n], n: Int, sums: Out<f64>[blocks]);
}

/// Elements of one block, as in optimizer.cu.
const CHUNK: usize = 1 << 16;
const THREADS: u32 = 512;

/// A parameter with its moments and its gradient, all f32 of one shape.
pub struct Update<'a> {
    pub values: &'a Tensor,
    pub exp_avg: &'a Tensor,
    pub exp_avg_sq: &'a Tensor,
    pub gradient: &'a Tensor,
    /// What decay leaves of a parameter.
    pub keep: f32,
    pub minus_step_size: f32,
}

/// What an update does to every tensor alike; see optimizer.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    pub scale: f32,
    pub mix: f32,
    pub towards: i32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub correction2: f32,
    pub eps: f32,
}

// SAFETY: seven words, laid out as in optimizer.cu.
unsafe impl DeviceRepr for Coefficients {}
by_value!(Coefficients);

/// As in optimizer.cu.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    values: u64,
    exp_avg: u64,
    exp_avg_sq: u64,
    gradient: u64,
    size: u64,
    first_block: u64,
    keep: f32,
    minus_step_size: f32,
}

// SAFETY: eight-byte words, laid out as in optimizer.cu.
unsafe impl DeviceRepr for Entry {}

/// AdamW's update of every tensor, where it lies.
///
/// # Errors
/// Tensors that are not f32, contiguous and of their parameter's size.
pub fn adamw(updates: &[Update<'_>], coefficients: Coefficients) -> Result<()> {
    let Some(first) = updates.first() else {
        return Ok(());
    };
    let gpu = Gpu::of(first.values)?;
    let mut entries = Vec::with_capacity(updates.len());
    for update in updates {
        let size = update.values.elem_count();
        let all = [
            update.values,
            update.exp_avg,
            update.exp_avg_sq,
            update.gradient,
        ];
        if all
            .iter()
            .any(|tensor| tensor.dtype() != DType::F32 || tensor.elem_count() != size)
        {
            bail!("adamw: parameter, moments and gradient differ in type or size");
        }
        entries.push(Entry {
            values: pointer(update.values)?,
            exp_avg: pointer(update.exp_avg)?,
            exp_avg_sq: pointer(update.exp_avg_sq)?,
            gradient: pointer(update.gradient)?,
            size: size as u64,
            keep: update.keep,
            minus_step_size: update.minus_step_size,
            ..Entry::default()
        });
    }
    let blocks = numbered(&mut entries)?;
    let table = Array::upload(&gpu, &entries)?;
    adamw_step(&gpu, blocks, table.read()?, entries.len(), coefficients)
}

/// Σ of squares of each tensor, in f64. Waits for the GPU.
///
/// # Errors
/// A tensor that is not f32 and contiguous.
pub fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else {
        return Ok(Vec::new());
    };
    let gpu = Gpu::of(first)?;
    let mut entries = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        if tensor.dtype() != DType::F32 {
            bail!("a gradient of {:?}", tensor.dtype());
        }
        entries.push(Entry {
            gradient: pointer(tensor)?,
            size: tensor.elem_count() as u64,
            ..Entry::default()
        });
    }
    let blocks = numbered(&mut entries)?;
    let table = Array::upload(&gpu, &entries)?;
    let sums = gpu.uninitialised(DType::F64, blocks.grid_dim.0 as usize)?;
    let n = entries.len();
    sum_squares(&gpu, blocks, table.read()?, n, write(&sums)?)?;
    let sums = sums.to_vec1::<f64>()?;
    let ends = entries.iter().skip(1).map(|entry| entry.first_block);
    let ends = ends.chain([sums.len() as u64]);
    let of_entry =
        |(entry, end): (&Entry, u64)| sums[entry.first_block as usize..end as usize].iter().sum();
    Ok(entries.iter().zip(ends).map(of_entry).collect())
}

/// Gives every entry its blocks, one at least.
fn numbered(entries: &mut [Entry]) -> Result<LaunchConfig> {
    let mut n = 0;
    for entry in entries {
        entry.first_block = n as u64;
        n += (entry.size as usize).div_ceil(CHUNK).max(1);
    }
    blocks(n, THREADS)
}
