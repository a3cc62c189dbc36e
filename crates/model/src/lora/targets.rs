//! `targets`: which linear layers get an adapter.

use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::parameters::PROJECTIONS;

use super::matching;

/// PEFT's word for every linear layer but the head.
pub(crate) const ALL_LINEAR: &str = "all-linear";

/// Which linear layers get an adapter, as PEFT's `target_modules` says it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Targets {
    /// `q_proj`, or the longer end of a dotted name: `layers.0.mlp.up_proj`.
    Names(Vec<String>),
    /// `all-linear`, or one regular expression that matches whole module names: `.*\.[0-9]\.self_attn\.[qv]_proj`.
    Pattern(String),
}

impl Default for Targets {
    fn default() -> Self {
        Self::Names(PROJECTIONS.map(String::from).to_vec())
    }
}

impl From<Vec<String>> for Targets {
    fn from(names: Vec<String>) -> Self {
        Self::Names(names)
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TargetsVisitor)
    }
}

/// Written out for its message: a derived untagged enum says only that no variant matched.
struct TargetsVisitor;

impl<'de> Visitor<'de> for TargetsVisitor {
    type Value = Targets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of projections, \"all-linear\" or a regular expression")
    }

    fn visit_str<E: serde::de::Error>(self, pattern: &str) -> std::result::Result<Targets, E> {
        Ok(Targets::Pattern(pattern.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Targets, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = items.next_element::<String>().map_err(A::Error::custom)? {
            names.push(name);
        }
        Ok(Targets::Names(names))
    }
}

impl Targets {
    /// What can be said without a model.
    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Self::Names(names) if names.is_empty() => {
                Err(refuse("[]", "must name at least one projection"))
            }
            Self::Names(names) => names
                .iter()
                .find(|name| {
                    let last = name.rsplit('.').next().unwrap_or_default();
                    !PROJECTIONS.contains(&last)
                })
                .map_or(Ok(()), |name| Err(refuse(name, &allowed()))),
            Self::Pattern(pattern) if is_all_linear(pattern) => Ok(()),
            Self::Pattern(pattern) => matching::full_match("targets", pattern).map(|_| ()),
        }
    }

    /// The targeted ones among `projections`, all module names of the decoder's linear layers, in their order.
    ///
    /// # Errors
    /// A name that is none of theirs; a pattern that matches none, or something else among `modules`.
    pub(crate) fn among<'a>(
        &self,
        projections: &'a [String],
        modules: &[String],
    ) -> Result<Vec<&'a str>> {
        let matches: Box<dyn Fn(&str) -> bool> = match self {
            Self::Names(names) => {
                for name in names {
                    if !projections
                        .iter()
                        .any(|module| matching::names(module, name))
                    {
                        return Err(refuse(name, "matches no linear layer of this model"));
                    }
                }
                Box::new(|module| names.iter().any(|name| matching::names(module, name)))
            }
            Self::Pattern(pattern) if is_all_linear(pattern) => Box::new(|_| true),
            Self::Pattern(pattern) => {
                let regex = matching::full_match("targets", pattern)?;
                let other = modules
                    .iter()
                    .find(|module| regex.is_match(module) && !projections.contains(module));
                if let Some(other) = other {
                    let problem = format!(
                        "also matches `{other}`, which is none of the linear layers {}; PEFT would refuse it too, or train it whole with modules_to_save",
                        PROJECTIONS.join(", ")
                    );
                    return Err(refuse(pattern, &problem));
                }
                if !projections.iter().any(|module| regex.is_match(module)) {
                    return Err(refuse(
                        pattern,
                        "as a regular expression it has to match whole module names, such as `model.layers.0.self_attn.q_proj`, and matches none of this model; write a list for names",
                    ));
                }
                Box::new(move |module| regex.is_match(module))
            }
        };
        Ok(projections
            .iter()
            .map(String::as_str)
            .filter(|module| matches(module))
            .collect())
    }

    /// PEFT keeps names as a set; the model's order is the one that is always the same.
    pub(crate) fn in_model_order(self) -> Self {
        match self {
            Self::Names(mut names) => {
                let place = |name: &String| PROJECTIONS.iter().position(|p| p == name);
                names.sort_by_cached_key(|name| (place(name).unwrap_or(usize::MAX), name.clone()));
                Self::Names(names)
            }
            pattern => pattern,
        }
    }
}

fn is_all_linear(pattern: &str) -> bool {
    pattern.eq_ignore_ascii_case(ALL_LINEAR)
}

fn allowed() -> String {
    format!(
        "must end in one of {}; the embedding, the head and norms train whole with modules_to_save",
        PROJECTIONS.join(", ")
    )
}

fn refuse(value: &str, allowed: &str) -> Error {
    Error::Setting {
        key: "targets",
        value: value.into(),
        allowed: allowed.into(),
    }
}
