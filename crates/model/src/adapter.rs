//! An adapter in PEFT's file format.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};

use crate::error::{Error, Result, read_json};
use crate::lora::{LoraConfig, LoraModule};
use crate::weights::Weights;

/// An adapter read from a PEFT folder.
pub struct Adapter {
    pub config: LoraConfig,
    path: PathBuf,
    weights: Weights,
}

pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

impl Adapter {
    pub fn open(dir: &Path) -> Result<Self> {
        let config_path = dir.join(ADAPTER_CONFIG);
        let config = LoraConfig::from_peft(&read_json(&config_path)?, &config_path)?;
        let path = dir.join(ADAPTER_WEIGHTS);
        Ok(Self {
            config,
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

    /// Checks that the file holds these modules' pairs and nothing else, which would be lost.
    pub fn check(&self, modules: &[LoraModule]) -> Result<()> {
        let names: std::collections::BTreeSet<String> = modules
            .iter()
            .flat_map(|m| [m.a_name(), m.b_name()])
            .collect();
        if let Some(extra) = self.weights.names().find(|name| !names.contains(*name)) {
            return Err(Error::Adapter {
                path: self.path.clone(),
                problem: format!("tensor `{extra}` belongs to no targeted module of this model"),
            });
        }
        for module in modules {
            // The same tensors under another scaling would be another adapter.
            let scaling = self.config.scaling_of(&module.name);
            if (scaling - module.scaling).abs() > 1e-9 * scaling {
                return Err(Error::Adapter {
                    path: self.path.clone(),
                    problem: format!(
                        "`{}` was trained at scaling {scaling}, but is to be used at {}; set rank, alpha, use_rslora and the patterns as its {ADAPTER_CONFIG} has them",
                        module.name, module.scaling
                    ),
                });
            }
            for (name, shape) in [
                (module.a_name(), [module.rank, module.in_features]),
                (module.b_name(), [module.out_features, module.rank]),
            ] {
                let found = self.weights.shape(&name)?;
                if found != shape {
                    return Err(Error::TensorShape {
                        path: self.path.clone(),
                        name,
                        expected: shape.to_vec(),
                        found: found.to_vec(),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ModelConfig;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/model")
            .join(name)
    }

    fn model() -> ModelConfig {
        ModelConfig::from_dir(&fixture("llama-linear-bias")).unwrap()
    }

    /// Made by scripts/fixtures/make_model_fixtures.py with PEFT 0.21.
    #[test]
    fn a_peft_adapter_merges_as_in_peft() {
        let adapter = Adapter::open(&fixture("adapter")).unwrap();
        assert_eq!(adapter.config.targets, ["q_proj", "down_proj"]);
        let modules = adapter.config.modules(&model()).unwrap();
        adapter.check(&modules).unwrap();
        let base = Weights::open(&fixture("llama-linear-bias")).unwrap();
        let merged = Weights::open_file(&fixture("adapter/merged.safetensors")).unwrap();
        assert_eq!(merged.names().count(), 3);
        for name in merged.names() {
            let module = modules.iter().find(|m| m.weight_name() == name).unwrap();
            let (a, b) = adapter.pair(module).unwrap();
            let weight = base.tensor(name, DType::F32).unwrap();
            let found = module.merge(&weight, &a, &b).unwrap();
            let error = (found - merged.tensor(name, DType::F32).unwrap())
                .unwrap()
                .abs()
                .unwrap();
            let error = error.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(error < 1e-6, "{name}: {error}");
            let moved = (merged.tensor(name, DType::F32).unwrap() - weight)
                .unwrap()
                .abs()
                .unwrap();
            assert!(moved.max_all().unwrap().to_scalar::<f32>().unwrap() > 1e-2);
        }
    }

    #[test]
    fn an_adapter_is_not_continued_at_another_scaling() {
        let adapter = Adapter::open(&fixture("adapter")).unwrap();
        let other = LoraConfig {
            alpha: 60.0,
            ..adapter.config.clone()
        };
        let modules = other.modules(&model()).unwrap();
        let message = adapter.check(&modules).unwrap_err().to_string();
        assert!(message.contains("scaling"), "{message}");
    }

    #[test]
    fn an_adapter_survives_writing() {
        let adapter = Adapter::open(&fixture("adapter")).unwrap();
        let modules = adapter.config.modules(&model()).unwrap();
        let tensors: Vec<_> = modules
            .iter()
            .flat_map(|module| {
                let (a, b) = adapter.pair(module).unwrap();
                [(module.a_name(), a), (module.b_name(), b)]
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("adapter");
        crate::export::save_adapter(&out, &adapter.config, Some("base"), None, &tensors).unwrap();
        let again = Adapter::open(&out).unwrap();
        assert_eq!(again.config, adapter.config);
        again.check(&modules).unwrap();

        // Every key PEFT writes, with PEFT's values where they say the same.
        let theirs = read_json(&fixture("adapter").join(ADAPTER_CONFIG)).unwrap();
        let ours = read_json(&out.join(ADAPTER_CONFIG)).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            match key.as_str() {
                "target_modules" | "base_model_name_or_path" => assert!(ours.get(key).is_some()),
                _ => assert_eq!(&ours[key], value, "{key}"),
            }
        }
        assert_eq!(
            ours.as_object().unwrap().len(),
            theirs.as_object().unwrap().len()
        );
    }
}
