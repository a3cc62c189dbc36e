//! Rows by their ids, and sums of tensors.

use candle_core::{DType, Result, Tensor, bail};
use half::bf16;

use crate::cuda::kernel::{
    Array, In, Int, Out, blocks, kernels, per_row, read, spread, word, write,
};
use crate::cuda::{Gpu, THREADS};
use crate::element::by_element;
use crate::linear::cuda::finish;

// What an id names is the caller's to check: ids lie on the GPU.
kernels! { "rows":
    fn gather_rows<E>[rows](
        x: In<E>,
        ids: In<u32>[rows],
        out: Out<E>[rows * columns],
        columns: Int,
    );
    fn gather_rows_narrowed[rows](
        x: In<f32>,
        ids: In<u32>[rows],
        out: Out<bf16>[rows * columns],
        columns: Int,
    );
    fn scatter_rows<E>[rows](
        x: In<E>[rows * columns],
        ids: In<u32>[rows],
        out: Out<E>,
        columns: Int,
    );
    fn add_rows<E>[distinct](
        x: In<E>,
        rows: In<u32>,
        ids: In<u32>[distinct],
        starts: In<u32>[distinct + 1],
        sum: Out<f32>,
        columns: Int,
    );
    fn add_in_place(sum: Out<f32>[size], x: In<f32>[size], size: usize);
}

/// x + y.
pub fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    same_shape(x, y)?;
    let out = gpu.uninitialised(x.dtype(), x.shape())?;
    finish(&gpu, Some(x), [None, None], Some(y), &out)?;
    Ok(out)
}

/// Rows `ids` of x, as `dtype`.
pub fn gather(x: &Tensor, ids: &[u32], dtype: DType) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, columns) = (ids.len(), x.dim(1)?);
    let out = gpu.uninitialised(dtype, (rows, columns))?;
    if rows == 0 {
        return Ok(out);
    }
    let each = per_row(rows, columns)?;
    let ids = Array::upload(&gpu, ids)?;
    match (x.dtype(), dtype) {
        (DType::F32, DType::BF16) => {
            gather_rows_narrowed(&gpu, each, read(x)?, ids.read()?, write(&out)?, columns)
        }
        (from, to) if from == to => by_element!(
            from,
            gather_rows(&gpu, each, read(x)?, ids.read()?, write(&out)?, columns)
        ),
        (from, to) => bail!("rows of {from:?} as {to:?}"),
    }?;
    Ok(out)
}

/// `n` rows, of which `ids`, distinct, are those of x and the others zero.
pub fn scatter(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, columns) = (ids.len(), x.dim(1)?);
    let out = gpu.uninitialised(x.dtype(), (n, columns))?;
    gpu.zero(&out)?;
    if rows == 0 {
        return Ok(out);
    }
    let each = per_row(rows, columns)?;
    let ids = Array::upload(&gpu, ids)?;
    by_element!(
        x.dtype(),
        scatter_rows(&gpu, each, read(x)?, ids.read()?, write(&out)?, columns)
    )?;
    Ok(out)
}

/// f32 [n, C]: the sums of x's rows that have the same id.
pub fn sum_by_id(x: &Tensor, ids: &[u32], n: usize) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let columns = x.dim(1)?;
    let out = gpu.uninitialised(DType::F32, (n, columns))?;
    gpu.zero(&out)?;
    let mut rows: Vec<u32> = (0..word(ids.len())?).collect();
    rows.sort_by_key(|&row| ids[row as usize]);
    let (mut distinct, mut starts) = (Vec::new(), Vec::new());
    for (at, &row) in rows.iter().enumerate() {
        let id = ids[row as usize];
        if distinct.last() != Some(&id) {
            distinct.push(id);
            starts.push(word(at)?);
        }
    }
    starts.push(word(rows.len())?);
    if distinct.is_empty() {
        return Ok(out);
    }
    let each = blocks(distinct.len(), THREADS)?;
    let rows = Array::upload(&gpu, &rows)?;
    let distinct = Array::upload(&gpu, &distinct)?;
    let starts = Array::upload(&gpu, &starts)?;
    by_element!(
        x.dtype(),
        add_rows(
            &gpu,
            each,
            read(x)?,
            rows.read()?,
            distinct.read()?,
            starts.read()?,
            write(&out)?,
            columns,
        )
    )?;
    Ok(out)
}

/// sum += x, where it lies; f32.
pub fn add(sum: &Tensor, x: &Tensor) -> Result<()> {
    let (gpu, size) = (Gpu::of(sum)?, sum.elem_count());
    same_shape(sum, x)?;
    add_in_place(&gpu, spread(size)?, write(sum)?, read(x)?, size)
}

/// As candle asks for on the CPU.
fn same_shape(x: &Tensor, y: &Tensor) -> Result<()> {
    if x.dims() != y.dims() {
        bail!("sum: {:?} and {:?}", x.shape(), y.shape());
    }
    Ok(())
}
