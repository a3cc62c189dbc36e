//! The settings that all traces of one folder must share.

use serde_json::{Map, Value, json};

use crate::config::{GenerateConfig, TeacherConfig, Wording};
use crate::teacher::Description;

/// Recipe keys and their values, as they are kept in the journal. Concurrency, the number of
/// samples and the set of problems are no part of it: they extend the traces.
pub type SamplingKey = Map<String, Value>;

/// The key of what `config` samples, which is `teacher`.
pub fn sampling_key(
    teacher: &Description,
    config: &TeacherConfig,
    wording: Wording<'_>,
    generate: &GenerateConfig,
    seed: u64,
) -> SamplingKey {
    let entries = [
        ("seed", json!(seed)),
        ("prompts.system", json!(wording.system)),
        ("prompts.template", json!(wording.template)),
        ("teacher.backend", json!(teacher.backend)),
        ("teacher.model", json!(teacher.model)),
        ("teacher.revision", json!(teacher.revision)),
        ("generate.temperature", json!(generate.temperature)),
        ("generate.top_p", json!(generate.top_p)),
        ("generate.top_k", json!(generate.top_k)),
        ("generate.min_p", json!(generate.min_p)),
        ("generate.max_new_tokens", json!(generate.max_new_tokens)),
        ("generate.top_k_logits", json!(generate.top_k_logits)),
    ];
    let key = entries.map(|(key, value)| (key.to_owned(), value));
    with_request(key.into_iter().collect(), config)
}

/// Adds what else a server or a chat template is told, where it is told anything: folders that were begun before it could
/// be told do not have these keys. Secrets are left out.
#[must_use]
pub(crate) fn with_request(mut key: SamplingKey, teacher: &TeacherConfig) -> SamplingKey {
    let told = [
        ("teacher.request", json!(teacher.request)),
        (
            "teacher.chat_template_kwargs",
            json!(teacher.chat_template_kwargs),
        ),
    ];
    let told = told.into_iter().filter(|(_, value)| !value.is_null());
    key.extend(told.map(|(name, value)| (name.to_owned(), value)));
    key
}

/// `key: old → new` for every setting that is not the same.
pub fn differences(old: &SamplingKey, new: &SamplingKey) -> Vec<String> {
    let show = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "unset".to_owned(),
        Some(value) => value.to_string(),
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    new.keys()
        .chain(gone)
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key}: {} → {}", show(old.get(key)), show(new.get(key))))
        .collect()
}
