//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's order of operations, in f32.
//!
//! One pass over each parameter updates it and its moments where they lie; nothing is allocated.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use crate::{Error, in_place};

#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

/// Optimizer over named f32 tensors. Matrices decay; vectors (norms, biases, DoRA's magnitudes) do not.
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<Parameter>,
    step: u64,
}

struct Parameter {
    name: String,
    variable: Var,
    /// Moments, in the parameter's shape.
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    decays: bool,
    /// Factor on the learning rate.
    rate: f64,
}

const EXP_AVG: &str = "exp_avg.";
const EXP_AVG_SQ: &str = "exp_avg_sq.";

/// Elements one thread updates at a time.
const CHUNK: usize = 1 << 14;

impl AdamW {
    /// # Errors
    /// A parameter that is not f32; those of making the moments.
    pub fn new(parameters: Vec<(String, Var)>, config: AdamWConfig) -> Result<Self, Error> {
        let parameters = parameters
            .into_iter()
            .map(|(name, variable)| {
                let zeros = || Tensor::zeros(variable.shape(), DType::F32, variable.device());
                require_f32(&name, variable.as_tensor())?;
                Ok(Parameter {
                    name,
                    exp_avg: zeros()?,
                    exp_avg_sq: zeros()?,
                    decays: variable.rank() > 1,
                    rate: 1.0,
                    variable,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            config,
            parameters,
            step: 0,
        })
    }

    /// LoRA+ (arXiv 2402.12354): `ratio` times the learning rate for B, and for every vector, as in PEFT's
    /// `create_loraplus_optimizer`.
    #[must_use]
    pub fn with_loraplus(mut self, ratio: f64) -> Self {
        for parameter in &mut self.parameters {
            if parameter.name.contains(".lora_B.") || parameter.variable.rank() == 1 {
                parameter.rate = ratio;
            }
        }
        self
    }

    /// One update at `learning_rate` with `scale · gradients` (f32, by parameter name); [`clip_global_norm`]
    /// gives the scale.
    ///
    /// # Errors
    /// [`Error::MissingGradient`] for a parameter without one, and a gradient of another shape or type; none
    /// is updated then.
    ///
    /// [`clip_global_norm`]: crate::clip::clip_global_norm
    pub fn update(
        &mut self,
        gradients: &BTreeMap<String, Tensor>,
        scale: f64,
        learning_rate: f64,
    ) -> Result<(), Error> {
        for parameter in &self.parameters {
            let name = &parameter.name;
            let gradient = gradients
                .get(name)
                .ok_or_else(|| Error::MissingGradient { name: name.clone() })?;
            require_f32(name, gradient)?;
            if gradient.shape() != parameter.variable.shape() {
                let found = gradient.shape();
                let message = format!("the gradient of `{name}` has shape {found:?}");
                return Err(candle_core::Error::Msg(message).into());
            }
        }
        self.step += 1;
        let (config, step) = (&self.config, self.step);
        #[cfg(feature = "cuda")]
        if self
            .parameters
            .iter()
            .any(|parameter| parameter.variable.device().is_cuda())
        {
            return self.update_on_gpu(gradients, scale, learning_rate);
        }
        self.parameters.par_iter().try_for_each(|parameter| {
            let coefficients = Coefficients::new(config, parameter, step, scale, learning_rate);
            in_place::read(&gradients[&parameter.name], |gradient| {
                in_place::write(parameter.variable.as_tensor(), |values| {
                    in_place::write(&parameter.exp_avg, |exp_avg| {
                        in_place::write(&parameter.exp_avg_sq, |exp_avg_sq| {
                            values
                                .par_chunks_mut(CHUNK)
                                .zip(exp_avg.par_chunks_mut(CHUNK))
                                .zip(exp_avg_sq.par_chunks_mut(CHUNK))
                                .zip(gradient.par_chunks(CHUNK))
                                .for_each(|(((values, exp_avg), exp_avg_sq), gradient)| {
                                    coefficients.update(values, exp_avg, exp_avg_sq, gradient);
                                });
                            Ok(())
                        })
                    })
                })
            })?;
            Ok(())
        })
    }

    /// All of them in one launch.
    #[cfg(feature = "cuda")]
    fn update_on_gpu(
        &self,
        gradients: &BTreeMap<String, Tensor>,
        scale: f64,
        learning_rate: f64,
    ) -> Result<(), Error> {
        use ops::optimizer;

        let of = |parameter: &Parameter| {
            Coefficients::new(&self.config, parameter, self.step, scale, learning_rate)
        };
        let Some(all) = self.parameters.first().map(of) else {
            return Ok(());
        };
        let updates: Vec<_> = self
            .parameters
            .iter()
            .map(|parameter| {
                let own = of(parameter);
                optimizer::Update {
                    values: parameter.variable.as_tensor(),
                    exp_avg: &parameter.exp_avg,
                    exp_avg_sq: &parameter.exp_avg_sq,
                    gradient: &gradients[&parameter.name],
                    keep: own.keep,
                    minus_step_size: own.minus_step_size,
                }
            })
            .collect();
        let coefficients = optimizer::Coefficients {
            scale: all.scale,
            mix: all.mix,
            towards: i32::from(all.towards),
            beta2: all.beta2,
            one_minus_beta2: all.one_minus_beta2,
            correction2: all.correction2,
            eps: all.eps,
        };
        Ok(optimizer::adamw(&updates, coefficients)?)
    }

    /// Updates made so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Parameters and moments, under the names a checkpoint keeps them by.
    ///
    /// They are not copied: the next update changes them.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for parameter in &self.parameters {
            let name = &parameter.name;
            let value = parameter.variable.as_tensor().detach();
            state.insert(format!("model.{name}"), value);
            state.insert(format!("{EXP_AVG}{name}"), parameter.exp_avg.clone());
            state.insert(format!("{EXP_AVG_SQ}{name}"), parameter.exp_avg_sq.clone());
        }
        state
    }

    /// Puts back what [`AdamW::state`] gave after `step` updates.
    ///
    /// # Errors
    /// [`Error::CheckpointTensor`] for a tensor that is missing or has another shape or type.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, step: u64) -> Result<(), Error> {
        let saved = |name: String, like: &Tensor| -> Result<Tensor, Error> {
            match state.get(&name) {
                // Copied: updates are made where the tensors lie.
                Some(from) if from.shape() == like.shape() && from.dtype() == DType::F32 => {
                    Ok(from.to_device(like.device())?.copy()?)
                }
                _ => Err(Error::CheckpointTensor { name }),
            }
        };
        for parameter in &mut self.parameters {
            let name = &parameter.name;
            let values = saved(format!("model.{name}"), parameter.variable.as_tensor())?;
            parameter.variable.set(&values)?;
            parameter.exp_avg = saved(format!("{EXP_AVG}{name}"), &parameter.exp_avg)?;
            parameter.exp_avg_sq = saved(format!("{EXP_AVG_SQ}{name}"), &parameter.exp_avg_sq)?;
        }
        self.step = step;
        Ok(())
    }
}

/// What one update does to every element of a parameter; made in f64, used in f32, as PyTorch's scalars are.
struct Coefficients {
    scale: f32,
    /// What decay leaves of a parameter: 1 − rate · decay.
    keep: f32,
    /// 1 − β₁, or β₁ where that is the smaller; see `towards`.
    mix: f32,
    towards: bool,
    beta2: f32,
    one_minus_beta2: f32,
    correction2: f32,
    eps: f32,
    minus_step_size: f32,
}

impl Coefficients {
    fn new(
        config: &AdamWConfig,
        parameter: &Parameter,
        step: u64,
        scale: f64,
        learning_rate: f64,
    ) -> Self {
        let [beta1, beta2] = config.betas;
        let steps = i32::try_from(step).unwrap_or(i32::MAX);
        let rate = learning_rate * parameter.rate;
        let decay = if parameter.decays {
            config.weight_decay
        } else {
            0.0
        };
        // torch.lerp leaves from the nearer end.
        let towards = 1.0 - beta1 < 0.5;
        Self {
            scale: scale as f32,
            keep: (1.0 - rate * decay) as f32,
            mix: if towards { 1.0 - beta1 } else { beta1 } as f32,
            towards,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            correction2: (1.0 - beta2.powi(steps)).sqrt() as f32,
            eps: config.eps as f32,
            minus_step_size: -(rate / (1.0 - beta1.powi(steps))) as f32,
        }
    }

    fn update(
        &self,
        values: &mut [f32],
        exp_avg: &mut [f32],
        exp_avg_sq: &mut [f32],
        gradient: &[f32],
    ) {
        let moments = exp_avg.iter_mut().zip(exp_avg_sq);
        for ((value, (m, v)), gradient) in values.iter_mut().zip(moments).zip(gradient) {
            let gradient = gradient * self.scale;
            *m = if self.towards {
                *m + self.mix * (gradient - *m)
            } else {
                gradient - (gradient - *m) * self.mix
            };
            *v = *v * self.beta2 + self.one_minus_beta2 * gradient * gradient;
            let denominator = v.sqrt() / self.correction2 + self.eps;
            *value = *value * self.keep + self.minus_step_size * *m / denominator;
        }
    }
}

fn require_f32(name: &str, tensor: &Tensor) -> Result<(), Error> {
    if tensor.dtype() == DType::F32 {
        return Ok(());
    }
    let message = format!("`{name}` is {:?}; what is trained is f32", tensor.dtype());
    Err(candle_core::Error::Msg(message).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    fn config(weight_decay: f64) -> AdamWConfig {
        AdamWConfig {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay,
        }
    }

    fn parameters(names: &[(&str, &[usize])]) -> Vec<(String, Var)> {
        names
            .iter()
            .map(|(name, shape)| {
                let ones = Tensor::ones(*shape, DType::F32, &Device::Cpu).unwrap();
                ((*name).to_owned(), Var::from_tensor(&ones).unwrap())
            })
            .collect()
    }

    fn gradients(parameters: &[(String, Var)], value: f64) -> BTreeMap<String, Tensor> {
        parameters
            .iter()
            .map(|(name, variable)| {
                let ones = variable.ones_like().unwrap();
                (name.clone(), (ones * value).unwrap())
            })
            .collect()
    }

    fn values(parameter: &(String, Var)) -> Vec<f32> {
        parameter.1.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn decay_leaves_vectors_and_norms_alone() {
        let parameters = parameters(&[
            ("w.weight", &[2, 2]),
            ("w.bias", &[2]),
            ("norm.weight", &[2]),
            ("w.lora_magnitude_vector", &[2]),
        ]);
        let mut optimizer = AdamW::new(parameters.clone(), config(0.5)).unwrap();
        optimizer
            .update(&gradients(&parameters, 0.0), 1.0, 0.1)
            .unwrap();
        assert!(
            values(&parameters[0])
                .iter()
                .all(|v| (v - 0.95).abs() < 1e-6)
        );
        for vector in &parameters[1..] {
            assert_eq!(values(vector), [1.0, 1.0]);
        }
    }

    #[test]
    fn loraplus_speeds_up_b_and_vectors() {
        let parameters = parameters(&[
            ("m.q.lora_A.weight", &[1, 2]),
            ("m.q.lora_B.weight", &[2, 1]),
            ("m.q.lora_magnitude_vector", &[2]),
            ("m.lm_head.weight", &[1, 2]),
        ]);
        let mut optimizer = AdamW::new(parameters.clone(), config(0.0))
            .unwrap()
            .with_loraplus(16.0);
        optimizer
            .update(&gradients(&parameters, 3.0), 1.0, 0.01)
            .unwrap();
        // Adam's first step is the learning rate itself.
        for (parameter, moved) in parameters.iter().zip([0.01, 0.16, 0.16, 0.01]) {
            assert!(
                values(parameter)
                    .iter()
                    .all(|v| (1.0 - v - moved).abs() < 1e-6)
            );
        }
    }

    #[test]
    fn the_scale_is_that_of_the_gradients() {
        let run = |value: f64, scale: f64| {
            let parameters = parameters(&[("w", &[3, 40_000])]);
            let mut optimizer = AdamW::new(parameters.clone(), config(0.1)).unwrap();
            for _ in 0..3 {
                let gradients = gradients(&parameters, value);
                optimizer.update(&gradients, scale, 0.01).unwrap();
            }
            values(&parameters[0])
        };
        assert_eq!(run(0.5, 1.0), run(64.0, 1.0 / 128.0));
    }

    #[test]
    fn a_restored_optimizer_goes_on_with_the_same_bits() {
        let names: [(&str, &[usize]); 2] = [("w", &[7, 5000]), ("b", &[11])];
        let start = parameters(&names);
        let gradient = |step: u32| -> BTreeMap<String, Tensor> {
            start
                .iter()
                .map(|(name, variable)| {
                    let n = variable.elem_count() as u32;
                    let values: Vec<f32> = (0..n)
                        .map(|i| ((i + 17 * step) as f32 * 0.37).sin())
                        .collect();
                    let tensor = Tensor::from_vec(values, variable.shape(), &Device::Cpu);
                    (name.clone(), tensor.unwrap())
                })
                .collect()
        };
        let mut whole = AdamW::new(start.clone(), config(0.1)).unwrap();
        let mut saved = BTreeMap::new();
        for step in 0..6 {
            if step == 3 {
                saved = whole
                    .state()
                    .into_iter()
                    .map(|(name, tensor)| (name, tensor.copy().unwrap()))
                    .collect();
            }
            whole.update(&gradient(step), 0.3, 0.01).unwrap();
        }
        let resumed = parameters(&names);
        let mut again = AdamW::new(resumed.clone(), config(0.1)).unwrap();
        again.restore(&saved, 3).unwrap();
        for step in 3..6 {
            again.update(&gradient(step), 0.3, 0.01).unwrap();
        }
        assert_eq!(again.step(), whole.step());
        for (a, b) in start.iter().zip(&resumed) {
            assert_eq!(values(a), values(b));
        }
        saved.remove("exp_avg_sq.b");
        let error = again.restore(&saved, 3).unwrap_err().to_string();
        assert!(error.contains("exp_avg_sq.b"), "{error}");
    }

    #[test]
    fn a_missing_gradient_is_an_error_that_names_it() {
        let parameters = parameters(&[("body", &[2]), ("head", &[2])]);
        let mut optimizer = AdamW::new(parameters.clone(), config(0.0)).unwrap();
        let mut gradients = gradients(&parameters, 1.0);
        gradients.remove("head");
        let error = optimizer.update(&gradients, 1.0, 0.1).unwrap_err();
        assert!(error.to_string().contains("head"), "{error}");
        assert_eq!(values(&parameters[0]), [1.0, 1.0]);
        let wrong = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        gradients.insert("head".into(), wrong);
        let error = optimizer.update(&gradients, 1.0, 0.1).unwrap_err();
        assert!(
            error.to_string().contains("`head` has shape [3]"),
            "{error}"
        );
    }
}
