//! A frozen linear layer with a low-rank adapter.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::linear::{input_gradient, weight_gradient};
use crate::{gemm, slices};

/// x · weightᵀ + scale · (x · aᵀ) · bᵀ (Hu et al. 2021, arXiv:2106.09685, eq. 3), with
/// gradients to x, a and b and none to the weight.
///
/// # Shapes
/// x [N, I], weight [O, I], a [r, I], b [O, r] → [N, O].
pub fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    let op = LoraLinear {
        weight: weight.clone(),
        scale,
    };
    x.apply_op3(a, b, op)
}

struct LoraLinear {
    weight: Tensor,
    scale: f32,
}

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "lora-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, i) = slices::dims2(x_layout)?;
        let (rank, a_columns) = slices::dims2(a_layout)?;
        let (o, b_columns) = slices::dims2(b_layout)?;
        if self.weight.dims2()? != (o, i) || a_columns != i || b_columns != rank {
            bail!(
                "lora: input of {n} x {i}, weight {:?}, A {rank} x {a_columns}, B {o} x {b_columns}",
                self.weight.dims()
            );
        }
        let x = slices::of(x, x_layout)?;
        let down = gemm::nt(n, rank, i, x, slices::of(a, a_layout)?); // [N, r]
        let mut out = slices::with(&self.weight, |w| Ok(gemm::nt(n, o, i, x, w)))?; // [N, O]
        gemm::product(
            gemm::Threads::All,
            [n, o, rank],
            &mut out,
            o,
            1.0,
            self.scale,
            (gemm::Rows::new(&down, rank), false),
            (gemm::Rows::new(slices::of(b, b_layout)?, rank), true),
        );
        Ok(slices::output(out, (n, o)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (n, i) = x.dims2()?;
        let rank = a.dim(0)?;
        let down = slices::with(x, |x| {
            slices::with(a, |a| slices::tensor(gemm::nt(n, rank, i, x, a), (n, rank)))
        })?;
        let scale = f64::from(self.scale);
        let up = (input_gradient(&grad, b)? * scale)?; // scale · grad · b, [N, r]
        let db = (weight_gradient(&grad, &down)? * scale)?; // [O, r]
        let da = weight_gradient(&up, x)?; // [r, I]
        let dx = if x.track_op() {
            Some((input_gradient(&grad, &self.weight)? + input_gradient(&up, a)?)?)
        } else {
            None
        };
        Ok((dx, Some(da), Some(db)))
    }
}
