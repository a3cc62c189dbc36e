//! Rows by their ids, and sums of tensors.

use candle_core::{DType, Result, Tensor};

use crate::cuda::gpu::{Gpu, Module, blocks, for_type, launch, module, per_row, pointer, spread};
use crate::linear::cuda::finish;

const ROWS: Module = module!("rows");

/// x + y.
pub fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let out = gpu.uninitialised(x.dtype(), x.shape())?;
    finish(&gpu, Some(x), [None, None], Some(y), &out)?;
    Ok(out)
}

/// Rows `ids` of x, as `dtype`.
pub fn gather(x: &Tensor, ids: &[u32], dtype: DType) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let columns = x.dim(1)?;
    let out = gpu.uninitialised(dtype, (ids.len(), columns))?;
    let name = match (x.dtype(), dtype) {
        (DType::F32, DType::BF16) => "gather_rows_narrowed",
        (from, to) if from == to => for_type!("gather_rows", from),
        (from, to) => candle_core::bail!("rows of {from:?} as {to:?}"),
    };
    by_id(&gpu, name, x, ids, &out)?;
    Ok(out)
}

/// `n` rows, of which `ids`, distinct, are those of x and the others zero.
pub fn scatter(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let columns = x.dim(1)?;
    let out = gpu.uninitialised(x.dtype(), (n, columns))?;
    gpu.zero(&out)?;
    by_id(&gpu, for_type!("scatter_rows", x.dtype()), x, ids, &out)?;
    Ok(out)
}

/// A kernel that takes rows of x to rows of `out`, one for every id.
fn by_id(gpu: &Gpu, name: &'static str, x: &Tensor, ids: &[u32], out: &Tensor) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let (rows, columns, ids) = (ids.len(), x.dim(1)?, gpu.upload(ids)?);
    launch!(
        gpu,
        ROWS,
        name,
        per_row(rows, columns),
        (pointer(x)?, pointer(&ids)?, pointer(out)?, columns as i32)
    );
    Ok(())
}

/// f32 [n, C]: the sums of x's rows that have the same id.
pub fn sum_by_id(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let columns = x.dim(1)?;
    let out = gpu.uninitialised(DType::F32, (n, columns))?;
    gpu.zero(&out)?;
    let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
    rows.sort_by_key(|&row| ids[row as usize]);
    let (mut distinct, mut starts) = (Vec::new(), Vec::new());
    for (at, &row) in rows.iter().enumerate() {
        let id = ids[row as usize];
        if distinct.last() != Some(&id) {
            distinct.push(id);
            starts.push(at as u32);
        }
    }
    starts.push(rows.len() as u32);
    if distinct.is_empty() {
        return Ok(out);
    }
    let each = blocks(distinct.len(), crate::cuda::THREADS);
    let (rows, distinct, starts) = (
        gpu.upload(&rows)?,
        gpu.upload(&distinct)?,
        gpu.upload(&starts)?,
    );
    launch!(
        gpu,
        ROWS,
        for_type!("add_rows", x.dtype()),
        each,
        (
            pointer(x)?,
            pointer(&rows)?,
            pointer(&distinct)?,
            pointer(&starts)?,
            pointer(&out)?,
            columns as i32
        )
    );
    Ok(out)
}

/// sum += x, where it lies; f32.
pub fn add_in_place(sum: &Tensor, x: &Tensor) -> Result<()> {
    let (gpu, size) = (Gpu::of(sum)?, sum.elem_count());
    launch!(
        gpu,
        ROWS,
        "add_in_place",
        spread(size),
        (pointer(sum)?, pointer(x)?, size)
    );
    Ok(())
}
