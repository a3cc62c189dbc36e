//! PEFT's `exclude_modules` and `layers_to_transform`: targeted layers that an adapter was trained without.

use regex::Regex;
use serde_json::{Value, json};

use crate::error::{Error, Result};

use super::Targets;
use super::matching::{full_match, names};

/// What an adapter's file leaves out of its targets. Recipes have no such keys: a regular expression in `targets` says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reach {
    /// `exclude_modules`.
    excluded: Option<Targets>,
    /// `layers_to_transform`.
    layers: Option<Vec<usize>>,
    /// `layers_pattern`: what stands before a layer's number.
    patterns: Vec<String>,
}

impl Reach {
    pub(super) fn of_file(peft: &Value, refuse: impl Fn(&str, &str) -> Error) -> Result<Self> {
        let texts = |key: &str| match &peft[key] {
            Value::Null => Ok(Vec::new()),
            Value::String(text) if text.is_empty() => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text.clone()]),
            list => super::peft::strings(list)
                .ok_or_else(|| refuse(key, "must be a text or a list of them")),
        };
        let excluded = match &peft["exclude_modules"] {
            Value::String(pattern) if !pattern.is_empty() => {
                full_match("exclude_modules", pattern)?;
                Some(Targets::Pattern(pattern.clone()))
            }
            _ => Some(texts("exclude_modules")?)
                .filter(|names| !names.is_empty())
                .map(Targets::Names),
        };
        let number = |value: &Value| value.as_u64().map(|n| n as usize);
        let layers = match &peft["layers_to_transform"] {
            Value::Null => None,
            Value::Array(layers) if layers.is_empty() => None,
            Value::Array(layers) => Some(layers.iter().map(number).collect::<Option<_>>()),
            one => Some(number(one).map(|n| vec![n])),
        };
        let layers = match layers {
            None => None,
            Some(Some(layers)) => Some(layers),
            Some(None) => {
                let problem = "must be a layer's number or a list of them";
                return Err(refuse("layers_to_transform", problem));
            }
        };
        if layers.is_some() && peft["target_modules"].is_string() {
            let problem = "goes with a list of target_modules only, as in PEFT";
            return Err(refuse("layers_to_transform", problem));
        }
        let patterns = texts("layers_pattern")?;
        for pattern in &patterns {
            if layer_regex(pattern).is_err() {
                let problem = "must hold names or regular expressions without look-around";
                return Err(refuse("layers_pattern", problem));
            }
        }
        Ok(Self {
            excluded,
            layers,
            patterns,
        })
    }

    /// Whether a targeted module gets an adapter; the rules of PEFT's `check_target_module_exists`.
    pub(crate) fn takes(&self, module: &str, targets: &Targets) -> Result<bool> {
        let excluded = match &self.excluded {
            None => false,
            Some(Targets::Pattern(pattern)) => {
                full_match("exclude_modules", pattern)?.is_match(module)
            }
            Some(Targets::Names(excluded)) => excluded.iter().any(|name| names(module, name)),
        };
        let Some(layers) = self.layers.as_ref().filter(|_| !excluded) else {
            return Ok(!excluded);
        };
        // A target that is a whole name counts in every layer.
        let whole =
            matches!(targets, Targets::Names(targets) if targets.iter().any(|t| t == module));
        Ok(whole
            || self
                .layer_of(module)
                .is_some_and(|layer| layers.contains(&layer)))
    }

    fn layer_of(&self, module: &str) -> Option<usize> {
        let any = [r"[^.]*".to_string()];
        let patterns = match self.patterns.is_empty() {
            true => any.as_slice(),
            false => &self.patterns,
        };
        patterns.iter().find_map(|pattern| {
            let found = layer_regex(pattern).ok()?.captures(module)?;
            found.name("layer")?.as_str().parse().ok()
        })
    }

    /// The settings as PEFT writes them.
    pub(super) fn write(&self, peft: &mut Value) {
        peft["exclude_modules"] = match &self.excluded {
            None => Value::Null,
            Some(excluded) => json!(excluded),
        };
        peft["layers_to_transform"] = json!(self.layers);
        peft["layers_pattern"] = match self.patterns.is_empty() {
            true => Value::Null,
            false => json!(self.patterns),
        };
    }
}

fn layer_regex(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:|.*?\.)(?:{pattern})\.(?P<layer>[0-9]+)\."))
}
