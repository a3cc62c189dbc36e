//! LoRA (arXiv 2106.09685): which modules get adapters, what is trained beside them, how they start,
//! and PEFT's configuration file.

mod matching;
mod module;
mod peft;
mod reach;
mod targets;

use std::collections::BTreeMap;

use records::Reference;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::parameters::{EMBEDDING, HEAD, Kind, layer_modules, parameter_names};
use matching::{module_names, module_of, suffix_match, taken_by, with_ancestors};

pub use module::{LoraModule, SavedModule};
pub use reach::Reach;
pub use targets::Targets;

/// The recipe's `[train.lora]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// r, at least 1.
    pub rank: usize,
    /// The update is scaled by alpha / r.
    pub alpha: f64,
    /// Linear layers by name (`q_proj` … `down_proj`), `"all-linear"`, or one regular expression.
    pub targets: Targets,
    /// Share of an adapter's inputs set to zero in training, at least 0 and below 1; 0.
    pub dropout: f64,
    /// Scales by alpha / √r instead (arXiv 2312.03732).
    pub use_rslora: bool,
    /// Trains each adapted row's magnitude apart from its direction (arXiv 2402.09353).
    pub use_dora: bool,
    /// Ranks of single modules. A key is a regular expression for the end of a dotted name, as PEFT's
    /// `(.*\.)?(key)$`: `q_proj`, `layers.0.mlp.up_proj`, `layers\.[0-3]\..*`. Where several match, the
    /// longest key counts, among equally long ones the first in alphabetical order; PEFT's files, where the
    /// first counts, are written in that order.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules, named likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules trained whole and kept in the adapter's file, by the end of their names as PEFT's
    /// `modules_to_save` (`norm` is every norm): `embed_tokens`, `lm_head`, `input_layernorm`.
    /// A tied head and its embedding stay one matrix, whichever is named (PEFT's `ensure_weight_tying`).
    pub modules_to_save: Vec<String>,
    /// What an adapter's file leaves out of its targets; no key of a recipe.
    #[serde(skip)]
    pub reach: Reach,
    /// LoRA+ (arXiv 2402.12354): the learning rate of B, over that of A; at least 1. As in PEFT's
    /// `create_loraplus_optimizer` it also counts for vectors: magnitudes, and saved norms and biases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loraplus_lr_ratio: Option<f64>,
    /// A PEFT adapter folder to continue from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<Reference>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            targets: Targets::default(),
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            reach: Reach::default(),
            loraplus_lr_ratio: None,
            init_from: None,
        }
    }
}

impl LoraConfig {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Setting`] with the key, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(setting("rank", "0", "must be at least 1"));
        }
        if self.rank_pattern.values().any(|rank| *rank == 0) {
            return Err(setting("rank_pattern", "0", "must be at least 1"));
        }
        let positive = |key, alpha: f64| {
            if alpha.is_finite() && alpha > 0.0 {
                Ok(())
            } else {
                Err(setting(key, &alpha.to_string(), "must be above 0"))
            }
        };
        positive("alpha", self.alpha)?;
        for alpha in self.alpha_pattern.values() {
            positive("alpha_pattern", *alpha)?;
        }
        self.targets.validate()?;
        if !(0.0..1.0).contains(&self.dropout) {
            let value = self.dropout.to_string();
            return Err(setting("dropout", &value, "must be at least 0 and below 1"));
        }
        if let Some(ratio) = self.loraplus_lr_ratio
            && !(ratio.is_finite() && ratio >= 1.0)
        {
            let value = ratio.to_string();
            return Err(setting("loraplus_lr_ratio", &value, "must be at least 1"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        for name in &self.modules_to_save {
            if name.is_empty() || !name.chars().all(is_name) {
                let allowed = "must be the end of a module's dotted name, such as lm_head; it is no regular expression";
                return Err(setting("modules_to_save", name, allowed));
            }
        }
        self.patterns().map(|_| ())
    }

    /// The adapted layers of a model, in the order of its modules; what `modules_to_save` takes has no adapter.
    ///
    /// # Errors
    /// What [`validate`](Self::validate) refuses; a name or pattern that matches nothing; no layer left.
    pub fn modules(&self, config: &ModelConfig) -> Result<Vec<LoraModule>> {
        self.validate()?;
        let shapes: Vec<(String, (usize, usize))> = (0..config.n_layers)
            .flat_map(|layer| {
                let modules = layer_modules(config).into_iter();
                modules.filter_map(move |module| match module.kind {
                    Kind::Linear { rows, columns, .. } => {
                        Some((module.name(layer), (rows, columns)))
                    }
                    Kind::Norm { .. } => None,
                })
            })
            .collect();
        let projections: Vec<String> = shapes.iter().map(|(name, _)| name.clone()).collect();
        self.check_saved_names(config)?;
        let candidates = self.targets.among(&projections, &module_names(config))?;
        let mut targeted = Vec::with_capacity(candidates.len());
        for module in candidates {
            if self.reach.takes(module, &self.targets)? {
                targeted.push(module);
            }
        }
        if targeted.is_empty() {
            let allowed =
                "matches layers that exclude_modules and layers_to_transform leave out only";
            return Err(setting("targets", &format!("{:?}", self.targets), allowed));
        }
        let patterns = self.patterns()?;
        let modules: Vec<LoraModule> = shapes
            .into_iter()
            .filter(|(name, _)| targeted.contains(&name.as_str()))
            .filter(|(name, _)| {
                !self
                    .modules_to_save
                    .iter()
                    .any(|saved| taken_by(name, saved))
            })
            .map(|(name, (out_features, in_features))| LoraModule {
                rank: patterns.rank(&name).unwrap_or(self.rank),
                scaling: self.scaling(&patterns, &name),
                use_dora: self.use_dora,
                dropout: self.dropout,
                name,
                in_features,
                out_features,
            })
            .collect();
        if modules.is_empty() {
            let value = self.modules_to_save.join(", ");
            let allowed = "takes every targeted layer; none is left for an adapter";
            return Err(setting("modules_to_save", &value, allowed));
        }
        for (key, pattern, regex) in patterns.all() {
            if !modules.iter().any(|module| regex.is_match(&module.name)) {
                return Err(setting(key, pattern, "matches no targeted module"));
            }
        }
        Ok(modules)
    }

    /// The parameters that `modules_to_save` trains whole, in the order of the model's.
    ///
    /// With a tied head, `lm_head` and `embed_tokens` both mean the one matrix, which stays tied: PEFT's
    /// `ensure_weight_tying`. Without that setting PEFT trains one of the two alone, and neither its
    /// merged checkpoint nor any other with `tie_word_embeddings` can hold the result.
    ///
    /// # Errors
    /// A name that no module ends with, the whole model, and a name that reaches an adapted layer without
    /// naming it (`proj`).
    pub fn saved_modules(&self, config: &ModelConfig) -> Result<Vec<SavedModule>> {
        if self.modules_to_save.is_empty() {
            return Ok(Vec::new());
        }
        self.validate()?;
        self.check_saved_names(config)?;
        let is_saved = |module: &str| {
            with_ancestors(module).any(|m| {
                self.modules_to_save
                    .iter()
                    .any(|name| m.ends_with(name.as_str()))
            })
        };
        let tied = self.trains_tied_head(config);
        let saved: Vec<SavedModule> = parameter_names(config)
            .into_iter()
            .filter(|(name, _)| is_saved(module_of(name)) || (tied && name == EMBEDDING))
            .map(|(name, shape)| {
                let tied = tied && name == EMBEDDING;
                SavedModule::new(name, shape, tied)
            })
            .collect();
        for module in self.modules(config)? {
            // PEFT spares what is named by whole parts of its name from adapters, but saves by bare endings.
            if is_saved(&module.name) {
                return Err(setting(
                    "modules_to_save",
                    &self.modules_to_save.join(", "),
                    &format!(
                        "also takes `{}`, which has an adapter; write whole parts of names",
                        module.name
                    ),
                ));
            }
        }
        Ok(saved)
    }

    fn check_saved_names(&self, config: &ModelConfig) -> Result<()> {
        let all = module_names(config);
        for name in &self.modules_to_save {
            let refuse = |allowed| Err(setting("modules_to_save", name, allowed));
            if !all.iter().any(|module| module.ends_with(name)) {
                return refuse("matches no module of this model");
            }
            if ["model", "model.layers"]
                .iter()
                .any(|m| m.ends_with(name.as_str()))
            {
                return refuse("is the whole model; train it with method = \"full\"");
            }
        }
        Ok(())
    }

    /// Whether a matrix that is embedding and head at once is trained.
    pub(crate) fn trains_tied_head(&self, config: &ModelConfig) -> bool {
        let ends = |module: &str| {
            self.modules_to_save
                .iter()
                .any(|name| module.ends_with(name.as_str()))
        };
        config.tie_word_embeddings && (ends(module_of(EMBEDDING)) || ends(module_of(HEAD)))
    }

    /// alpha / r, or alpha / √r, of a module.
    pub(crate) fn scaling(&self, patterns: &Patterns, module: &str) -> f64 {
        let rank = patterns.rank(module).unwrap_or(self.rank) as f64;
        let alpha = patterns.alpha(module).unwrap_or(self.alpha);
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    fn patterns(&self) -> Result<Patterns> {
        let owned = |(pattern, value): (&String, &usize)| (pattern.clone(), *value);
        Patterns::compile(
            by_length(&self.rank_pattern)
                .into_iter()
                .map(owned)
                .collect(),
            by_length(&self.alpha_pattern)
                .into_iter()
                .map(|(pattern, value)| (pattern.clone(), *value))
                .collect(),
        )
    }
}

/// Rank and alpha patterns in the order in which they count: the first match does.
pub(crate) struct Patterns {
    ranks: Vec<(String, Regex, usize)>,
    alphas: Vec<(String, Regex, f64)>,
}

impl Patterns {
    fn compile(ranks: Vec<(String, usize)>, alphas: Vec<(String, f64)>) -> Result<Self> {
        fn regexes<V>(
            key: &'static str,
            patterns: Vec<(String, V)>,
        ) -> Result<Vec<(String, Regex, V)>> {
            patterns
                .into_iter()
                .map(|(pattern, value)| {
                    let regex = suffix_match(key, &pattern)?;
                    Ok((pattern, regex, value))
                })
                .collect()
        }
        Ok(Self {
            ranks: regexes("rank_pattern", ranks)?,
            alphas: regexes("alpha_pattern", alphas)?,
        })
    }

    fn rank(&self, module: &str) -> Option<usize> {
        first(&self.ranks, module)
    }

    fn alpha(&self, module: &str) -> Option<f64> {
        first(&self.alphas, module)
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &str, &Regex)> {
        let ranks = self
            .ranks
            .iter()
            .map(|(p, r, _)| ("rank_pattern", p.as_str(), r));
        let alphas = self
            .alphas
            .iter()
            .map(|(p, r, _)| ("alpha_pattern", p.as_str(), r));
        ranks.chain(alphas)
    }
}

fn first<V: Copy>(patterns: &[(String, Regex, V)], module: &str) -> Option<V> {
    patterns
        .iter()
        .find(|(_, regex, _)| regex.is_match(module))
        .map(|(_, _, value)| *value)
}

/// The longest patterns first, equally long ones in alphabetical order.
fn by_length<V>(patterns: &BTreeMap<String, V>) -> Vec<(&String, &V)> {
    let mut entries: Vec<_> = patterns.iter().collect();
    entries.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    entries
}

fn setting(key: &'static str, value: &str, allowed: &str) -> Error {
    Error::Setting {
        key,
        value: value.into(),
        allowed: allowed.into(),
    }
}

#[cfg(test)]
mod tests;
