//! Tensors on their way from a checkpoint, or from a random number generator, into layers.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use ops::dropout::key_of_name;
use ops::packed::PackedMatrix;

use super::block::Block;
use super::linear::{LayerDropout, Linear, LowRank, Magnitude, Parameter, Value, Weight};
use super::mlp::Mlp;
use super::norm::Norm;
use crate::Result;
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::lora::{LoraConfig, LoraModule, SavedModule};
use crate::parameters::{Kind, Module, layer_modules};

/// What a decoder is loaded for.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Decoding: weights are packed, nothing is trained.
    Inference,
    /// An online teacher: nothing is trained, weights lie as they do for training.
    Frozen,
    /// Every parameter is trained.
    Full,
    /// Adapters on frozen weights; `seed` starts their A matrices.
    Lora { config: &'a LoraConfig, seed: u64 },
}

/// Where a parameter's values come from: its name, shape and type to a tensor on the CPU.
pub type Source<'a> = &'a dyn Fn(&str, &[usize], DType) -> Result<Tensor>;

pub struct Builder<'a> {
    pub config: &'a ModelConfig,
    pub source: Source<'a>,
    pub mode: Mode<'a>,
    /// What frozen matrices are kept as: F32 or BF16.
    pub dtype: DType,
    /// Where the layers are to lie.
    pub device: &'a Device,
    /// Of each layer.
    modules: Vec<Module>,
    /// The adapted modules, and the adapter they continue from.
    adapted: Vec<LoraModule>,
    saved: Vec<SavedModule>,
    adapter: Option<Adapter>,
    /// What is trained, in the order of the modules.
    pub trainable: Vec<(String, Var)>,
}

impl<'a> Builder<'a> {
    pub fn new(
        config: &'a ModelConfig,
        source: Source<'a>,
        mode: Mode<'a>,
        dtype: DType,
        device: &'a Device,
    ) -> Result<Self> {
        let (adapted, saved, adapter) = match mode {
            Mode::Lora { config: lora, .. } => {
                let modules = lora.modules(config)?;
                let saved = lora.saved_modules(config)?;
                let adapter = lora
                    .init_from
                    .as_ref()
                    .map(|from| Adapter::open(from.path()))
                    .transpose()?;
                if let Some(adapter) = &adapter {
                    adapter.check(&modules, &saved)?;
                }
                (modules, saved, adapter)
            }
            _ => (Vec::new(), Vec::new(), None),
        };
        Ok(Self {
            config,
            source,
            mode,
            dtype,
            device,
            modules: layer_modules(config),
            adapted,
            saved,
            adapter,
            trainable: Vec::new(),
        })
    }

    /// The embedding or the head, and the name its gradient goes by where it is trained.
    pub fn matrix(&mut self, name: &str, shape: &[usize]) -> Result<(Tensor, Option<String>)> {
        Ok(match self.tensor(name, shape, self.dtype)? {
            Value::Frozen(tensor) => (tensor, None),
            Value::Trained(parameter) => (
                parameter.var.as_tensor().clone(),
                Some(parameter.name.clone()),
            ),
        })
    }

    pub fn norm(&mut self, name: &str, size: usize) -> Result<Norm> {
        Ok(Norm {
            weight: self.tensor(name, &[size], DType::F32)?,
            eps: self.config.rms_norm_eps,
        })
    }

    /// A norm of a layer, where its architecture has it.
    fn layer_norm(&mut self, layer: usize, path: &str) -> Result<Option<Norm>> {
        match self.module(path) {
            Some((module, Kind::Norm { size })) => {
                let name = format!("{}.weight", module.name(layer));
                self.norm(&name, size).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn module(&self, path: &str) -> Option<(Module, Kind)> {
        let module = self.modules.iter().find(|module| module.path == path)?;
        Some((*module, module.kind))
    }

    /// One of the checkpoint's parameters: trained in full fine-tuning, or where `modules_to_save` takes it, else
    /// frozen as `dtype`.
    fn tensor(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Value> {
        if matches!(self.mode, Mode::Full) {
            let tensor = (self.source)(name, shape, DType::F32)?;
            return Ok(Value::Trained(self.train(name, tensor)?));
        }
        let Some(saved) = self.saved.iter().find(|saved| saved.parameter == name) else {
            let tensor = (self.source)(name, shape, dtype)?;
            return Ok(Value::Frozen(tensor.to_device(self.device)?));
        };
        let tensor = match &self.adapter {
            Some(adapter) => adapter.saved(saved)?,
            None => (self.source)(name, shape, DType::F32)?,
        };
        let peft_name = saved.peft_name.clone();
        Ok(Value::Trained(self.train(&peft_name, tensor)?))
    }

    fn train(&mut self, name: &str, tensor: Tensor) -> Result<Parameter> {
        let var = Var::from_tensor(&tensor.to_device(self.device)?)?;
        self.trainable.push((name.to_owned(), var.clone()));
        Ok(Parameter {
            name: name.to_owned(),
            var,
        })
    }

    pub fn block(&mut self, layer: usize) -> Result<Block> {
        let missing = |path: &str| crate::Error::NoModule { path: path.into() };
        let norm = |builder: &mut Self, path: &str| {
            let norm = builder.layer_norm(layer, path)?;
            norm.ok_or_else(|| missing(path))
        };
        Ok(Block {
            input_norm: norm(self, "input_layernorm")?,
            q: self.linear(layer, "self_attn.q_proj")?,
            k: self.linear(layer, "self_attn.k_proj")?,
            v: self.linear(layer, "self_attn.v_proj")?,
            o: self.linear(layer, "self_attn.o_proj")?,
            qk_norms: self
                .layer_norm(layer, "self_attn.q_norm")?
                .zip(self.layer_norm(layer, "self_attn.k_norm")?),
            mlp: Mlp {
                norm: norm(self, "post_attention_layernorm")?,
                gate: self.linear(layer, "mlp.gate_proj")?,
                up: self.linear(layer, "mlp.up_proj")?,
                down: self.linear(layer, "mlp.down_proj")?,
            },
            head_dim: self.config.head_dim,
        })
    }

    fn linear(&mut self, layer: usize, path: &str) -> Result<Linear> {
        let Some((
            module,
            Kind::Linear {
                rows,
                columns,
                bias,
            },
        )) = self.module(path)
        else {
            return Err(crate::Error::NoModule { path: path.into() });
        };
        let module = module.name(layer);
        let name = format!("{module}.weight");
        let weight = match (self.tensor(&name, &[rows, columns], self.dtype)?, self.mode) {
            (Value::Trained(weight), _) => Weight::Trained(weight),
            (Value::Frozen(weight), Mode::Inference) => Weight::Packed(pack(&weight)?),
            (Value::Frozen(weight), Mode::Lora { seed, .. }) => {
                self.adapt(&module, weight, seed)?
            }
            (Value::Frozen(weight), Mode::Frozen | Mode::Full) => Weight::Frozen(weight),
        };
        let bias = if bias {
            Some(self.tensor(&format!("{module}.bias"), &[rows], DType::F32)?)
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
        let magnitude = if module.use_dora {
            // The norms of what was stored, not of what it was rounded to.
            let shape = weight.dims();
            let exact = (self.source)(&format!("{name}.weight"), shape, DType::F32)?;
            let started = match &self.adapter {
                Some(adapter) => adapter.magnitude(&module)?,
                None => None,
            };
            let values = match started {
                Some(values) => values,
                None => module.initial_magnitude(&exact)?,
            };
            Some(Magnitude {
                weight_squares: exact.sqr()?.sum(1)?.to_device(self.device)?,
                parameter: self.train(&module.magnitude_name(), values)?,
            })
        } else {
            None
        };
        Ok(Weight::Adapted {
            weight,
            adapter: LowRank {
                a: self.train(&module.a_name(), a)?,
                b: self.train(&module.b_name(), b)?,
                scale: module.scaling as f32,
                magnitude,
                dropout: LayerDropout {
                    rate: module.dropout as f32,
                    key: key_of_name(&module.name),
                },
            },
        })
    }
}

/// A weight [out, in] in the form decoding multiplies with.
pub fn pack(weight: &Tensor) -> Result<Arc<PackedMatrix>> {
    let (rows, columns) = weight.dims2()?;
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    Ok(Arc::new(PackedMatrix::pack(&values, rows, columns)))
}
