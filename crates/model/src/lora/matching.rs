//! PEFT's rules for which modules a name or a pattern means.

use regex::Regex;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::parameters::{EMBEDDING, HEAD, parameter_names};

/// Every module transformers' model has, containers and parameterless ones included: what PEFT matches against.
pub(crate) fn module_names(config: &ModelConfig) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    add("model");
    add(module_of(EMBEDDING));
    add("model.layers");
    add("model.rotary_emb");
    for layer in 0..config.n_layers {
        let layer = format!("model.layers.{layer}");
        add(&layer);
        add(&format!("{layer}.self_attn"));
        add(&format!("{layer}.mlp"));
        add(&format!("{layer}.mlp.act_fn"));
    }
    // A tied head has no parameter of its own, but is a module.
    add(module_of(HEAD));
    names.extend(
        parameter_names(config)
            .iter()
            .map(|(name, _)| module_of(name).to_owned())
            .filter(|name| name.starts_with("model.layers.") || name == "model.norm"),
    );
    names.dedup();
    names
}

/// A parameter's module: its name without `.weight` or `.bias`.
pub(crate) fn module_of(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or("", |(module, _)| module)
}

/// A module's own name and those of the modules it lies in.
pub(crate) fn with_ancestors(module: &str) -> impl Iterator<Item = &str> {
    let borders = module.match_indices('.').map(|(i, _)| i);
    borders.map(|i| &module[..i]).chain([module])
}

/// `re.fullmatch(pattern, name)`.
pub(crate) fn full_match(key: &'static str, pattern: &str) -> Result<Regex> {
    compile(key, pattern, format!(r"\A(?:{pattern})\z"))
}

/// `re.match(rf"(.*\.)?({pattern})$", name)`: how rank and alpha patterns are looked up.
pub(crate) fn suffix_match(key: &'static str, pattern: &str) -> Result<Regex> {
    compile(key, pattern, format!(r"\A(?:.*\.)?(?:{pattern})\z"))
}

fn compile(key: &'static str, pattern: &str, whole: String) -> Result<Regex> {
    // Alone first: in a group, `a)|(b` would pass for a pattern.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&whole))
        .map_err(|error| Error::Setting {
            key,
            value: pattern.into(),
            allowed: format!("is no regular expression without look-around: {error}"),
        })
}

/// A dotted name, or the end of one: `name` or `….name`.
pub(crate) fn names(module: &str, name: &str) -> bool {
    module
        .strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether PEFT leaves `module` without an adapter because `saved` takes it or what it lies in.
pub(crate) fn taken_by(module: &str, saved: &str) -> bool {
    with_ancestors(module).any(|ancestor| names(ancestor, saved))
}
