//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's order of operations, moments in f32.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use crate::Error;

#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

/// Optimizer over named tensors. Two groups: matrices decay, vectors (norms and biases) do not.
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<Parameter>,
    step: u64,
}

struct Parameter {
    name: String,
    variable: Var,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    decays: bool,
}

const EXP_AVG: &str = "exp_avg.";
const EXP_AVG_SQ: &str = "exp_avg_sq.";

impl AdamW {
    /// # Errors
    /// Those of making the moments.
    pub fn new(parameters: Vec<(String, Var)>, config: AdamWConfig) -> Result<Self, Error> {
        let parameters = parameters
            .into_iter()
            .map(|(name, variable)| {
                let zeros = Tensor::zeros(variable.shape(), DType::F32, variable.device())?;
                let decays =
                    variable.rank() > 1 && !name.contains("norm") && !name.ends_with(".bias");
                Ok(Parameter {
                    name,
                    variable,
                    exp_avg: zeros.clone(),
                    exp_avg_sq: zeros,
                    decays,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            config,
            parameters,
            step: 0,
        })
    }

    /// One update with `gradients` (f32, by parameter name) at `learning_rate`.
    ///
    /// # Errors
    /// [`Error::MissingGradient`] for a parameter without one; none is updated then.
    pub fn update(
        &mut self,
        gradients: &BTreeMap<String, Tensor>,
        learning_rate: f64,
    ) -> Result<(), Error> {
        if let Some(missing) = self
            .parameters
            .iter()
            .find(|parameter| !gradients.contains_key(&parameter.name))
        {
            return Err(Error::MissingGradient {
                name: missing.name.clone(),
            });
        }
        self.step += 1;
        let [beta1, beta2] = self.config.betas;
        let steps = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction1 = 1.0 - beta1.powi(steps);
        let correction2 = (1.0 - beta2.powi(steps)).sqrt();
        for parameter in &mut self.parameters {
            let gradient = &gradients[&parameter.name];
            parameter.exp_avg = ((&parameter.exp_avg * beta1)? + (gradient * (1.0 - beta1))?)?;
            parameter.exp_avg_sq =
                ((&parameter.exp_avg_sq * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let denominator = ((parameter.exp_avg_sq.sqrt()? / correction2)? + self.config.eps)?;
            let change = ((&parameter.exp_avg / denominator)? * (learning_rate / correction1))?;
            let old = parameter.variable.as_tensor().detach();
            let kept = if parameter.decays && self.config.weight_decay > 0.0 {
                (old * (1.0 - learning_rate * self.config.weight_decay))?
            } else {
                old
            };
            parameter.variable.set(&(kept - change)?)?;
        }
        Ok(())
    }

    /// Updates made so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Parameters and moments, under the names a checkpoint keeps them by.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for parameter in &self.parameters {
            state.insert(
                format!("model.{}", parameter.name),
                parameter.variable.as_tensor().detach(),
            );
            state.insert(
                format!("{EXP_AVG}{}", parameter.name),
                parameter.exp_avg.clone(),
            );
            state.insert(
                format!("{EXP_AVG_SQ}{}", parameter.name),
                parameter.exp_avg_sq.clone(),
            );
        }
        state
    }

    /// Puts back what [`AdamW::state`] gave after `step` updates.
    ///
    /// # Errors
    /// [`Error::CheckpointTensor`] for a tensor that is missing or has another shape.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, step: u64) -> Result<(), Error> {
        let find = |name: String, like: &Tensor| -> Result<Tensor, Error> {
            match state.get(&name) {
                Some(tensor) if tensor.shape() == like.shape() => Ok(tensor.clone()),
                _ => Err(Error::CheckpointTensor { name }),
            }
        };
        for parameter in &mut self.parameters {
            let name = &parameter.name;
            parameter.variable.set(&find(
                format!("model.{name}"),
                parameter.variable.as_tensor(),
            )?)?;
            parameter.exp_avg = find(format!("{EXP_AVG}{name}"), &parameter.exp_avg)?;
            parameter.exp_avg_sq = find(format!("{EXP_AVG_SQ}{name}"), &parameter.exp_avg_sq)?;
        }
        self.step = step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn decay_leaves_vectors_and_norms_alone() {
        let device = Device::Cpu;
        let variable = |shape: &[usize]| {
            Var::from_tensor(&Tensor::ones(shape, DType::F32, &device).unwrap()).unwrap()
        };
        let parameters: Vec<_> = [
            ("w.weight", &[2, 2][..]),
            ("w.bias", &[2]),
            ("norm.weight", &[2]),
        ]
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), variable(shape)))
        .collect();
        let gradients = parameters
            .iter()
            .map(|(name, variable)| (name.clone(), variable.zeros_like().unwrap()))
            .collect::<BTreeMap<_, _>>();
        let config = AdamWConfig {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.5,
        };
        let mut optimizer = AdamW::new(parameters.clone(), config).unwrap();
        optimizer.update(&gradients, 0.1).unwrap();
        let values = |index: usize| {
            parameters[index]
                .1
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert!(values(0).iter().all(|value| (value - 0.95).abs() < 1e-6));
        assert_eq!(values(1), [1.0, 1.0]);
        assert_eq!(values(2), [1.0, 1.0]);
    }

    #[test]
    fn a_missing_gradient_is_an_error_that_names_it() {
        let variable =
            Var::from_tensor(&Tensor::ones(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let config = AdamWConfig {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let mut optimizer = AdamW::new(vec![("head".to_owned(), variable)], config).unwrap();
        let error = optimizer.update(&BTreeMap::new(), 0.1).unwrap_err();
        assert!(error.to_string().contains("head"), "{error}");
    }
}
