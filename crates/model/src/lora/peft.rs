//! `adapter_config.json`, as PEFT 0.21 writes and reads it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{LoraConfig, Patterns, Reach, Targets};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::parameters::{EMBEDDING, HEAD};

use super::matching::module_of;

/// Settings of PEFT's that change what an adapter computes, or what its file holds, in ways not known here.
const UNSUPPORTED: [&str; 13] = [
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
];

/// Settings that are read here, and those that change nothing: they name things, or only say how a start was computed.
const KNOWN: [&str; 29] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
];

impl LoraConfig {
    /// The file's text, PEFT's way: every field of its, sorted keys, two spaces.
    ///
    /// `model` decides what is written for a tied head that is trained: one matrix under both names.
    pub(crate) fn peft_text(
        &self,
        model: &ModelConfig,
        base_model: Option<&str>,
        revision: Option<&str>,
    ) -> String {
        let tied = self.trains_tied_head(model);
        let mut saved = self.modules_to_save.clone();
        if tied {
            // PEFT starts from the embedding and adds what is tied to it.
            let (embedding, head) = (module_of(EMBEDDING), module_of(HEAD));
            saved.retain(|name| !head.ends_with(name.as_str()));
            if !saved.iter().any(|name| embedding.ends_with(name.as_str())) {
                saved.push("embed_tokens".into());
            }
        }
        let mut value = json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": longest_first(&self.alpha_pattern, |alpha| number(*alpha)),
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": base_model,
            "bias": "none",
            "corda_config": null,
            "ensure_weight_tying": tied,
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
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": "0.21.2",
            "qalora_group_size": 16,
            "r": self.rank,
            "rank_pattern": longest_first(&self.rank_pattern, |rank| json!(rank)),
            "revision": revision,
            "target_modules": match &self.targets {
                Targets::Names(names) => {
                    let mut names = names.clone();
                    names.sort();
                    json!(names)
                }
                Targets::Pattern(pattern) => json!(pattern),
            },
            "target_parameters": null,
            "task_type": "CAUSAL_LM",
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": self.use_dora,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        });
        self.reach.write(&mut value);
        format!("{value:#}")
    }

    /// Reads the file's contents; what would change the adapter's mathematics and is not supported is refused.
    pub(crate) fn from_peft(peft: &Value, path: &Path) -> Result<Self> {
        let refuse = |key: &str, problem: &str| Error::Config {
            path: path.into(),
            key: key.into(),
            problem: problem.into(),
        };
        if peft["peft_type"] != "LORA" {
            return Err(refuse("peft_type", "must be LORA"));
        }
        for (key, value) in peft.as_object().into_iter().flatten() {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if off || KNOWN.contains(&key.as_str()) {
                continue;
            }
            return Err(match UNSUPPORTED.contains(&key.as_str()) {
                true => refuse(key, "is not supported"),
                false => refuse(
                    key,
                    "is unknown here and may change what the adapter computes; take it out if it does not",
                ),
            });
        }
        check_start(&peft["init_lora_weights"]).map_err(|p| refuse("init_lora_weights", &p))?;
        let reach = Reach::of_file(peft, refuse)?;
        if peft["bias"].as_str().is_some_and(|bias| bias != "none") {
            return Err(refuse("bias", "is not supported; only \"none\" is"));
        }
        let targets = match &peft["target_modules"] {
            Value::String(pattern) => Some(Targets::Pattern(pattern.clone())),
            names => strings(names).map(Targets::Names),
        }
        .ok_or_else(|| {
            refuse(
                "target_modules",
                "must be a list of names or a regular expression",
            )
        })?;
        let modules_to_save = match &peft["modules_to_save"] {
            Value::Null => Vec::new(),
            names => strings(names)
                .ok_or_else(|| refuse("modules_to_save", "must be a list of module names"))?,
        };
        let config = Self {
            rank: peft["r"]
                .as_u64()
                .ok_or_else(|| refuse("r", "must be a whole number"))? as usize,
            alpha: peft["lora_alpha"]
                .as_f64()
                .ok_or_else(|| refuse("lora_alpha", "must be a number"))?,
            targets: targets.in_model_order(),
            dropout: peft["lora_dropout"].as_f64().unwrap_or(0.0),
            use_rslora: peft["use_rslora"].as_bool().unwrap_or(false),
            use_dora: peft["use_dora"].as_bool().unwrap_or(false),
            rank_pattern: rank_pattern(peft)
                .ok_or_else(|| refuse("rank_pattern", "must hold whole numbers"))?
                .into_iter()
                .collect(),
            alpha_pattern: alpha_pattern(peft)
                .ok_or_else(|| refuse("alpha_pattern", "must hold numbers"))?
                .into_iter()
                .collect(),
            modules_to_save,
            reach,
            loraplus_lr_ratio: None,
            init_from: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// The ranks and alphas of a file's modules, by its patterns in the file's own order, as PEFT reads them.
    pub(crate) fn patterns_of_file(peft: &Value) -> Result<Patterns> {
        Patterns::compile(
            rank_pattern(peft).unwrap_or_default(),
            alpha_pattern(peft).unwrap_or_default(),
        )
    }
}

/// Refuses an adapter whose start was taken out of its base's weights.
///
/// Such an adapter belongs to the changed base, which its folder does not hold: over the base it names it computes
/// something else. PEFT's other starts (`true`, `false`, gaussian, eva, orthogonal, mica) leave the base alone.
fn check_start(start: &Value) -> Result<(), String> {
    let name = match start {
        Value::Null | Value::Bool(_) => return Ok(()),
        Value::String(name) => name.to_lowercase(),
        other => return Err(format!("must be true, false or a name, is {other}")),
    };
    if ["gaussian", "eva", "orthogonal", "mica"].contains(&name.as_str()) {
        return Ok(());
    }
    if name == "loftq" {
        return Err(
            "loftq replaced the base model's weights by quantised ones when the adapter was made, so it is no adapter of the base that it names; merge it into its own base with PEFT (merge_and_unload) and start from the merged checkpoint".into(),
        );
    }
    let changed = ["pissa", "corda", "olora", "lora_ga"];
    let says = match changed.iter().any(|known| name.starts_with(known)) {
        true => {
            "took its start out of the base model's weights, so the base was changed when the adapter was made"
        }
        false => {
            "is a start that is unknown here, and the base may have been changed when the adapter was made"
        }
    };
    Err(format!(
        "{name} {says}; export it as plain LoRA with PEFT: save the adapter as it was before training (init_lora_weights = True, then save_pretrained), and the trained one with save_pretrained(OUT, path_initial_model_for_weight_conversion = THAT_FOLDER); or merge it into its own base and start from the merged checkpoint"
    ))
}

fn rank_pattern(peft: &Value) -> Option<Vec<(String, usize)>> {
    let rank = |value: &Value| value.as_u64().map(|rank| rank as usize);
    pairs(&peft["rank_pattern"], rank)
}

fn alpha_pattern(peft: &Value) -> Option<Vec<(String, f64)>> {
    pairs(&peft["alpha_pattern"], Value::as_f64)
}

fn pairs<V>(map: &Value, value: impl Fn(&Value) -> Option<V>) -> Option<Vec<(String, V)>> {
    map.as_object().map_or(Some(Vec::new()), |map| {
        map.iter()
            .map(|(pattern, v)| Some((pattern.clone(), value(v)?)))
            .collect()
    })
}

pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    items.map(|item| item.as_str().map(String::from)).collect()
}

/// PEFT's own files hold whole alphas as integers.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 {
        json!(x as i64)
    } else {
        json!(x)
    }
}

/// PEFT takes the first pattern that matches, so ours go down in the order in which they count here.
fn longest_first<'a, V: 'a>(
    patterns: &'a std::collections::BTreeMap<String, V>,
    value: impl Fn(&V) -> Value,
) -> Map<String, Value> {
    super::by_length(patterns)
        .into_iter()
        .map(|(pattern, v)| (pattern.clone(), value(v)))
        .collect()
}
