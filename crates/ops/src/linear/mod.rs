//! Linear layers as sums of matrix products: what is frozen gets no gradient computed, and a layer with its
//! adapter, or the gradient of an input that several layers share, is rounded once.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::device::on_gpu;
use crate::element::{by_element, tensor, with_slices};
use crate::gemm::Arithmetic;
use crate::packed::PackedMatrix;
use cpu::{column_sums, finished};

/// How the operands of a product lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// a [M, K] · b [N, K]ᵀ: a layer's forward.
    Nt,
    /// a [M, K] · b [K, N]: the gradient of its input.
    Nn,
    /// a [K, M]ᵀ · b [K, N]: the gradient of its weight.
    Tn,
}

/// One summand of [`products`]; f32 or bf16 operands, contiguous.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    pub form: Form,
    pub arithmetic: Arithmetic,
}

/// What becomes of the sum, in f32 before it is stored: `scale · column_scale ∘ sum + bias + add`.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    pub scale: f32,
    /// f32 [N], one factor per output column.
    pub column_scale: Option<&'a Tensor>,
    /// f32 [N].
    pub bias: Option<&'a Tensor>,
    /// [M, N].
    pub add: Option<&'a Tensor>,
    /// F32 or BF16.
    pub dtype: DType,
}

impl Finish<'_> {
    /// The sum alone.
    pub fn plain(dtype: DType) -> Self {
        Self {
            scale: 1.0,
            column_scale: None,
            bias: None,
            add: None,
            dtype,
        }
    }
}

/// Σ of matrix products, finished in one pass.
///
/// # Shapes
/// Every product gives [M, N]; so does the result, of `finish.dtype`.
///
/// # Errors
/// Operands whose sizes do not go together, are not contiguous, or live on a device without an implementation.
pub fn products(terms: &[Product<'_>], finish: Finish<'_>) -> Result<Tensor> {
    let Some(first) = terms.first() else {
        bail!("products: nothing to sum");
    };
    let [m, n, _] = first.sizes()?;
    for term in terms {
        let [rows, columns, _] = term.sizes()?;
        if (rows, columns) != (m, n) {
            bail!("products: [{rows}, {columns}] is added to [{m}, {n}]");
        }
    }
    if finish.add.is_some_and(|add| add.dims() != [m, n])
        || [finish.bias, finish.column_scale]
            .into_iter()
            .flatten()
            .any(|row| row.dims() != [n])
    {
        bail!("products: bias, scale or addend do not fit [{m}, {n}]");
    }
    on_gpu!(first.a => cuda::products(terms, &finish, [m, n]));
    by_element!(finish.dtype, finished(terms, &finish, [m, n]))
}

impl Product<'_> {
    /// [M, N, K]
    pub(crate) fn sizes(&self) -> Result<[usize; 3]> {
        let ((a0, a1), (b0, b1)) = (self.a.dims2()?, self.b.dims2()?);
        let (sizes, depth) = match self.form {
            Form::Nt => ([a0, b0, a1], b1),
            Form::Nn => ([a0, b1, a1], b0),
            Form::Tn => ([a1, b1, a0], b0),
        };
        if sizes[2] != depth {
            bail!(
                "linear: {:?} against {:?} as {:?}",
                self.a.dims(),
                self.b.dims(),
                self.form
            );
        }
        Ok(sizes)
    }
}

/// The type of what passes between the two factors of an adapter on inputs like `x`: f32, but on a GPU that of `x`,
/// whose products round it to that anyway.
#[must_use]
pub fn low_rank_dtype(x: &Tensor) -> DType {
    if x.device().is_cuda() {
        x.dtype()
    } else {
        DType::F32
    }
}

/// tallᵀ · low: the gradient of an adapter's B from that of its output.
///
/// # Shapes
/// tall [N, O], low [N, r], r small → f32 [O, r].
pub fn tall_gradient(tall: &Tensor, low: &Tensor) -> Result<Tensor> {
    let term = |a, b| Product {
        a,
        b,
        form: Form::Tn,
        arithmetic: Arithmetic::F32,
    };
    if tall.device().is_cuda() {
        return products(&[term(tall, low)], Finish::plain(DType::F32));
    }
    // The transpose: its rows are few, and the tall operand lies as it is read.
    products(&[term(low, tall)], Finish::plain(DType::F32))?
        .t()?
        .contiguous()
}

/// x · weightᵀ over a packed weight: each row's bits are its own, see [`crate::packed`].
///
/// # Shapes
/// x [N, I] f32 → [N, O].
pub fn packed(x: &Tensor, weight: &Arc<PackedMatrix>) -> Result<Tensor> {
    let (n, i) = x.dims2()?;
    if i != weight.k() {
        bail!(
            "linear: input of {n} x {i} against a weight of {} columns",
            weight.k()
        );
    }
    with_slices([x], |[x]: [&[f32]; 1]| {
        tensor(weight.apply(x, n), (n, weight.n()))
    })
}

/// Σ over rows: the gradient of a bias.
///
/// # Shapes
/// x [N, O] → f32 [O].
pub fn column_sum(x: &Tensor) -> Result<Tensor> {
    columns(x, None)
}

/// Σ over rows of x ∘ y, column by column.
///
/// # Shapes
/// x and y [N, O], of one dtype → f32 [O].
pub fn column_dot(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() || x.dtype() != y.dtype() {
        bail!("column-dot: {:?} against {:?}", x.shape(), y.shape());
    }
    columns(x, Some(y))
}

fn columns(x: &Tensor, y: Option<&Tensor>) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    on_gpu!(x => cuda::column_sums(x, y, None));
    let sums = by_element!(x.dtype(), column_sums(x, y, width))?;
    Tensor::from_vec(sums, width, &Device::Cpu)
}
