//! A projection in the state its use asks for.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, Var, bail};
use ops::dropout::Dropout;
use ops::gemm::Arithmetic;
use ops::linear::{
    Finish, Form, Product, column_dot, column_sum, low_rank_dtype, products, tall_gradient,
};
use ops::packed::PackedMatrix;

use crate::gradients::Gradients;

/// y = x · weightᵀ (+ bias), x [N, in] → [N, out].
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Value>,
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

/// y += scale · (dropout(x) · aᵀ) · bᵀ (Hu et al. 2021, arXiv:2106.09685, eq. 3): a [r, in], b [out, r].
pub(crate) struct LowRank {
    pub(crate) a: Parameter,
    pub(crate) b: Parameter,
    pub(crate) scale: f32,
    pub(crate) magnitude: Option<Magnitude>,
    pub(crate) dropout: LayerDropout,
}

/// How an adapter's input is dropped out while it is trained.
pub(crate) struct LayerDropout {
    pub(crate) rate: f32,
    pub(crate) key: u64,
}

/// DoRA (Liu et al. 2024, arXiv:2402.09353): with V = W + scale·B·A, y = m/‖V‖ ∘ (x · Vᵀ), the rows' norms ‖V‖
/// held constant in the backward pass as in PEFT; with dropout, as there, y = x · Wᵀ + (m/‖V‖ − 1) ∘ (dropout(x) · Wᵀ)
/// + m/‖V‖ · scale · (dropout(x) · aᵀ) · bᵀ.
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

/// One of the model's own tensors.
pub(crate) enum Value {
    Frozen(Tensor),
    Trained(Parameter),
}

/// A summand of the gradient of a layer's input: grad [N, out] · weight [out, in].
struct InputTerm {
    grad: Tensor,
    weight: Tensor,
    arithmetic: Arithmetic,
}

/// What the gradient of an input is the sum of, that one or several layers read.
#[derive(Default)]
pub(crate) struct InputGradient {
    terms: Vec<InputTerm>,
    /// What went through dropout.
    dropped: Option<Tensor>,
}

/// What the backward pass of an adapted layer needs of its forward pass, beside its input.
pub(crate) struct LowTape {
    /// scale · dropout(x) · aᵀ [N, r].
    low: Tensor,
    /// DoRA's m/‖V‖ and ‖V‖, [out] each.
    column_scale: Option<(Tensor, Tensor)>,
}

/// A layer's output, and what its backward pass needs where it has an adapter.
pub(crate) type Projected = (Tensor, Option<LowTape>);

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
        Ok(self.forward_kept(x, add, None)?.0)
    }

    /// [`Self::forward`], and what [`Self::backward`] needs of it. `row_keys` [N] are those of dropout.
    pub(crate) fn forward_kept(
        &self,
        x: &Tensor,
        add: Option<&Tensor>,
        row_keys: Option<&[u64]>,
    ) -> Result<Projected> {
        let bias = self.bias.as_ref().map(Value::tensor);
        let finish = Finish {
            bias,
            add,
            ..Finish::plain(x.dtype())
        };
        let plain = |weight| Ok((products(&[base(x, weight)], finish)?, None));
        match &self.weight {
            Weight::Packed(weight) => {
                let mut y = ops::linear::packed(x, weight)?;
                if let Some(bias) = bias {
                    y = y.broadcast_add(bias)?;
                }
                if let Some(add) = add {
                    y = (y + add)?;
                }
                Ok((y, None))
            }
            Weight::Frozen(weight) => plain(weight),
            Weight::Trained(weight) => plain(&weight.var),
            Weight::Adapted { weight, adapter } => {
                let dropped = adapter.dropped(x, row_keys)?;
                let low = adapter.down(dropped.as_ref().unwrap_or(x))?;
                let up = adapter.up(&low);
                let column_scale = adapter.column_scale(weight)?;
                let scaled = Finish {
                    column_scale: column_scale.as_ref().map(|(scale, _)| scale),
                    ..finish
                };
                let y = match &dropped {
                    Some(dropped) if column_scale.is_some() => {
                        let y = products(&[base(dropped, weight), up], scaled)?;
                        let finish = Finish {
                            add: Some(&y),
                            ..Finish::plain(x.dtype())
                        };
                        products(&[base(&(x - dropped)?, weight)], finish)?
                    }
                    _ => products(&[base(x, weight), up], scaled)?,
                };
                Ok((y, Some(LowTape { low, column_scale })))
            }
        }
    }

    /// Adds the gradients of what is trained, given that of the output, and to `input` what the input's is the sum
    /// of. `low` is what the forward pass gave, `row_keys` what it was given.
    pub(crate) fn backward(
        &self,
        (x, low): (&Tensor, &Option<LowTape>),
        grad: &Tensor,
        row_keys: Option<&[u64]>,
        gradients: &mut Gradients,
        input: &mut InputGradient,
    ) -> Result<()> {
        if let Some(name) = self.bias.as_ref().and_then(Value::trained) {
            gradients.add(name, column_sum(grad)?)?;
        }
        let term = |grad: &Tensor, weight: &Tensor| InputTerm {
            grad: grad.clone(),
            weight: weight.clone(),
            arithmetic: arithmetic(x.dtype()),
        };
        match (&self.weight, low) {
            (Weight::Frozen(weight), _) => input.terms.push(term(grad, weight)),
            (Weight::Trained(weight), _) => {
                let dw = weight_gradient(grad, x, arithmetic(x.dtype()))?;
                gradients.add(&weight.name, dw)?;
                input.terms.push(term(grad, &weight.var));
            }
            (Weight::Adapted { weight, adapter }, Some(LowTape { low, column_scale })) => {
                let dropped = adapter.dropped(x, row_keys)?;
                let adapted = dropped.as_ref().unwrap_or(x);
                // What reaches V = W + scale·B·A, and what W gets beside it.
                let (mut through, mut beside) = (grad.clone(), None);
                if let (Some(magnitude), Some((scale, norms))) = (&adapter.magnitude, column_scale)
                {
                    let terms = [base(adapted, weight), adapter.up(low)];
                    let direction = products(&terms, Finish::plain(x.dtype()))?;
                    let dm = (column_dot(grad, &direction)? / norms)?;
                    gradients.add(&magnitude.parameter.name, dm)?;
                    through = grad.broadcast_mul(&scale.to_dtype(grad.dtype())?)?;
                    beside = dropped.is_some().then_some(grad);
                }
                let d_low = adapter.down_gradient(&through)?; // [N, r]
                gradients.add(&adapter.b.name, tall_gradient(&through, low)?)?; // [out, r]
                let da = weight_gradient(&d_low, adapted, Arithmetic::F32)?; // [r, in]
                gradients.add(&adapter.a.name, da)?;
                let low_term = InputTerm {
                    grad: d_low,
                    weight: adapter.a.var.as_tensor().clone(),
                    arithmetic: Arithmetic::F32,
                };
                if dropped.is_none() {
                    input.terms.extend([term(&through, weight), low_term]);
                    return Ok(());
                }
                let mut terms = vec![low_term];
                match beside {
                    None => input.terms.push(term(&through, weight)),
                    Some(grad) => {
                        input.terms.push(term(grad, weight));
                        terms.push(term(&(through - grad)?, weight));
                    }
                }
                let gradient = summed(&terms, None, x.dtype())?;
                if let Some(gradient) = adapter.dropped(&gradient, row_keys)? {
                    input.dropped = Some(match input.dropped.take() {
                        Some(others) => ops::rows::sum(&others, &gradient)?,
                        None => gradient,
                    });
                }
            }
            (Weight::Adapted { .. }, None) => {
                bail!("an adapted layer's backward pass without its forward pass")
            }
            (Weight::Packed(_), _) => bail!("a model loaded for decoding has no backward pass"),
        }
        Ok(())
    }
}

/// x · weightᵀ, a summand of a layer's output.
fn base<'a>(x: &'a Tensor, weight: &'a Tensor) -> Product<'a> {
    Product {
        a: x,
        b: weight,
        form: Form::Nt,
        arithmetic: arithmetic(x.dtype()),
    }
}

impl LowRank {
    /// dropout(x), where there is any.
    fn dropped(&self, x: &Tensor, row_keys: Option<&[u64]>) -> Result<Option<Tensor>> {
        let LayerDropout { rate, key } = self.dropout;
        match row_keys {
            Some(rows) if rate > 0.0 => {
                let dropout = Dropout {
                    rate,
                    module: key,
                    rows,
                };
                dropout.apply(x).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// scale · x · aᵀ, [N, r].
    fn down(&self, x: &Tensor) -> Result<Tensor> {
        self.scaled(x, &self.a.var, Form::Nt, low_rank_dtype(x))
    }

    /// scale · grad · b, [N, r].
    fn down_gradient(&self, grad: &Tensor) -> Result<Tensor> {
        self.scaled(grad, &self.b.var, Form::Nn, low_rank_dtype(grad))
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
        let across = self.scaled(weight, &a, Form::Nt, DType::F32)?; // scale · W·Aᵀ [out, r]
        let gram = self.scaled(&a, &a, Form::Nt, DType::F32)?; // scale · A·Aᵀ [r, r]
        let within = self.scaled(&b, &gram, Form::Nt, DType::F32)?; // scale² · B·A·Aᵀ [out, r]
        let squares = ((across * 2.0)? + within)?.mul(&b)?.sum(1)?;
        let norms = (squares + &magnitude.weight_squares)?.sqrt()?;
        let factors = (magnitude.parameter.var.as_tensor().detach() / &norms)?;
        Ok(Some((factors, norms)))
    }

    fn scaled(&self, a: &Tensor, b: &Tensor, form: Form, dtype: DType) -> Result<Tensor> {
        let term = Product {
            a,
            b,
            form,
            arithmetic: Arithmetic::F32,
        };
        let finish = Finish {
            scale: self.scale,
            ..Finish::plain(dtype)
        };
        products(&[term], finish)
    }
}

impl Value {
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Value::Frozen(tensor) => tensor,
            Value::Trained(parameter) => parameter.var.as_tensor(),
        }
    }

    /// The name its gradient goes by, where it is trained.
    pub(crate) fn trained(&self) -> Option<&str> {
        match self {
            Value::Frozen(_) => None,
            Value::Trained(parameter) => Some(&parameter.name),
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

impl InputGradient {
    /// The sum, rounded once where nothing was dropped.
    pub(crate) fn sum(&self, dtype: DType) -> Result<Tensor> {
        summed(&self.terms, self.dropped.as_ref(), dtype)
    }
}

fn summed(terms: &[InputTerm], add: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
    let terms: Vec<Product<'_>> = terms
        .iter()
        .map(|term| Product {
            a: &term.grad,
            b: &term.weight,
            form: Form::Nn,
            arithmetic: term.arithmetic,
        })
        .collect();
    let finish = Finish {
        add,
        ..Finish::plain(dtype)
    };
    products(&terms, finish)
}
