//! LoRA (arXiv 2106.09685): which modules get adapters, how they start, and PEFT's file format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::named_rng::named_rng;
use crate::parameters::{PROJECTIONS, projection_module, projection_shape};

/// The recipe's `[train.lora]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// r, at least 1.
    pub rank: usize,
    /// The update is scaled by alpha / r.
    pub alpha: f64,
    /// Projections by name: `q_proj` … `down_proj`.
    pub targets: Vec<String>,
    /// Share of an adapter's inputs dropped in training; only 0 for now.
    pub dropout: f64,
    /// Scales by alpha / √r instead (arXiv 2312.03732).
    pub use_rslora: bool,
    /// Not supported yet.
    pub use_dora: bool,
    /// Ranks of single modules, by the end of their dotted names: `q_proj`, `layers.0.mlp.up_proj`.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules, named likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Not supported yet.
    pub modules_to_save: Vec<String>,
    /// A PEFT adapter folder to continue from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            targets: PROJECTIONS.map(String::from).to_vec(),
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            init_from: None,
        }
    }
}

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
}

impl LoraModule {
    /// PEFT's name of A, `[r, in]`.
    pub fn a_name(&self) -> String {
        format!("base_model.model.{}.lora_A.weight", self.name)
    }

    /// PEFT's name of B, `[out, r]`.
    pub fn b_name(&self) -> String {
        format!("base_model.model.{}.lora_B.weight", self.name)
    }

    /// The adapted weight's name in the checkpoint.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
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

    /// `W + scaling·B·A` in F32.
    ///
    /// # Shapes
    /// `weight` [out, in], `a` [r, in], `b` [out, r] → [out, in]
    pub fn merge(&self, weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let wide = |t: &Tensor| t.detach().to_dtype(DType::F32)?.contiguous();
        let update = wide(b)?.matmul(&wide(a)?)?; // [out, in]
        Ok((wide(weight)? + (update * self.scaling)?)?)
    }
}

impl LoraConfig {
    /// Checks values and that nothing is asked for that is not supported yet.
    pub fn validate(&self) -> Result<()> {
        let setting = |key, value: String, allowed: &str| Error::Setting {
            key,
            value,
            allowed: allowed.into(),
        };
        if self.rank == 0 || self.rank_pattern.values().any(|rank| *rank == 0) {
            return Err(setting("rank", "0".into(), "must be at least 1"));
        }
        let alphas = self.alpha_pattern.values().chain([&self.alpha]);
        for alpha in alphas {
            if !(alpha.is_finite() && *alpha > 0.0) {
                return Err(setting("alpha", alpha.to_string(), "must be above 0"));
            }
        }
        if self.targets.is_empty() {
            return Err(setting(
                "targets",
                "[]".into(),
                "must name at least one projection",
            ));
        }
        for target in &self.targets {
            if !PROJECTIONS.contains(&target.as_str()) {
                let allowed = format!("must be among {}", PROJECTIONS.join(", "));
                return Err(setting("targets", target.clone(), &allowed));
            }
        }
        if self.dropout != 0.0 {
            let value = self.dropout.to_string();
            return Err(setting("dropout", value, "is not supported yet; only 0 is"));
        }
        if self.use_dora {
            return Err(setting("use_dora", "true".into(), "is not supported yet"));
        }
        if !self.modules_to_save.is_empty() {
            let value = self.modules_to_save.join(", ");
            return Err(setting("modules_to_save", value, "is not supported yet"));
        }
        for (key, patterns) in [
            ("rank_pattern", self.rank_pattern.keys().collect::<Vec<_>>()),
            ("alpha_pattern", self.alpha_pattern.keys().collect()),
        ] {
            for pattern in patterns {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                if !pattern.chars().all(is_name) {
                    let allowed = "regular expressions are not supported yet; write the end of a module's dotted name";
                    return Err(setting(key, pattern.clone(), allowed));
                }
            }
        }
        Ok(())
    }

    /// The adapted layers of a model, in the order of its modules.
    ///
    /// # Errors
    /// What [`validate`](Self::validate) refuses, and a pattern that no targeted module matches.
    pub fn modules(&self, config: &ModelConfig) -> Result<Vec<LoraModule>> {
        self.validate()?;
        let mut modules = Vec::new();
        for layer in 0..config.n_layers {
            for projection in PROJECTIONS {
                if !self.targets.iter().any(|target| target == projection) {
                    continue;
                }
                let name = projection_module(layer, projection);
                let (out_features, in_features) = projection_shape(config, projection);
                let (rank, scaling) = (self.rank_of(&name), self.scaling_of(&name));
                modules.push(LoraModule {
                    name,
                    in_features,
                    out_features,
                    rank,
                    scaling,
                });
            }
        }
        for (key, patterns) in [
            ("rank_pattern", self.rank_pattern.keys().collect::<Vec<_>>()),
            ("alpha_pattern", self.alpha_pattern.keys().collect()),
        ] {
            for pattern in patterns {
                if !modules
                    .iter()
                    .any(|module| ends_with(&module.name, pattern))
                {
                    return Err(Error::Setting {
                        key,
                        value: pattern.clone(),
                        allowed: "matches no targeted module".into(),
                    });
                }
            }
        }
        Ok(modules)
    }

    fn rank_of(&self, module: &str) -> usize {
        *matching(&self.rank_pattern, module).unwrap_or(&self.rank)
    }

    pub(crate) fn scaling_of(&self, module: &str) -> f64 {
        let rank = self.rank_of(module) as f64;
        let alpha = *matching(&self.alpha_pattern, module).unwrap_or(&self.alpha);
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// `adapter_config.json` with the fields PEFT 0.21 writes.
    fn to_peft(&self, base_model: Option<&str>) -> Value {
        // PEFT's own files hold whole alphas as integers.
        let number = |x: f64| {
            if x.fract() == 0.0 {
                json!(x as i64)
            } else {
                json!(x)
            }
        };
        let mut targets = self.targets.clone();
        targets.sort();
        json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": longest_first(&self.alpha_pattern, |alpha| number(*alpha)),
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": base_model,
            "bias": "none",
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": null,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": number(self.alpha),
            "lora_bias": false,
            "lora_dropout": self.dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": null,
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": "0.21.2",
            "qalora_group_size": 16,
            "r": self.rank,
            "rank_pattern": longest_first(&self.rank_pattern, |rank| json!(rank)),
            "revision": null,
            "target_modules": targets,
            "target_parameters": null,
            "task_type": "CAUSAL_LM",
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": self.use_dora,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        })
    }

    /// Reads PEFT's `adapter_config.json`; what would change the adapter's mathematics and is not
    /// supported is refused.
    pub(crate) fn from_peft(peft: &Value, path: &Path) -> Result<Self> {
        let refuse = |key: &str, problem: &str| Error::Config {
            path: path.into(),
            key: key.into(),
            problem: problem.into(),
        };
        if peft["peft_type"] != "LORA" {
            return Err(refuse("peft_type", "must be LORA"));
        }
        for key in [
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "lora_bias",
            "fan_in_fan_out",
            "layer_replication",
            "layers_to_transform",
            "modules_to_save",
            "target_parameters",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "arrow_config",
            "kasa_config",
            "velora_config",
            "monteclora_config",
            "exclude_modules",
        ] {
            let off = match &peft[key] {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                _ => false,
            };
            if !off {
                return Err(refuse(key, "is not supported yet"));
            }
        }
        if peft["bias"].as_str().is_some_and(|bias| bias != "none") {
            return Err(refuse("bias", "is not supported; only \"none\" is"));
        }
        let targets = match &peft["target_modules"] {
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(String::from))
                .collect::<Option<Vec<_>>>(),
            Value::String(all) if all == "all-linear" => {
                Some(PROJECTIONS.map(String::from).to_vec())
            }
            _ => None,
        }
        .ok_or_else(|| refuse("target_modules", "must be a list of module names"))?;
        // PEFT keeps them as a set; the model's order is the one order that is always the same.
        let mut ordered: Vec<String> = PROJECTIONS
            .iter()
            .filter(|projection| targets.iter().any(|target| target == *projection))
            .map(|projection| projection.to_string())
            .collect();
        ordered.extend(
            targets
                .into_iter()
                .filter(|t| !PROJECTIONS.contains(&t.as_str())),
        );
        let pattern = |key: &str| peft[key].as_object().cloned().unwrap_or_default();
        let config = Self {
            rank: peft["r"]
                .as_u64()
                .ok_or_else(|| refuse("r", "must be a whole number"))? as usize,
            alpha: peft["lora_alpha"]
                .as_f64()
                .ok_or_else(|| refuse("lora_alpha", "must be a number"))?,
            targets: ordered,
            // Dropout acts in training only, so it does not belong to what was learned.
            dropout: 0.0,
            use_rslora: peft["use_rslora"].as_bool().unwrap_or(false),
            use_dora: false,
            rank_pattern: pattern("rank_pattern")
                .into_iter()
                .map(|(name, rank)| Some((name, rank.as_u64()? as usize)))
                .collect::<Option<_>>()
                .ok_or_else(|| refuse("rank_pattern", "must hold whole numbers"))?,
            alpha_pattern: pattern("alpha_pattern")
                .into_iter()
                .map(|(name, alpha)| Some((name, alpha.as_f64()?)))
                .collect::<Option<_>>()
                .ok_or_else(|| refuse("alpha_pattern", "must hold numbers"))?,
            modules_to_save: Vec::new(),
            init_from: None,
        };
        config.validate()?;
        Ok(config)
    }
}

/// The longest pattern that ends a module's dotted name: PEFT's `(.*\.)?pattern$`, most specific first.
fn matching<'a, V>(patterns: &'a BTreeMap<String, V>, module: &str) -> Option<&'a V> {
    patterns
        .iter()
        .filter(|(pattern, _)| ends_with(module, pattern))
        .max_by_key(|(pattern, _)| pattern.len())
        .map(|(_, value)| value)
}

/// PEFT takes the first pattern that matches, so the most specific ones come first in its file.
fn longest_first<V>(
    patterns: &BTreeMap<String, V>,
    value: impl Fn(&V) -> Value,
) -> serde_json::Map<String, Value> {
    let mut entries: Vec<_> = patterns.iter().collect();
    entries.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    let pairs = entries
        .into_iter()
        .map(|(pattern, v)| (pattern.clone(), value(v)));
    pairs.collect()
}

fn ends_with(module: &str, pattern: &str) -> bool {
    module
        .strip_suffix(pattern)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `adapter_config.json` as text, PEFT's way: sorted keys, two spaces.
pub(crate) fn peft_config_text(config: &LoraConfig, base_model: Option<&str>) -> String {
    format!("{:#}", config.to_peft(base_model))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/model")
            .join(name)
    }

    fn model() -> ModelConfig {
        ModelConfig::from_dir(&fixture("llama-linear-bias")).unwrap()
    }

    #[test]
    fn patterns_are_suffixes_and_the_longest_wins() {
        let config: LoraConfig = serde_json::from_value(json!({
            "rank": 8, "alpha": 16.0, "targets": ["q_proj", "up_proj"],
            "rank_pattern": {"q_proj": 4, "layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"up_proj": 8.0}
        }))
        .unwrap();
        let found: Vec<_> = config
            .modules(&model())
            .unwrap()
            .into_iter()
            .map(|m| (m.name, m.rank, m.scaling))
            .collect();
        let expected = [
            ("model.layers.0.self_attn.q_proj", 4, 4.0),
            ("model.layers.0.mlp.up_proj", 8, 1.0),
            ("model.layers.1.self_attn.q_proj", 2, 8.0),
            ("model.layers.1.mlp.up_proj", 8, 1.0),
        ];
        assert_eq!(
            found,
            expected.map(|(name, rank, scaling)| (name.to_string(), rank, scaling))
        );
    }

    #[test]
    fn a_fresh_adapter_is_kaiming_and_zero() {
        let modules = LoraConfig::default().modules(&model()).unwrap();
        assert_eq!(modules.len(), 14);
        let module = &modules[6];
        assert_eq!((module.in_features, module.out_features), (48, 32));
        let a = module.initial_a(1).unwrap();
        assert_eq!(a.dims(), [16, 48]);
        let a: Vec<f32> = a.flatten_all().unwrap().to_vec1().unwrap();
        let bound = 1.0 / 48f32.sqrt();
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest <= bound && largest > 0.9 * bound);
        let again: Vec<f32> = module
            .initial_a(1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let other: Vec<f32> = modules[13]
            .initial_a(1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(a, again);
        assert_ne!(a, other);
        let b = module.initial_b().unwrap();
        assert_eq!(
            b.abs()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap(),
            0.0
        );
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (bad, key) in [
            (json!({"rank": 0}), "rank"),
            (json!({"alpha": -1.0}), "alpha"),
            (json!({"targets": ["lm_head"]}), "targets"),
            (json!({"targets": []}), "targets"),
            (json!({"dropout": 0.1}), "dropout"),
            (json!({"use_dora": true}), "use_dora"),
            (
                json!({"modules_to_save": ["embed_tokens"]}),
                "modules_to_save",
            ),
            (json!({"rank_pattern": {"^model.*": 4}}), "rank_pattern"),
            (json!({"alpha_pattern": {"x_proj": 4.0}}), "alpha_pattern"),
        ] {
            let config: LoraConfig = serde_json::from_value(bad).unwrap();
            let message = config.modules(&model()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{key}`")), "{key}: {message}");
        }
        assert!(serde_json::from_value::<LoraConfig>(json!({"ranks": 4})).is_err());
    }
}
