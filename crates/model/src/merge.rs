//! A base and what was trained beside or on it, folded into one checkpoint, a parameter at a time.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::lora::{LoraConfig, LoraModule, SavedModule};

/// Which parameters of a checkpoint an adapter changes.
pub struct Merge {
    /// By the names of their weights.
    adapted: HashMap<String, LoraModule>,
    saved: HashMap<String, SavedModule>,
}

impl Merge {
    /// # Errors
    /// Those of [`LoraConfig::modules`] and [`LoraConfig::saved_modules`].
    pub fn new(lora: &LoraConfig, config: &ModelConfig) -> Result<Self> {
        let adapted = lora.modules(config)?.into_iter();
        let saved = lora.saved_modules(config)?.into_iter();
        Ok(Self {
            adapted: adapted.map(|m| (m.weight_name(), m)).collect(),
            saved: saved.map(|m| (m.parameter.clone(), m)).collect(),
        })
    }

    /// The merged parameter `name`. `base` gives its value in the base, `trained` an adapter's tensor by
    /// PEFT's name; each is asked for no more than this parameter needs.
    ///
    /// # Errors
    /// Those of `base` and `trained`.
    pub fn tensor(
        &self,
        name: &str,
        base: impl FnOnce() -> Result<Tensor>,
        trained: impl Fn(&str) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if let Some(saved) = self.saved.get(name) {
            return trained(&saved.peft_name);
        }
        let Some(module) = self.adapted.get(name) else {
            return base();
        };
        let (a, b) = (trained(&module.a_name())?, trained(&module.b_name())?);
        let magnitude = module
            .use_dora
            .then(|| trained(&module.magnitude_name()))
            .transpose()?;
        module.merge(&base()?, &a, &b, magnitude.as_ref())
    }
}
