//! One adapted linear layer, and one parameter trained beside the adapters.

use candle_core::{DType, Device, Tensor};
use rand::Rng;

use crate::error::{Error, Result};
use crate::named_rng::named_rng;

/// What PEFT puts before every name in its files.
const PEFT_PREFIX: &str = "base_model.model.";

/// One adapted linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// `model.layers.0.self_attn.q_proj`.
    pub name: String,
    pub in_features: usize,
    pub out_features: usize,
    pub rank: usize,
    /// Factor on `B·A·x`.
    pub scaling: f64,
    /// A trained magnitude for each output row (arXiv 2402.09353).
    pub use_dora: bool,
    /// Share of A's inputs set to zero in training, at least 0 and below 1.
    pub dropout: f64,
}

impl LoraModule {
    /// PEFT's name of A, `[r, in]`.
    pub fn a_name(&self) -> String {
        format!("{PEFT_PREFIX}{}.lora_A.weight", self.name)
    }

    /// PEFT's name of B, `[out, r]`.
    pub fn b_name(&self) -> String {
        format!("{PEFT_PREFIX}{}.lora_B.weight", self.name)
    }

    /// PEFT's name of DoRA's magnitudes, `[out]`; its files have no `.weight` here.
    pub fn magnitude_name(&self) -> String {
        format!("{PEFT_PREFIX}{}.lora_magnitude_vector", self.name)
    }

    /// The adapted weight's name in the checkpoint.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Names and shapes of what an adapter's file holds for this module.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![
            (self.a_name(), vec![self.rank, self.in_features]),
            (self.b_name(), vec![self.out_features, self.rank]),
        ];
        if self.use_dora {
            tensors.push((self.magnitude_name(), vec![self.out_features]));
        }
        tensors
    }

    /// A as PEFT starts it: kaiming-uniform with a = √5, which is uniform within ±1/√in. F32, CPU.
    ///
    /// Depends on (`seed`, module name, shape) only.
    pub fn initial_a(&self, seed: u64) -> Result<Tensor> {
        let bound = 1.0 / (self.in_features as f64).sqrt();
        let mut rng = named_rng(seed, "lora_A", &self.name);
        let values: Vec<f32> = (0..self.rank * self.in_features)
            .map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32)
            .collect();
        let shape = (self.rank, self.in_features);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// B starts at zero: a fresh adapter changes nothing.
    pub fn initial_b(&self) -> Result<Tensor> {
        let shape = (self.out_features, self.rank);
        Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
    }

    /// DoRA's magnitudes before training: with B at zero, the L2 norms of the weight's rows.
    ///
    /// # Shapes
    /// `weight` [out, in], any float type → [out], F32.
    pub fn initial_magnitude(&self, weight: &Tensor) -> Result<Tensor> {
        let norms = row_norms(&wide(weight)?)?;
        Ok(Tensor::from_vec(norms, self.out_features, &Device::Cpu)?)
    }

    /// The weight with its adapter folded in, F32: `V = W + scaling·B·A`, and with DoRA each row of V
    /// at its magnitude, `m·V/‖V‖`.
    ///
    /// # Shapes
    /// `weight` [out, in], `a` [r, in], `b` [out, r], `magnitude` [out] → [out, in]
    ///
    /// # Errors
    /// [`Error::Magnitude`] when `use_dora` has no `magnitude`, or a magnitude comes without it.
    pub fn merge(
        &self,
        weight: &Tensor,
        a: &Tensor,
        b: &Tensor,
        magnitude: Option<&Tensor>,
    ) -> Result<Tensor> {
        let update = wide(b)?.matmul(&wide(a)?)?; // [out, in]
        let merged = (wide(weight)? + (update * self.scaling)?)?;
        match (self.use_dora, magnitude) {
            (false, None) => Ok(merged),
            (true, Some(magnitude)) => {
                let factors: Vec<f32> = wide(magnitude)?
                    .to_vec1::<f32>()?
                    .into_iter()
                    .zip(row_norms(&merged)?)
                    // A row of zeros has no direction to scale.
                    .map(|(m, norm)| if norm > 0.0 { m / norm } else { 0.0 })
                    .collect();
                let factors = Tensor::from_vec(factors, (self.out_features, 1), &Device::Cpu)?;
                Ok(merged.broadcast_mul(&factors)?)
            }
            (use_dora, _) => Err(Error::Magnitude {
                module: self.name.clone(),
                problem: if use_dora {
                    "use_dora needs its magnitudes"
                } else {
                    "magnitudes belong to use_dora, which is off"
                },
            }),
        }
    }
}

fn wide(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.detach().to_dtype(DType::F32)?.contiguous()?)
}

/// L2 norms of the rows of an F32 matrix, summed in f64.
fn row_norms(matrix: &Tensor) -> Result<Vec<f32>> {
    let columns = matrix.dim(1)?;
    let values = matrix.flatten_all()?.to_vec1::<f32>()?;
    let norm = |row: &[f32]| {
        let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        squares.sqrt() as f32
    };
    Ok(values.chunks_exact(columns).map(norm).collect())
}

/// One parameter of the base model that `modules_to_save` trains whole and keeps in the adapter's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedModule {
    /// Its name in a checkpoint: `lm_head.weight`, `model.layers.0.input_layernorm.weight`.
    pub parameter: String,
    /// Its name in PEFT's file, and among the trained tensors.
    pub peft_name: String,
    pub shape: Vec<usize>,
    /// It is the embedding of a model whose head is the same matrix, and so trained as both.
    pub tied: bool,
}

impl SavedModule {
    pub(crate) fn new(parameter: String, shape: Vec<usize>, tied: bool) -> Self {
        Self {
            peft_name: format!("{PEFT_PREFIX}{parameter}"),
            parameter,
            shape,
            tied,
        }
    }
}
