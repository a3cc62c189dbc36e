//! What is done to every element, row or column alike.

use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{DType, Result, Tensor};

use crate::cuda::gpu::{
    Gpu, Module, blocks, for_type, launch, module, per_row, pointer, pointer_or_null, spread,
};

pub(crate) const ELEMENTWISE: Module = module!("elementwise");

/// Rows of a column sum that one block adds up.
const ROWS_EACH: usize = 64;

pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(gate)?;
    let out = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let pairs = pairs(gate)?;
    launch!(
        gpu,
        ELEMENTWISE,
        for_type!("swiglu", gate.dtype()),
        spread(pairs),
        (pointer(gate)?, pointer(up)?, pointer(&out)?, pairs)
    );
    Ok(out)
}

pub fn swiglu_backward(gate: &Tensor, up: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(gate)?;
    let d_gate = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let d_up = gpu.uninitialised(gate.dtype(), gate.shape())?;
    let pairs = pairs(gate)?;
    launch!(
        gpu,
        ELEMENTWISE,
        for_type!("swiglu_backward", gate.dtype()),
        spread(pairs),
        (
            pointer(gate)?,
            pointer(up)?,
            pointer(grad)?,
            pointer(&d_gate)?,
            pointer(&d_up)?,
            pairs
        )
    );
    Ok((d_gate, d_up))
}

/// How many pairs of neighbours a tensor holds.
pub(crate) fn pairs(tensor: &Tensor) -> Result<usize> {
    let size = tensor.elem_count();
    if !size.is_multiple_of(2) || !tensor.dims().last().is_some_and(|d| d.is_multiple_of(2)) {
        candle_core::bail!(
            "on the GPU rows have an even length, got {:?}",
            tensor.shape()
        );
    }
    Ok(size / 2)
}

/// `scale[c] · x + bias[c] + add` into `out` [.., C], which may be `x`; nothing for what is not given.
pub(crate) fn finish(
    gpu: &Gpu,
    x: Option<&Tensor>,
    [scale, bias]: [Option<&Tensor>; 2],
    add: Option<&Tensor>,
    out: &Tensor,
) -> Result<()> {
    let (rows, columns) = out.dims2()?;
    pairs(out)?;
    if rows == 0 {
        return Ok(());
    }
    launch!(
        gpu,
        ELEMENTWISE,
        for_type!("finish", out.dtype()),
        per_row(rows, columns),
        (
            pointer_or_null(x)?,
            pointer_or_null(scale)?,
            pointer_or_null(bias)?,
            pointer_or_null(add)?,
            pointer(out)?,
            columns as i32
        )
    );
    Ok(())
}

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
        ELEMENTWISE,
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
        ELEMENTWISE,
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
        ELEMENTWISE,
        "add_in_place",
        spread(size),
        (pointer(sum)?, pointer(x)?, size)
    );
    Ok(())
}

/// f32 [C]: Σ over rows of x, x ∘ y, or x ∘ y times a factor per row.
pub fn column_sums(x: &Tensor, y: Option<&Tensor>, row_scale: Option<&Tensor>) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, columns) = x.dims2()?;
    let sums =
        |x: &Tensor, y: Option<&Tensor>, scale: Option<&Tensor>, rows: usize, each: usize| {
            let chunks = rows.div_ceil(each).max(1);
            let out = gpu.uninitialised(DType::F32, (chunks, columns))?;
            let across = LaunchConfig {
                grid_dim: (columns.div_ceil(128) as u32, chunks as u32, 1),
                block_dim: (128, 1, 1),
                shared_mem_bytes: 0,
            };
            launch!(
                gpu,
                ELEMENTWISE,
                for_type!("column_sums", x.dtype()),
                across,
                (
                    pointer(x)?,
                    pointer_or_null(y)?,
                    pointer_or_null(scale)?,
                    pointer(&out)?,
                    columns as i32,
                    rows as i32,
                    each as i32
                )
            );
            Result::Ok(out)
        };
    // A grid has no more blocks than that in its second dimension.
    let each = ROWS_EACH.max(rows.div_ceil(65_535));
    let partial = sums(x, y, row_scale, rows, each)?;
    let chunks = partial.dim(0)?;
    sums(&partial, None, None, chunks, chunks.max(1))?.reshape(columns)
}
