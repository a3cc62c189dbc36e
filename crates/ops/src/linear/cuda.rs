//! Sums of matrix products, through cuBLAS, and of columns.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys};
use candle_core::{DType, Result, Tensor, bail};

use super::{Finish, Form, Product};
use crate::cuda::Gpu;
use crate::cuda::gpu::pointer;
use crate::cuda::kernel::{
    In, Int, MOST_ROWS, Out, grid, int, kernels, pairs, per_row, read, read_some, write,
};
use crate::element::by_element;
use crate::element::cuda::cast;

kernels! { "linear":
    fn finish_rows<E>[rows](
        x: Option<In<E>>[rows * columns],
        scale: Option<In<f32>>[columns],
        bias: Option<In<f32>>[columns],
        add: Option<In<E>>[rows * columns],
        out: Out<E>[rows * columns],
        columns: Int,
    );
    fn sum_columns<E>[_, chunks](
        x: In<E>[rows * columns],
        y: Option<In<E>>[rows * columns],
        row_scale: Option<In<f32>>[rows],
        partial: Out<f32>[chunks * columns],
        columns: Int,
        rows: Int,
        rows_each: Int,
    );
}

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
            int(n)?,
            int(m)?,
            int(k)?,
            (&raw const scale).cast::<c_void>(),
            pointer(&b)? as *const c_void,
            kind(operands),
            int(b_columns)?,
            pointer(&a)? as *const c_void,
            kind(operands),
            int(a_columns)?,
            (&raw const beta).cast::<c_void>(),
            pointer(out)? as *mut c_void,
            kind(out.dtype()),
            int(n)?,
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
    by_element!(
        out.dtype(),
        finish_rows(
            gpu,
            per_row(rows, columns)?,
            read_some(x)?,
            read_some(scale)?,
            read_some(bias)?,
            read_some(add)?,
            write(out)?,
            columns,
        )
    )
}

/// f32 [C]: Σ over rows of x, x ∘ y, or x ∘ y times a factor per row.
pub fn column_sums(x: &Tensor, y: Option<&Tensor>, row_scale: Option<&Tensor>) -> Result<Tensor> {
    let gpu = Gpu::of(x)?;
    let (rows, columns) = x.dims2()?;
    let sums =
        |x: &Tensor, y: Option<&Tensor>, scale: Option<&Tensor>, rows: usize, each: usize| {
            let chunks = rows.div_ceil(each).max(1);
            let out = gpu.uninitialised(DType::F32, (chunks, columns))?;
            by_element!(
                x.dtype(),
                sum_columns(
                    &gpu,
                    grid(columns.div_ceil(128), chunks, 128)?,
                    read(x)?,
                    read_some(y)?,
                    read_some(scale)?,
                    write(&out)?,
                    columns,
                    rows,
                    each,
                )
            )?;
            Result::Ok(out)
        };
    let each = ROWS_EACH.max(rows.div_ceil(MOST_ROWS));
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
