//! Sums of matrix products, through cuBLAS, and of columns.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{DType, Result, Tensor, bail};

use super::{Finish, Form, Product};
use crate::cuda::gpu::{
    Gpu, Module, for_type, launch, module, pairs, per_row, pointer, pointer_or_null,
};
use crate::element::cuda::cast;

const LINEAR: Module = module!("linear");

/// Rows of a column sum that one block adds up.
const ROWS_EACH: usize = 64;

/// See [`crate::linear::products`], which has checked the sizes [M, N].
pub fn products(terms: &[Product<'_>], how: &Finish<'_>, [m, n]: [usize; 2]) -> Result<Tensor> {
    let gpu = Gpu::of(terms[0].a)?;
    let out = gpu.uninitialised(how.dtype, (m, n))?;
    if how.add.is_some_and(|add| add.dtype() != how.dtype) {
        bail!("products: an addend of another type than the result");
    }
    // A scale per column multiplies the sum, so what is added can only come after it.
    let begin = match (how.column_scale, how.bias, how.add) {
        (None, None, None) | (Some(_), _, _) => false,
        (None, None, Some(add)) => {
            gpu.copy(add, &out)?;
            true
        }
        (None, bias, add) => {
            finish(&gpu, None, [None, bias], add, &out)?;
            true
        }
    };
    // The shallowest first: what it gives is read in the deepest product's own time, and added in f32 there.
    let mut ordered = terms.iter().collect::<Vec<_>>();
    ordered.sort_by_key(|term| term.sizes().map_or(0, |[_, _, k]| k));
    for (index, term) in ordered.into_iter().enumerate() {
        multiply(&gpu, term, how.scale, begin || index > 0, &out)?;
    }
    if how.column_scale.is_some() {
        finish(
            &gpu,
            Some(&out),
            [how.column_scale, how.bias],
            how.add,
            &out,
        )?;
    }
    Ok(out)
}

/// out = scale · a · b, or added to it; `out` [M, N] f32 or bf16.
pub fn multiply(
    gpu: &Gpu,
    term: &Product<'_>,
    scale: f32,
    accumulate: bool,
    out: &Tensor,
) -> Result<()> {
    let [m, n, k] = term.sizes()?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let narrow = [out.dtype(), term.a.dtype(), term.b.dtype()].contains(&DType::BF16);
    let operands = if narrow { DType::BF16 } else { DType::F32 };
    let (a, b) = (cast(gpu, term.a, operands)?, cast(gpu, term.b, operands)?);
    // Row-major [M, N] is column-major [N, M]: the operands change places, and what is stored across its depth is
    // taken as it lies.
    let (as_is, turned) = (
        sys::cublasOperation_t::CUBLAS_OP_N,
        sys::cublasOperation_t::CUBLAS_OP_T,
    );
    let (b_op, b_columns) = match term.form {
        Form::Nt => (turned, k),
        Form::Nn | Form::Tn => (as_is, n),
    };
    let (a_op, a_columns) = match term.form {
        Form::Nt | Form::Nn => (as_is, k),
        Form::Tn => (turned, m),
    };
    let beta = if accumulate { 1f32 } else { 0f32 };
    let blas = gpu.blas();
    // SAFETY: the sizes are the tensors', which live until the call is in the stream.
    unsafe {
        gemm_ex(
            *blas.handle(),
            b_op,
            a_op,
            size(n)?,
            size(m)?,
            size(k)?,
            (&raw const scale).cast::<c_void>(),
            pointer(&b)? as *const c_void,
            kind(operands),
            size(b_columns)?,
            pointer(&a)? as *const c_void,
            kind(operands),
            size(a_columns)?,
            (&raw const beta).cast::<c_void>(),
            pointer(out)? as *mut c_void,
            kind(out.dtype()),
            size(n)?,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()
}

/// `scale[c] · x + bias[c] + add` into `out` [.., C], which may be `x`; nothing for what is not given.
pub fn finish(
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
        LINEAR,
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
                LINEAR,
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

fn kind(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        _ => sys::cudaDataType::CUDA_R_32F,
    }
}

fn size(n: usize) -> Result<i32> {
    match i32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("a product of size {n} is too large for cuBLAS"),
    }
}
