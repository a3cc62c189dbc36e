//! Tensors on their way from a checkpoint, or from a random number generator, into layers.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use ops::packed::PackedMatrix;

use super::block::Block;
use super::linear::{Bias, Linear, Weight};
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::lora::{LoraConfig, LoraModule};
use crate::parameters::{has_bias, projection_module, projection_shape};
use crate::{Error, Result};

/// What a decoder is loaded for.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Decoding: weights are packed, nothing is trained.
    Inference,
    /// Every parameter is trained.
    Full,
    /// Adapters on frozen weights; `seed` starts their A matrices.
    Lora { config: &'a LoraConfig, seed: u64 },
}

/// Where a parameter's values come from: its name and shape to an f32 tensor.
pub type Source<'a> = &'a dyn Fn(&str, &[usize]) -> Result<Tensor>;

pub struct Builder<'a> {
    pub config: &'a ModelConfig,
    pub source: Source<'a>,
    pub mode: Mode<'a>,
    /// The adapted modules, and the adapter they continue from.
    adapted: Vec<LoraModule>,
    adapter: Option<Adapter>,
    /// What is trained, in the order of the modules.
    pub trainable: Vec<(String, Var)>,
}

impl<'a> Builder<'a> {
    pub fn new(config: &'a ModelConfig, source: Source<'a>, mode: Mode<'a>) -> Result<Self> {
        let (adapted, adapter) = match mode {
            Mode::Lora { config: lora, .. } => {
                not_in_this_build(lora)?;
                let modules = lora.modules(config)?;
                let saved = lora.saved_modules(config)?;
                let adapter = lora.init_from.as_deref().map(Adapter::open).transpose()?;
                if let Some(adapter) = &adapter {
                    adapter.check(&modules, &saved)?;
                }
                (modules, adapter)
            }
            _ => (Vec::new(), None),
        };
        Ok(Self {
            config,
            source,
            mode,
            adapted,
            adapter,
            trainable: Vec::new(),
        })
    }

    /// A norm or the embedding: a plain tensor, trained in full fine-tuning.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = (self.source)(name, shape)?;
        if !matches!(self.mode, Mode::Full) {
            return Ok(tensor);
        }
        let var = self.train(name, tensor)?;
        Ok(var.as_tensor().clone())
    }

    fn train(&mut self, name: &str, tensor: Tensor) -> Result<Var> {
        let var = Var::from_tensor(&tensor)?;
        self.trainable.push((name.to_owned(), var.clone()));
        Ok(var)
    }

    pub fn block(&mut self, layer: usize) -> Result<Block> {
        let config = self.config;
        let prefix = format!("model.layers.{layer}");
        let d = [config.hidden_size];
        Ok(Block {
            input_norm: self.tensor(&format!("{prefix}.input_layernorm.weight"), &d)?,
            q: self.linear(layer, "q_proj")?,
            k: self.linear(layer, "k_proj")?,
            v: self.linear(layer, "v_proj")?,
            o: self.linear(layer, "o_proj")?,
            qk_norms: if config.qk_norm {
                let c = [config.head_dim];
                Some((
                    self.tensor(&format!("{prefix}.self_attn.q_norm.weight"), &c)?,
                    self.tensor(&format!("{prefix}.self_attn.k_norm.weight"), &c)?,
                ))
            } else {
                None
            },
            post_attention_norm: self
                .tensor(&format!("{prefix}.post_attention_layernorm.weight"), &d)?,
            gate: self.linear(layer, "gate_proj")?,
            up: self.linear(layer, "up_proj")?,
            down: self.linear(layer, "down_proj")?,
            rms_norm_eps: config.rms_norm_eps,
            head_dim: config.head_dim,
        })
    }

    fn linear(&mut self, layer: usize, projection: &str) -> Result<Linear> {
        let module = projection_module(layer, projection);
        let (rows, columns) = projection_shape(self.config, projection);
        let name = format!("{module}.weight");
        let weight = (self.source)(&name, &[rows, columns])?;
        let weight = match self.mode {
            Mode::Inference => Weight::Packed(pack(&weight)?),
            Mode::Full => Weight::Trained(self.train(&name, weight)?),
            Mode::Lora { seed, .. } => self.adapt(&module, weight, seed)?,
        };
        let bias = if has_bias(self.config, projection) {
            let name = format!("{module}.bias");
            let bias = (self.source)(&name, &[rows])?;
            Some(match self.mode {
                Mode::Full => Bias::Trained(self.train(&name, bias)?),
                _ => Bias::Frozen(bias),
            })
        } else {
            None
        };
        Ok(Linear { weight, bias })
    }

    fn adapt(&mut self, name: &str, weight: Tensor, seed: u64) -> Result<Weight> {
        let Some(module) = self
            .adapted
            .iter()
            .find(|module| module.name == name)
            .cloned()
        else {
            return Ok(Weight::Frozen(weight));
        };
        let (a, b) = match &self.adapter {
            Some(adapter) => adapter.pair(&module)?,
            None => (module.initial_a(seed)?, module.initial_b()?),
        };
        Ok(Weight::Adapted {
            weight,
            a: self.train(&module.a_name(), a)?,
            b: self.train(&module.b_name(), b)?,
            scale: module.scaling as f32,
        })
    }
}

/// Refuses what the layers cannot train yet.
fn not_in_this_build(lora: &LoraConfig) -> Result<()> {
    let refuse = |key, value: String| {
        Err(Error::Setting {
            key,
            value,
            allowed: "is not supported by this build".into(),
        })
    };
    if lora.use_dora {
        return refuse("use_dora", "true".into());
    }
    if lora.dropout != 0.0 {
        return refuse("dropout", lora.dropout.to_string());
    }
    if !lora.modules_to_save.is_empty() {
        return refuse("modules_to_save", lora.modules_to_save.join(", "));
    }
    Ok(())
}

/// A weight [out, in] in the form decoding multiplies with.
pub fn pack(weight: &Tensor) -> Result<Arc<PackedMatrix>> {
    let (rows, columns) = weight.dims2()?;
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    Ok(Arc::new(PackedMatrix::pack(&values, rows, columns)))
}
