//! An adapter in PEFT's file format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

use crate::config::ModelConfig;
use crate::error::{Error, Result, read_json};
use crate::lora::{LoraConfig, LoraModule, Patterns, SavedModule};
use crate::parameters::{EMBEDDING, HEAD};
use crate::weights::Weights;

/// An adapter read from a PEFT folder.
pub struct Adapter {
    pub config: LoraConfig,
    /// The file's rank and alpha patterns in the file's order, which is what PEFT goes by.
    patterns: Patterns,
    path: PathBuf,
    weights: Weights,
}

pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

impl LoraConfig {
    /// Names, as PEFT's files have them, and shapes of everything that is trained.
    ///
    /// Reads the file headers of [`init_from`](Self::init_from) too, so that settings which do not go with the
    /// model or with that adapter are refused before any weight is loaded.
    ///
    /// # Errors
    /// Those of [`modules`](Self::modules), [`saved_modules`](Self::saved_modules) and [`Adapter::check`].
    pub fn trained(&self, config: &ModelConfig) -> Result<Vec<(String, Vec<usize>)>> {
        let (modules, saved) = (self.modules(config)?, self.saved_modules(config)?);
        if let Some(folder) = &self.init_from {
            Adapter::open(folder.path())?.check(&modules, &saved)?;
        }
        let saved = saved
            .into_iter()
            .map(|module| (module.peft_name, module.shape));
        Ok(modules
            .iter()
            .flat_map(LoraModule::tensors)
            .chain(saved)
            .collect())
    }
}

impl Adapter {
    pub fn open(dir: &Path) -> Result<Self> {
        let config_path = dir.join(ADAPTER_CONFIG);
        let text = read_json(&config_path)?;
        let path = dir.join(ADAPTER_WEIGHTS);
        Ok(Self {
            config: LoraConfig::from_peft(&text, &config_path)?,
            patterns: LoraConfig::patterns_of_file(&text)?,
            weights: Weights::open_file(&path)?,
            path,
        })
    }

    /// A `[r, in]` and B `[out, r]` of one module, F32 on the CPU, shapes checked.
    pub fn pair(&self, module: &LoraModule) -> Result<(Tensor, Tensor)> {
        let a_shape = [module.rank, module.in_features];
        let b_shape = [module.out_features, module.rank];
        Ok((
            self.weights
                .tensor_of_shape(&module.a_name(), &a_shape, DType::F32)?,
            self.weights
                .tensor_of_shape(&module.b_name(), &b_shape, DType::F32)?,
        ))
    }

    /// DoRA's magnitudes `[out]` of one module, F32 on the CPU; `None` where it has none.
    pub fn magnitude(&self, module: &LoraModule) -> Result<Option<Tensor>> {
        module
            .use_dora
            .then(|| {
                let shape = [module.out_features];
                self.weights
                    .tensor_of_shape(&module.magnitude_name(), &shape, DType::F32)
            })
            .transpose()
    }

    /// A parameter that was trained whole, F32 on the CPU.
    pub fn saved(&self, module: &SavedModule) -> Result<Tensor> {
        self.weights
            .tensor_of_shape(&module.peft_name, &module.shape, DType::F32)
    }

    /// One tensor by PEFT's name, F32 on the CPU.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.weights.tensor(name, DType::F32)
    }

    /// Checks that the file holds what these modules and parameters need and nothing else, which would be
    /// lost, and that it was trained at the same scaling.
    pub fn check(&self, modules: &[LoraModule], saved: &[SavedModule]) -> Result<()> {
        let refuse = |problem: String| Error::Adapter {
            path: self.path.clone(),
            problem,
        };
        let mut expected: BTreeMap<String, Vec<usize>> = saved
            .iter()
            .map(|module| (module.peft_name.clone(), module.shape.clone()))
            .chain(modules.iter().flat_map(LoraModule::tensors))
            .collect();
        self.check_tied_head(saved, &mut expected)?;
        if let Some(extra) = self
            .weights
            .names()
            .find(|name| !expected.contains_key(*name))
        {
            let problem = if extra.ends_with("lora_magnitude_vector") {
                "has magnitudes: it was trained with use_dora".into()
            } else {
                format!("tensor `{extra}` belongs to no targeted or saved module of this model")
            };
            return Err(refuse(problem));
        }
        for module in modules {
            if !self
                .config
                .reach
                .takes(&module.name, &self.config.targets)?
            {
                return Err(refuse(format!(
                    "was trained without `{}`, which its {ADAPTER_CONFIG} leaves out (exclude_modules, layers_to_transform); write targets as a regular expression that matches the layers it has",
                    module.name
                )));
            }
            if module.use_dora && !self.weights.contains(&module.magnitude_name()) {
                return Err(refuse(
                    "has no magnitudes: it was trained without use_dora".into(),
                ));
            }
            // The same tensors under another scaling would be another adapter.
            let scaling = self.config.scaling(&self.patterns, &module.name);
            if (scaling - module.scaling).abs() > 1e-9 * scaling {
                return Err(refuse(format!(
                    "`{}` was trained at scaling {scaling}, but is to be used at {}; set rank, alpha, use_rslora and the patterns as its {ADAPTER_CONFIG} has them",
                    module.name, module.scaling
                )));
            }
        }
        for (name, shape) in expected {
            let found = self.weights.shape(&name)?;
            if found != shape {
                return Err(Error::TensorShape {
                    path: self.path.clone(),
                    name,
                    found: found.to_vec(),
                    expected: shape,
                });
            }
        }
        Ok(())
    }

    /// A file with a tied head holds its matrix under both names; both have to be the same.
    fn check_tied_head(
        &self,
        saved: &[SavedModule],
        expected: &mut BTreeMap<String, Vec<usize>>,
    ) -> Result<()> {
        let embedding = saved.iter().find(|module| module.parameter == EMBEDDING);
        let Some(embedding) = embedding.filter(|module| module.tied) else {
            return Ok(());
        };
        let head = SavedModule::new(HEAD.into(), embedding.shape.clone(), false);
        let both = [&embedding.peft_name, &head.peft_name];
        let same = both.iter().all(|name| self.weights.contains(name)) && {
            let values =
                |module| -> Result<Vec<f32>> { Ok(self.saved(module)?.flatten_all()?.to_vec1()?) };
            values(embedding)? == values(&head)?
        };
        if !same {
            return Err(Error::Adapter {
                path: self.path.clone(),
                problem: "trained the embedding apart from the head that this model ties to it (PEFT without ensure_weight_tying); the tied model cannot hold both".into(),
            });
        }
        expected.insert(head.peft_name, head.shape);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
