//! The recipe's `[eval]` section.

use std::collections::BTreeMap;
use std::fmt;

use generation::config::{GenerateConfig, TeacherConfig};
use records::benchmark::{AnswerSearch, Benchmark, BenchmarkChoice};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::protocol::Protocol;

/// What is scored, and how it is sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Names of benchmarks, or tables `{ name, source, problem, answer }`.
    pub benchmarks: Vec<BenchmarkChoice>,
    /// Sets the sampling, the words of the questions and how far answers are looked for, as published scores have them.
    /// Keys beside it depart from it, which the scores say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Samples per question: the k of avg@k, pass@k and maj@k; 8 without a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// 0 is greedy; 0.6 without a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0.95 without a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// 32,768 without a protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<u32>,
    /// A system turn before the question; the protocol has none, and without one it is that of `[prompts]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The user turn, with `{problem}` where the problem goes; the protocol's, or that of `[prompts]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// A model is sampled no more once the 95 % interval of its avg@k, over other samples of the same questions, reaches
    /// no further than this many points to either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Completion tokens of the whole evaluation, divided evenly between the models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_total: Option<u64>,
    /// The models to score, in the order of the table: `base`, `student`, `teacher`, and names of tables in `models`.
    pub compare: Vec<Role>,
    /// Requests in flight; samples do not depend on it.
    pub concurrency: usize,
    /// How the student before training is sampled, with the keys of `[teacher]`; by our own decoder from `student.model`
    /// without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<TeacherConfig>,
    /// The same of the student: a server of the merged folder, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student: Option<TeacherConfig>,
    /// The same of the teacher; `[teacher]` without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherConfig>,
    /// Other models to score, by the names that `compare` and the scores have for them; each with the keys of `[teacher]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, TeacherConfig>,
    /// What the chat templates of all models are given beside the messages, such as `enable_thinking`; else each model's
    /// own section says it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Value>,
}

/// Without a protocol, R1's sampling with 8 samples per question; its evaluation draws between 4 and 64.
const USUAL: (u32, f64, f64, u32) = (8, 0.6, 0.95, 32_768);

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            benchmarks: Vec::new(),
            protocol: None,
            samples: None,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            max_new_tokens: None,
            system: None,
            template: None,
            precision: None,
            max_tokens_total: None,
            compare: vec![Role::Base, Role::Student, Role::Teacher],
            concurrency: 32,
            base: None,
            student: None,
            teacher: None,
            models: BTreeMap::new(),
            chat_template_kwargs: Map::new(),
        }
    }
}

impl EvalConfig {
    /// Checks what can be judged without reading files.
    pub fn validate(&self) -> Result<()> {
        check(
            !self.benchmarks.is_empty(),
            "eval.benchmarks",
            "is empty",
            "at least one benchmark",
        )?;
        check(
            self.samples != Some(0),
            "eval.samples",
            "is 0",
            "at least 1",
        )?;
        let template = self.template.as_deref();
        check(
            template.is_none_or(|template| template.contains("{problem}")),
            "eval.template",
            "does not say where the problem goes",
            "a text with {problem} in it",
        )?;
        check(
            self.precision
                .is_none_or(|points| points > 0.0 && points < 100.0),
            "eval.precision",
            "is no number of points",
            "points to either side, such as 1.0",
        )?;
        check(
            self.max_tokens_total != Some(0),
            "eval.max_tokens_total",
            "is 0",
            "completion tokens of the whole evaluation",
        )?;
        let sampling = self.generate();
        sampling.validate_sampling("eval").map_err(Error::Section)?;
        check(
            !self.compare.is_empty(),
            "eval.compare",
            "is empty",
            "some of base, student, teacher, and names of tables in [eval.models]",
        )?;
        for (i, role) in self.compare.iter().enumerate() {
            let again = self.compare[..i].contains(role);
            check(
                !again,
                "eval.compare",
                &format!("names {role} twice"),
                "each model once",
            )?;
            if let Role::Other(name) = role {
                check(
                    self.models.contains_key(name),
                    "eval.compare",
                    &format!("names `{name}`, of which there is no table [eval.models.{name}]"),
                    "base, student, teacher, and names of tables in [eval.models]",
                )?;
            }
        }
        for name in self.models.keys() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            check(
                !name.is_empty() && !name.starts_with('.') && name.chars().all(plain),
                "eval.models",
                &format!("names a model `{name}`"),
                "letters, digits, `-`, `_` and `.`, for the name is part of file names",
            )?;
            check(
                matches!(Role::from(name.clone()), Role::Other(_)),
                "eval.models",
                &format!("has a table `{name}`, which is a model of the experiment"),
                "another name; how that model is sampled says [eval.base], [eval.student] or [eval.teacher]",
            )?;
        }
        let benchmarks = self.benchmarks()?;
        for (i, benchmark) in benchmarks.iter().enumerate() {
            let again = benchmarks[..i]
                .iter()
                .any(|other| other.name == benchmark.name);
            check(
                !again,
                "eval.benchmarks",
                &format!("names {} twice", benchmark.name),
                "different names",
            )?;
        }
        Ok(())
    }

    /// How every model is sampled.
    pub fn generate(&self) -> GenerateConfig {
        GenerateConfig {
            samples_per_prompt: self.samples.unwrap_or(1),
            temperature: self.temperature(),
            top_p: self.top_p(),
            top_k: self.top_k,
            min_p: self.min_p,
            max_new_tokens: self.max_new_tokens(),
            concurrency: self.concurrency,
            ..GenerateConfig::default()
        }
    }

    /// With the usual values written out, where no protocol has them.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        if self.protocol.is_none() {
            self.samples = self.samples.or(Some(USUAL.0));
            self.temperature = self.temperature.or(Some(USUAL.1));
            self.top_p = self.top_p.or(Some(USUAL.2));
            self.max_new_tokens = self.max_new_tokens.or(Some(USUAL.3));
        }
        self
    }

    /// Samples per question of a benchmark.
    pub fn samples_of(&self, benchmark: &Benchmark) -> u32 {
        let protocol = || self.protocol.map(|protocol| protocol.samples(benchmark));
        self.samples.or_else(protocol).unwrap_or(USUAL.0)
    }

    pub fn temperature(&self) -> f64 {
        let protocol = || self.protocol.map(Protocol::temperature);
        self.temperature.or_else(protocol).unwrap_or(USUAL.1)
    }

    pub fn top_p(&self) -> f64 {
        let protocol = || self.protocol.map(Protocol::top_p);
        self.top_p.or_else(protocol).unwrap_or(USUAL.2)
    }

    pub fn max_new_tokens(&self) -> u32 {
        let protocol = || self.protocol.map(Protocol::max_new_tokens);
        self.max_new_tokens.or_else(protocol).unwrap_or(USUAL.3)
    }

    /// How far the answers to a benchmark are looked for.
    pub fn answer_from(&self, benchmark: &Benchmark) -> AnswerSearch {
        match self.protocol {
            Some(protocol) => protocol.answer_from(benchmark),
            None => benchmark.answer_from,
        }
    }

    /// Where the sampling of a benchmark is not the protocol's, each in a few words.
    pub fn departures(&self, benchmark: &Benchmark) -> Vec<String> {
        let Some(protocol) = self.protocol else {
            return Vec::new();
        };
        let mut departures = Vec::new();
        let mut compare = |key: &str, ours: Option<String>, theirs: String| {
            if let Some(ours) = ours.filter(|ours| *ours != theirs) {
                departures.push(format!("{key} {ours} instead of {theirs}"));
            }
        };
        let text = |value: f64| value.to_string();
        let samples = protocol.samples(benchmark).to_string();
        compare("samples", self.samples.map(|n| n.to_string()), samples);
        compare(
            "temperature",
            self.temperature.map(text),
            text(protocol.temperature()),
        );
        compare("top_p", self.top_p.map(text), text(protocol.top_p()));
        compare("top_k", self.top_k.map(|k| k.to_string()), "none".into());
        compare("min_p", self.min_p.map(text), "none".into());
        let limit = self.max_new_tokens.map(|n| n.to_string());
        compare(
            "max_new_tokens",
            limit,
            protocol.max_new_tokens().to_string(),
        );
        if self.system.is_some() {
            departures.push("a system turn".to_owned());
        }
        let template = protocol.template(benchmark.answers());
        if self.template.as_deref().is_some_and(|own| own != template) {
            departures.push("another template".to_owned());
        }
        departures
    }

    /// The benchmarks with their sources; a name that is not known is an error.
    pub fn benchmarks(&self) -> Result<Vec<Benchmark>> {
        self.benchmarks
            .iter()
            .map(|choice| {
                choice.benchmark().map_err(|error| Error::Config {
                    key: "eval.benchmarks",
                    problem: error.to_string(),
                    allowed: "names of benchmarks, or tables { name, source, problem, answer }",
                })
            })
            .collect()
    }

    /// The section of a model, where it has one of its own.
    pub fn section(&self, role: &Role) -> Option<&TeacherConfig> {
        match role {
            Role::Base => self.base.as_ref(),
            Role::Student => self.student.as_ref(),
            Role::Teacher => self.teacher.as_ref(),
            Role::Other(name) => self.models.get(name),
        }
    }

    /// The models that have sections of their own, whether or not they are scored.
    pub fn sections(&self) -> impl Iterator<Item = (Role, &TeacherConfig)> {
        let own = [Role::Base, Role::Student, Role::Teacher].into_iter();
        let others = self.models.keys().cloned().map(Role::Other);
        own.chain(others).filter_map(|role| {
            let section = self.section(&role)?;
            Some((role, section))
        })
    }

    pub fn compares(&self, role: &Role) -> bool {
        self.compare.contains(role)
    }
}

fn check(ok: bool, key: &'static str, problem: &str, allowed: &'static str) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Config {
        key,
        problem: problem.to_owned(),
        allowed,
    })
}

/// Which model is scored: one of the experiment, or one that a table names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Role {
    /// The student before training.
    Base,
    Student,
    Teacher,
    /// By the name of its table in `[eval.models]`.
    Other(String),
}

impl Role {
    pub fn as_str(&self) -> &str {
        match self {
            Role::Base => "base",
            Role::Student => "student",
            Role::Teacher => "teacher",
            Role::Other(name) => name,
        }
    }

    /// The section that says how the model is sampled.
    pub fn section_name(&self) -> String {
        match self {
            Role::Other(name) => format!("eval.models.{name}"),
            role => format!("eval.{role}"),
        }
    }
}

impl From<String> for Role {
    fn from(name: String) -> Self {
        match name.as_str() {
            "base" => Role::Base,
            "student" => Role::Student,
            "teacher" => Role::Teacher,
            _ => Role::Other(name),
        }
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.as_str().to_owned()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{EvalConfig, Role};

    fn parse(value: serde_json::Value) -> std::result::Result<EvalConfig, String> {
        let config: EvalConfig = serde_json::from_value(value).map_err(|e| e.to_string())?;
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn names_and_tables_are_benchmarks() {
        let config =
            parse(json!({"benchmarks": ["arithmetic", {"name": "mine", "source": "m.jsonl"}]}))
                .unwrap();
        let benchmarks = config.benchmarks().unwrap();
        assert_eq!(
            benchmarks[0].source.as_str(),
            "data/arithmetic/heldout.jsonl"
        );
        assert_eq!(
            (
                benchmarks[1].problem.as_str(),
                benchmarks[1].answer.as_str()
            ),
            ("problem", "answer")
        );
        assert!(config.compares(&Role::Teacher));
        assert_eq!(config.max_new_tokens(), 32_768);
        assert_eq!(config.resolved().samples, Some(8));
    }

    #[test]
    fn a_protocol_sets_the_keys_and_departures_are_told() {
        let config = json!({
            "benchmarks": ["aime24", "math500"],
            "protocol": "r1",
            "max_new_tokens": 8192,
            "temperature": 0.6,
        });
        let config = parse(config).unwrap();
        let benchmarks = config.benchmarks().unwrap();
        let samples = benchmarks
            .iter()
            .map(|benchmark| config.samples_of(benchmark));
        assert_eq!(samples.collect::<Vec<_>>(), [64, 16]);
        assert_eq!((config.temperature(), config.top_p()), (0.6, 0.95));
        assert_eq!(
            config.departures(&benchmarks[0]),
            ["max_new_tokens 8192 instead of 32768"]
        );
        // Resolved, it still says which keys the recipe has.
        assert_eq!(config.clone().resolved(), config);
        let error = parse(json!({"benchmarks": ["aime24"], "protocol": "r2"})).unwrap_err();
        assert!(error.contains("r1-0528"), "{error}");
    }

    #[test]
    fn mistakes_name_their_key() {
        for (change, expected) in [
            (json!({"benchmarks": []}), "eval.benchmarks"),
            (json!({"benchmarks": ["aime1900"]}), "aime1900"),
            (json!({"benchmarks": ["aime24", "aime24"]}), "aime24 twice"),
            (
                json!({"benchmarks": [{"name": "m", "source": "m", "anwser": "a"}]}),
                "anwser",
            ),
            (json!({"samples": 0}), "eval.samples"),
            (json!({"top_p": 0.0}), "eval.top_p"),
            (json!({"temperature": -1.0}), "eval.temperature"),
            (json!({"compare": ["base", "base"]}), "base twice"),
            (json!({"compare": ["mother"]}), "mother"),
            (json!({"sample": 3}), "sample"),
            (json!({"template": "solve it"}), "eval.template"),
            (json!({"precision": 0.0}), "eval.precision"),
            (json!({"max_tokens_total": 0}), "eval.max_tokens_total"),
        ] {
            let mut value = json!({"benchmarks": ["arithmetic"]});
            for (key, change) in change.as_object().unwrap() {
                value[key] = change.clone();
            }
            let message = parse(value).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
