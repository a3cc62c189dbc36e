//! Linear layers: frozen weights get no gradient computed, trainable ones do.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::packed::PackedMatrix;
use crate::{gemm, slices};

/// x · weightᵀ with a weight that is not trained.
///
/// # Shapes
/// x [N, I], weight [O, I] → [N, O].
pub fn frozen(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op1(Frozen {
        weight: weight.clone(),
    })
}

/// x · weightᵀ with a weight that is trained.
///
/// # Shapes
/// x [N, I], weight [O, I] → [N, O].
pub fn trainable(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2(weight, Trainable)
}

/// x · weightᵀ over a packed weight, without a gradient: each row's bits are its own,
/// see [`crate::packed`].
///
/// # Shapes
/// x [N, I] → [N, O].
pub fn packed(x: &Tensor, weight: &Arc<PackedMatrix>) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Packed {
        weight: weight.clone(),
    })
}

struct Frozen {
    weight: Tensor,
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "linear-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        slices::with(&self.weight, |weight| {
            forward(x, layout, weight, &self.weight)
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(if x.track_op() {
            Some(input_gradient(grad, &self.weight)?)
        } else {
            None
        })
    }
}

struct Trainable;

impl CustomOp2 for Trainable {
    fn name(&self) -> &'static str {
        "linear-trainable"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, i) = slices::dims2(x_layout)?;
        let (o, columns) = slices::dims2(weight_layout)?;
        if columns != i {
            bail!("linear: input of {n} x {i} against a weight of {o} x {columns}");
        }
        let out = gemm::nt(
            n,
            o,
            i,
            slices::of(x, x_layout)?,
            slices::of(weight, weight_layout)?,
        );
        Ok(slices::output(out, (n, o)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dx = if x.track_op() {
            Some(input_gradient(&grad, weight)?)
        } else {
            None
        };
        let dw = if weight.track_op() {
            Some(weight_gradient(&grad, x)?)
        } else {
            None
        };
        Ok((dx, dw))
    }
}

struct Packed {
    weight: Arc<PackedMatrix>,
}

impl CustomOp1 for Packed {
    fn name(&self) -> &'static str {
        "linear-packed"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, i) = slices::dims2(layout)?;
        if i != self.weight.k() {
            bail!(
                "linear: input of {n} x {i} against a weight of {} columns",
                self.weight.k()
            );
        }
        let out = self.weight.apply(slices::of(x, layout)?, n);
        Ok(slices::output(out, (n, self.weight.n())))
    }
}

/// x [N, I] · weight [O, I]ᵀ, for ops that hold their weight.
pub(crate) fn forward(
    x: &CpuStorage,
    layout: &Layout,
    weight: &[f32],
    shape: &Tensor,
) -> Result<(CpuStorage, Shape)> {
    let (n, i) = slices::dims2(layout)?;
    let (o, columns) = shape.dims2()?;
    if columns != i {
        bail!("linear: input of {n} x {i} against a weight of {o} x {columns}");
    }
    Ok(slices::output(
        gemm::nt(n, o, i, slices::of(x, layout)?, weight),
        (n, o),
    ))
}

/// grad [N, O] · weight [O, I] → [N, I].
pub(crate) fn input_gradient(grad: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    let (n, o) = grad.dims2()?;
    let (_, i) = weight.dims2()?;
    slices::with(&grad, |g| {
        slices::with(weight, |w| slices::tensor(gemm::nn(n, i, o, g, w), (n, i)))
    })
}

/// gradᵀ [O, N] · x [N, I] → [O, I].
pub(crate) fn weight_gradient(grad: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (n, o) = grad.dims2()?;
    let (_, i) = x.dims2()?;
    let mut out = vec![0.0; o * i];
    slices::with(grad, |g| {
        slices::with(x, |x| {
            gemm::tn_add(o, i, n, g, x, &mut out);
            Ok(())
        })
    })?;
    slices::tensor(out, (o, i))
}

/// y + bias with a bias that is not trained.
///
/// # Shapes
/// y [N, O], bias [O] → [N, O].
pub fn frozen_bias(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    y.apply_op1(FrozenBias { bias: bias.clone() })
}

struct FrozenBias {
    bias: Tensor,
}

impl CustomOp1 for FrozenBias {
    fn name(&self) -> &'static str {
        "bias-frozen"
    }

    fn cpu_fwd(&self, y: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, o) = slices::dims2(layout)?;
        if self.bias.dims1()? != o {
            bail!("bias: rows of {o} against a bias of {:?}", self.bias.dims());
        }
        let mut out = slices::of(y, layout)?.to_vec();
        slices::with(&self.bias, |bias| {
            for row in out.chunks_exact_mut(o) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            Ok(())
        })?;
        Ok(slices::output(out, (n, o)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}
