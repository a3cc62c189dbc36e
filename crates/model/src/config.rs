//! `config.json` of a Qwen2/2.5, Qwen3 or Llama checkpoint, normalised.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json_keys::{Keys, problem};
pub use crate::rope::{RopeConfig, RopeScaling};

/// The families one decoder serves; what differs between them is in [`ModelConfig`]'s flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5: bias on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm over each head of q and k.
    Qwen3,
    Llama,
}

/// A decoder's shape, read as transformers 5.23 reads it (`Qwen2Config`, `Qwen3Config`, `LlamaConfig`).
#[derive(Debug, Clone)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// V: rows of the embedding, padding rows included.
    pub vocab_size: usize,
    /// D.
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// Divides `n_heads`; each key-value head serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Even; not always `hidden_size / n_heads` (Qwen3).
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope: RopeConfig,
    pub max_position_embeddings: usize,
    /// The head is the embedding matrix; there is no `lm_head.weight`.
    pub tie_word_embeddings: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub qk_norm: bool,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f64,
    /// What people should hear about this checkpoint, a line each: for the caller to print.
    pub notices: Vec<String>,
    /// The file as it was read (overrides applied), so that an export loses no key.
    pub raw: Value,
}

impl ModelConfig {
    /// Reads a configuration from text; `path` is only named in errors.
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let raw = serde_json::from_str(text).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_value(raw, path)
    }

    pub(crate) fn from_value(raw: Value, path: &Path) -> Result<Self> {
        let Some(map) = raw.as_object() else {
            return Err(problem(path, "(the whole file)", "must be a JSON object"));
        };
        let keys = Keys { path, map };
        let architecture = architecture(&keys)?;
        refuse_unsupported(&keys, architecture)?;

        let hidden_size = keys.size("hidden_size")?;
        let n_heads = keys.size("num_attention_heads")?;
        let n_kv_heads = keys
            .optional_size("num_key_value_heads")?
            .unwrap_or(n_heads);
        if n_heads % n_kv_heads != 0 {
            return Err(keys.problem(
                "num_key_value_heads",
                format!("{n_kv_heads} does not divide num_attention_heads = {n_heads}"),
            ));
        }
        let head_dim = match (keys.optional_size("head_dim")?, architecture) {
            (Some(head_dim), _) => head_dim,
            // Qwen3Config's default; every other family derives it.
            (None, Architecture::Qwen3) => 128,
            (None, _) if hidden_size % n_heads == 0 => hidden_size / n_heads,
            (None, _) => {
                return Err(keys.problem(
                    "hidden_size",
                    format!("{hidden_size} is not a multiple of num_attention_heads = {n_heads}"),
                ));
            }
        };
        if head_dim % 2 != 0 {
            return Err(keys.problem(
                "head_dim",
                format!("{head_dim} is odd; rotary positions turn pairs"),
            ));
        }
        let max_position_embeddings = keys.size("max_position_embeddings")?;
        let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
        let rope = RopeConfig::read(&keys, head_dim, max_position_embeddings)?;
        let config = Self {
            architecture,
            vocab_size: keys.size("vocab_size")?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            n_layers: keys.size("num_hidden_layers")?,
            n_heads,
            n_kv_heads,
            head_dim,
            rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            // Qwen2's modelling code has the bias built in, whatever the file says.
            qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
            o_bias: architecture != Architecture::Qwen2 && attention_bias,
            mlp_bias: architecture == Architecture::Llama
                && keys.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: architecture == Architecture::Qwen3,
            initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
            notices: Vec::new(),
            raw: Value::Null,
        };
        Ok(Self { raw, ..config })
    }

    /// Replaces RoPE's base wavelength and the context length, here and in what an export writes.
    ///
    /// A scaling that took its original context length from `max_position_embeddings` keeps the
    /// one it had: the override says how far the model is to be used, not how far it was trained.
    pub fn with_overrides(
        mut self,
        rope_theta: Option<f64>,
        max_position_embeddings: Option<usize>,
    ) -> Result<Self> {
        if let Some(theta) = rope_theta {
            if !(theta.is_finite() && theta > 1.0) {
                return Err(Error::Setting {
                    key: "rope_theta",
                    value: theta.to_string(),
                    allowed: "must be a finite number above 1".into(),
                });
            }
            self.rope.theta = theta;
            if let Some(parameters) = rope_object(&mut self.raw, "rope_parameters") {
                parameters.insert("rope_theta".into(), theta.into());
            }
            if let Some(parameters) = rope_object(&mut self.raw, "rope_scaling")
                && parameters.contains_key("rope_theta")
            {
                parameters.insert("rope_theta".into(), theta.into());
            }
            if self.raw.get("rope_parameters").is_none_or(Value::is_null)
                || self.raw.get("rope_theta").is_some()
            {
                self.raw["rope_theta"] = theta.into();
            }
        }
        if let Some(length) = max_position_embeddings {
            if length == 0 {
                return Err(Error::Setting {
                    key: "max_position_embeddings",
                    value: "0".into(),
                    allowed: "must be at least 1".into(),
                });
            }
            if let Some(original) = self.rope.scaling.original_max_position_embeddings() {
                for key in ["rope_parameters", "rope_scaling"] {
                    if let Some(parameters) = rope_object(&mut self.raw, key) {
                        parameters
                            .entry("original_max_position_embeddings")
                            .or_insert(original.into());
                    }
                }
            }
            self.max_position_embeddings = length;
            self.raw["max_position_embeddings"] = length.into();
        }
        Ok(self)
    }
}

fn rope_object<'a>(raw: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    raw.get_mut(key).and_then(Value::as_object_mut)
}

const SUPPORTED: &str =
    "supported are Qwen2ForCausalLM (qwen2), Qwen3ForCausalLM (qwen3) and LlamaForCausalLM (llama)";

fn architecture(keys: &Keys) -> Result<Architecture> {
    let listed = match keys.get("architectures") {
        None => None,
        Some(Value::Array(names)) if names.is_empty() => None,
        Some(Value::Array(names)) => names[0].as_str(),
        Some(_) => return Err(keys.problem("architectures", "must be a list of names")),
    };
    let (key, name) = match (listed, keys.get("model_type").and_then(Value::as_str)) {
        (Some(name), _) => ("architectures", name),
        (None, Some(name)) => ("model_type", name),
        (None, None) => {
            return Err(keys.problem("architectures", format!("is missing; {SUPPORTED}")));
        }
    };
    match name {
        "Qwen2ForCausalLM" | "qwen2" => Ok(Architecture::Qwen2),
        "Qwen3ForCausalLM" | "qwen3" => Ok(Architecture::Qwen3),
        "LlamaForCausalLM" | "llama" => Ok(Architecture::Llama),
        other => Err(keys.problem(key, format!("`{other}` is not supported; {SUPPORTED}"))),
    }
}

/// Keys that change the mathematics in ways the decoder does not follow.
fn refuse_unsupported(keys: &Keys, architecture: Architecture) -> Result<()> {
    if let Some(act) = keys.get("hidden_act").and_then(Value::as_str)
        && act != "silu"
    {
        return Err(keys.problem(
            "hidden_act",
            format!("`{act}` is not supported; only silu is"),
        ));
    }
    if slides(keys, architecture)? {
        return Err(keys.problem(
            "use_sliding_window",
            "sliding-window attention is not supported; set it to false if no sequence is longer than the window",
        ));
    }
    if let Some(types) = keys.get("layer_types").and_then(Value::as_array)
        && let Some(other) = types.iter().find(|t| t.as_str() != Some("full_attention"))
    {
        return Err(keys.problem(
            "layer_types",
            format!("{other} is not supported; only full_attention is"),
        ));
    }
    if keys.get("quantization_config").is_some() {
        return Err(keys.problem(
            "quantization_config",
            "quantised checkpoints are not supported; use the F32, F16 or BF16 one",
        ));
    }
    Ok(())
}

/// Whether layers look back through a window, as Qwen2Config and Qwen3Config decide it; Llama's has no such key.
fn slides(keys: &Keys, architecture: Architecture) -> Result<bool> {
    let asked = keys.flag("use_sliding_window")? == Some(true);
    if !asked || architecture == Architecture::Llama || keys.get("sliding_window").is_none() {
        return Ok(false);
    }
    // A list of the layers' types counts before the number of those without a window.
    if keys.get("layer_types").is_some() {
        return Ok(false);
    }
    let full = match keys.get("max_window_layers") {
        // The default of both.
        None => 28,
        Some(value) => match value.as_u64() {
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None => return Err(keys.problem("max_window_layers", "must be a whole number")),
        },
    };
    Ok(full < keys.size("num_hidden_layers")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn qwen2() -> Value {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
            "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true,
            "hidden_act": "silu", "use_sliding_window": false, "sliding_window": 32, "kept": "yes"
        })
    }

    fn read(value: &Value) -> Result<ModelConfig> {
        ModelConfig::from_json(&value.to_string(), Path::new("folder/config.json"))
    }

    fn with(changes: Value) -> Value {
        let mut value = qwen2();
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        value
    }

    #[test]
    fn families_imply_their_biases_and_norms() {
        let config = read(&qwen2()).unwrap();
        assert!(config.qkv_bias && !config.o_bias && !config.qk_norm);
        assert_eq!((config.head_dim, config.n_kv_heads), (16, 2));
        assert_eq!(config.raw["kept"], "yes");

        let qwen3 = with(json!({"architectures": null, "model_type": "qwen3"}));
        let config = read(&qwen3).unwrap();
        assert!(config.qk_norm && !config.qkv_bias);
        assert_eq!(config.head_dim, 128);

        let llama = with(json!({
            "architectures": ["LlamaForCausalLM"], "attention_bias": true, "mlp_bias": true,
            "num_key_value_heads": null
        }));
        let config = read(&llama).unwrap();
        assert!(config.qkv_bias && config.o_bias && config.mlp_bias);
        assert_eq!(config.n_kv_heads, 4);
    }

    /// Qwen2Config gives these the layer type full_attention throughout.
    #[test]
    fn windows_that_no_layer_has_are_accepted() {
        for changes in [
            json!({"use_sliding_window": false, "max_window_layers": 0}),
            json!({"use_sliding_window": true, "max_window_layers": 2}),
            json!({"use_sliding_window": true, "max_window_layers": 28}),
            json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0}),
            json!({"use_sliding_window": true, "max_window_layers": 0, "layer_types": ["full_attention", "full_attention"]}),
            json!({"use_sliding_window": true, "max_window_layers": 0, "architectures": ["LlamaForCausalLM"]}),
        ] {
            let text = changes.to_string();
            assert!(read(&with(changes)).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_names_file_and_key() {
        for (changes, key) in [
            (
                json!({"architectures": ["GPT2LMHeadModel"]}),
                "architectures",
            ),
            (
                json!({"architectures": null, "model_type": "gemma2"}),
                "model_type",
            ),
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (
                json!({"use_sliding_window": true, "max_window_layers": 1}),
                "use_sliding_window",
            ),
            (
                json!({"layer_types": ["full_attention", "sliding_attention"]}),
                "layer_types",
            ),
            (
                json!({"quantization_config": {"bits": 4}}),
                "quantization_config",
            ),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
                "rope_scaling.type",
            ),
            (
                json!({"rope_parameters": {"rope_type": "longrope"}}),
                "rope_parameters.rope_type",
            ),
            (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
            (json!({"hidden_size": null}), "hidden_size"),
            (json!({"vocab_size": "many"}), "vocab_size"),
            (
                json!({"partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
            ),
        ] {
            let message = read(&with(changes)).unwrap_err().to_string();
            assert!(message.starts_with("folder/config.json: key "), "{message}");
            assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
        }
    }

    #[test]
    fn overrides_reach_the_exported_file() {
        let config = read(&qwen2()).unwrap();
        let config = config.with_overrides(Some(3e5), Some(4096)).unwrap();
        assert_eq!(config.rope.theta, 3e5);
        let again = read(&config.raw).unwrap();
        assert_eq!(
            (again.rope.theta, again.max_position_embeddings),
            (3e5, 4096)
        );

        let newer = with(json!({"rope_theta": null, "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}));
        let config = read(&newer)
            .unwrap()
            .with_overrides(Some(2e4), Some(512))
            .unwrap();
        let again = read(&config.raw).unwrap();
        assert_eq!(again.rope.theta, 2e4);
        assert_eq!(again.rope.scaling, config.rope.scaling);
        assert_eq!(
            again.rope.scaling.original_max_position_embeddings(),
            Some(128)
        );
        assert!(config.with_overrides(Some(f64::NAN), None).is_err());
    }
}
