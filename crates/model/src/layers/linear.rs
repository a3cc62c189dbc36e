//! A projection in the state its use asks for.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, Var, bail};
use ops::gemm::Arithmetic;
use ops::linear::{Finish, Form, Product, column_dot, column_sum, products};
use ops::packed::PackedMatrix;

use crate::gradients::Gradients;

/// y = x · weightᵀ (+ bias), x [N, in] → [N, out].
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Bias>,
}

pub(crate) enum Weight {
    /// For decoding: rows of the result do not depend on each other.
    Packed(Arc<PackedMatrix>),
    /// No gradient is computed for it.
    Frozen(Tensor),
    Trained(Parameter),
    /// Frozen, with a trained adapter.
    Adapted {
        weight: Tensor,
        adapter: LowRank,
    },
}

/// y += scale · (x · aᵀ) · bᵀ (Hu et al. 2021, arXiv:2106.09685, eq. 3): a [r, in], b [out, r].
pub(crate) struct LowRank {
    pub(crate) a: Parameter,
    pub(crate) b: Parameter,
    pub(crate) scale: f32,
    pub(crate) magnitude: Option<Magnitude>,
}

/// DoRA (Liu et al. 2024, arXiv:2402.09353): with V = W + scale·B·A, y = m/‖V‖ ∘ (x · Vᵀ), the rows' norms ‖V‖
/// held constant in the backward pass as in PEFT.
pub(crate) struct Magnitude {
    /// m [out].
    pub(crate) parameter: Parameter,
    /// Σ W² of each row, f32 [out].
    pub(crate) weight_squares: Tensor,
}

/// Something trained, f32, with the name its gradient goes by.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) var: Var,
}

pub(crate) enum Bias {
    Frozen(Tensor),
    Trained(Parameter),
}

/// A summand of the gradient of a layer's input: grad [N, out] · weight [out, in].
pub(crate) struct InputTerm {
    grad: Tensor,
    weight: Tensor,
    arithmetic: Arithmetic,
}

/// How activations of a type are multiplied with the model's weights.
pub(crate) fn arithmetic(dtype: DType) -> Arithmetic {
    match dtype {
        DType::BF16 => Arithmetic::Bf16,
        _ => Arithmetic::F32,
    }
}

impl Linear {
    /// x [N, in] → [N, out] of x's dtype, plus `add` [N, out] where given.
    pub fn forward(&self, x: &Tensor, add: Option<&Tensor>) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Bias::tensor);
        if let Weight::Packed(weight) = &self.weight {
            let mut y = ops::linear::packed(x, weight)?;
            if let Some(bias) = bias {
                y = y.broadcast_add(bias)?;
            }
            return match add {
                Some(add) => y + add,
                None => Ok(y),
            };
        }
        let base = |weight| Product {
            a: x,
            b: weight,
            form: Form::Nt,
            arithmetic: arithmetic(x.dtype()),
        };
        let finish = Finish {
            bias,
            add,
            ..Finish::plain(x.dtype())
        };
        match &self.weight {
            Weight::Adapted { weight, adapter } => {
                let low = adapter.down(x)?;
                let scale = adapter.column_scale(weight)?.map(|(scale, _)| scale);
                let finish = Finish {
                    column_scale: scale.as_ref(),
                    ..finish
                };
                products(&[base(weight), adapter.up(&low)], finish)
            }
            Weight::Frozen(weight) => products(&[base(weight)], finish),
            Weight::Trained(weight) => products(&[base(&weight.var)], finish),
            Weight::Packed(_) => bail!("unreachable: packed weights were multiplied above"),
        }
    }

    /// Adds the gradients of what is trained, given that of the output, and returns what the input's is
    /// the sum of; see [`input_gradient`].
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        grad: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Vec<InputTerm>> {
        if let Some(Bias::Trained(bias)) = &self.bias {
            gradients.add(&bias.name, column_sum(grad)?)?;
        }
        let term = |grad: &Tensor, weight: &Tensor| InputTerm {
            grad: grad.clone(),
            weight: weight.clone(),
            arithmetic: arithmetic(x.dtype()),
        };
        match &self.weight {
            Weight::Frozen(weight) => Ok(vec![term(grad, weight)]),
            Weight::Trained(weight) => {
                let dw = weight_gradient(grad, x, arithmetic(x.dtype()))?;
                gradients.add(&weight.name, dw)?;
                Ok(vec![term(grad, &weight.var)])
            }
            Weight::Adapted { weight, adapter } => {
                let low = adapter.down(x)?; // [N, r]
                let mut grad = grad.clone();
                if let (Some(magnitude), Some((scale, norms))) =
                    (&adapter.magnitude, adapter.column_scale(weight)?)
                {
                    let base = Product {
                        a: x,
                        b: weight,
                        form: Form::Nt,
                        arithmetic: arithmetic(x.dtype()),
                    };
                    let direction = products(&[base, adapter.up(&low)], Finish::plain(x.dtype()))?;
                    let dm = (column_dot(&grad, &direction)? / norms)?;
                    gradients.add(&magnitude.parameter.name, dm)?;
                    grad = grad.broadcast_mul(&scale.to_dtype(grad.dtype())?)?;
                }
                let d_low = adapter.down_gradient(&grad)?; // [N, r]
                // bᵀ's gradient: its rows are few and the tall operand lies as it is read.
                let db = weight_gradient(&low, &grad, Arithmetic::F32)?; // [r, out]
                gradients.add(&adapter.b.name, db.t()?.contiguous()?)?;
                let da = weight_gradient(&d_low, x, Arithmetic::F32)?; // [r, in]
                gradients.add(&adapter.a.name, da)?;
                let low_term = InputTerm {
                    grad: d_low,
                    weight: adapter.a.var.as_tensor().clone(),
                    arithmetic: Arithmetic::F32,
                };
                Ok(vec![term(&grad, weight), low_term])
            }
            Weight::Packed(_) => bail!("a model loaded for decoding has no backward pass"),
        }
    }
}

impl LowRank {
    /// scale · x · aᵀ, f32 [N, r].
    fn down(&self, x: &Tensor) -> Result<Tensor> {
        self.scaled(x, &self.a.var, Form::Nt)
    }

    /// scale · grad · b, f32 [N, r].
    fn down_gradient(&self, grad: &Tensor) -> Result<Tensor> {
        self.scaled(grad, &self.b.var, Form::Nn)
    }

    /// low [N, r] · bᵀ, a summand of the layer's output.
    fn up<'a>(&'a self, low: &'a Tensor) -> Product<'a> {
        Product {
            a: low,
            b: &self.b.var,
            form: Form::Nt,
            arithmetic: Arithmetic::F32,
        }
    }

    /// DoRA's factor m/‖V‖ of each output column, and ‖V‖; f32 [out] each.
    ///
    /// ‖V‖² = Σ W² + 2·scale·Σ B∘(W·Aᵀ) + scale²·Σ B∘(B·A·Aᵀ), so that V is never made.
    fn column_scale(&self, weight: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let Some(magnitude) = &self.magnitude else {
            return Ok(None);
        };
        let (a, b) = (
            self.a.var.as_tensor().detach(),
            self.b.var.as_tensor().detach(),
        );
        let across = self.scaled(weight, &a, Form::Nt)?; // scale · W·Aᵀ [out, r]
        let gram = self.scaled(&a, &a, Form::Nt)?; // scale · A·Aᵀ [r, r]
        let within = self.scaled(&b, &gram, Form::Nt)?; // scale² · B·A·Aᵀ [out, r]
        let squares = ((across * 2.0)? + within)?.mul(&b)?.sum(1)?;
        let norms = (squares + &magnitude.weight_squares)?.sqrt()?;
        let factors = (magnitude.parameter.var.as_tensor().detach() / &norms)?;
        Ok(Some((factors, norms)))
    }

    fn scaled(&self, a: &Tensor, b: &Tensor, form: Form) -> Result<Tensor> {
        let term = Product {
            a,
            b,
            form,
            arithmetic: Arithmetic::F32,
        };
        let finish = Finish {
            scale: self.scale,
            ..Finish::plain(DType::F32)
        };
        products(&[term], finish)
    }
}

impl Bias {
    fn tensor(&self) -> &Tensor {
        match self {
            Bias::Frozen(bias) => bias,
            Bias::Trained(bias) => bias.var.as_tensor(),
        }
    }
}

/// gradᵀ [out, N] · x [N, in] → f32 [out, in].
fn weight_gradient(grad: &Tensor, x: &Tensor, arithmetic: Arithmetic) -> Result<Tensor> {
    let term = Product {
        a: grad,
        b: x,
        form: Form::Tn,
        arithmetic,
    };
    products(&[term], Finish::plain(DType::F32))
}

/// The gradient of an input that one or several layers read, summed before it is rounded.
pub(crate) fn input_gradient(terms: &[InputTerm], dtype: DType) -> Result<Tensor> {
    let terms: Vec<Product<'_>> = terms
        .iter()
        .map(|term| Product {
            a: &term.grad,
            b: &term.weight,
            form: Form::Nn,
            arithmetic: term.arithmetic,
        })
        .collect();
    products(&terms, Finish::plain(dtype))
}
