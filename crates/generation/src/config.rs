//! The recipe's `[prompts]`, `[traces]`, `[teacher]`, `[generate]` and `[judge]` sections.

mod judge;
mod request;
mod teacher;
mod traces;

use std::borrow::Cow;

use model::sampling::SamplingParams;
use records::Reference;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::teacher::{CHOICES, SamplingConfig};

pub use judge::{JUDGE_TEMPLATE, JudgeConfig};
pub use request::{HeaderText, Headers, RequestConfig};
pub use teacher::{Backend, Dialect, Prices, RetryConfig, TeacherConfig};
pub use traces::{TraceFormat, TracesConfig};

/// DeepSeek-R1's own question: its model card gives no system prompt and this sentence.
pub const R1_TEMPLATE: &str =
    "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.";

/// Where problems come from and how they are put to the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// A JSONL, Parquet or CSV file, or a glob over such files: a local path,
    /// `hf://datasets/ORG/NAME@REVISION/path` on the Hub, or an object (`s3://bucket/path`, `gs://`, `az://`,
    /// `https://host/path`). What lies elsewhere is fetched by the caller, who passes the files.
    pub source: Reference,
    /// The column that holds the problem.
    #[serde(default = "default_problem")]
    pub problem: String,
    /// The column that holds the gold answer. A named column must be there; without a name
    /// `answer` is read where the source has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// How many problems to take, from the front; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The user turn; `{problem}` stands for the problem.
    #[serde(default = "default_template")]
    pub template: String,
}

fn default_problem() -> String {
    "problem".to_owned()
}

fn default_template() -> String {
    R1_TEMPLATE.to_owned()
}

/// How a problem is put to a teacher.
#[derive(Debug, Clone, Copy)]
pub struct Wording<'a> {
    pub system: Option<&'a str>,
    /// The user turn; `{problem}` stands for the problem.
    pub template: &'a str,
}

impl PromptsConfig {
    /// How its problems are put.
    pub fn wording(&self) -> Wording<'_> {
        Wording {
            system: self.system.as_deref(),
            template: &self.template,
        }
    }

    pub fn validate(&self) -> Result<()> {
        check(
            !self.source.as_str().is_empty(),
            "prompts.source",
            "is empty",
            || "a JSONL, Parquet or CSV file, a glob, or a URL of such files".to_owned(),
        )?;
        check(
            self.template.contains("{problem}"),
            "prompts.template",
            "does not contain {problem}",
            || format!("a text with {{problem}} where the problem goes, such as {R1_TEMPLATE:?}"),
        )?;
        check(self.limit != Some(0), "prompts.limit", "is 0", || {
            "at least 1; leave it out to take every problem".to_owned()
        })
    }
}

/// How traces are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    pub samples_per_prompt: u32,
    /// 0 is greedy.
    pub temperature: f64,
    pub top_p: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    pub max_new_tokens: u32,
    /// Entries of the teacher's distribution kept per position; 0 keeps none.
    pub top_k_logits: u16,
    /// Samples in flight. No part of the sampling key: traces do not depend on it.
    pub concurrency: usize,
    /// Samples of a prompt that one request to a server asks for, by its `n`: the prompt is paid for once. Only where
    /// each sample's tokens can be counted.
    pub samples_per_request: u32,
    /// The share of samples that have to come out for `stillroom run` to go on to the next stage.
    pub min_success: f64,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            samples_per_prompt: 1,
            temperature: 0.6,
            top_p: 0.95,
            top_k: None,
            min_p: None,
            max_new_tokens: 32_768,
            top_k_logits: 0,
            concurrency: 32,
            samples_per_request: 1,
            min_success: 0.9,
        }
    }
}

impl GenerateConfig {
    pub fn validate(&self) -> Result<()> {
        self.validate_sampling("generate")?;
        at_least_one(
            "generate.samples_per_prompt",
            u64::from(self.samples_per_prompt),
        )?;
        at_least_one(
            "generate.samples_per_request",
            u64::from(self.samples_per_request),
        )?;
        check(
            self.samples_per_request as usize <= self.concurrency.min(CHOICES),
            "generate.samples_per_request",
            &format!("is {}", self.samples_per_request),
            || format!("at most generate.concurrency, and {CHOICES}"),
        )?;
        let share = self.min_success;
        let is_share = (0.0..=1.0).contains(&share);
        in_range("generate.min_success", share, is_share, "0 to 1")
    }

    /// Checks what every section that samples has keys for; `section` is its name.
    ///
    /// # Errors
    /// [`Error::Config`] with the section's key.
    pub fn validate_sampling(&self, section: &str) -> Result<()> {
        let key = |name: &str| format!("{section}.{name}");
        at_least_one(key("max_new_tokens"), u64::from(self.max_new_tokens))?;
        at_least_one(key("concurrency"), self.concurrency as u64)?;
        check(self.top_k != Some(0), key("top_k"), "is 0", || {
            "at least 1; leave it out for no limit".to_owned()
        })?;
        let (t, p, m) = (self.temperature, self.top_p, self.min_p.unwrap_or(0.0));
        in_range(key("temperature"), t, t >= 0.0, "0 (greedy) or more")?;
        in_range(key("top_p"), p, p > 0.0 && p <= 1.0, "above 0, up to 1")?;
        in_range(key("min_p"), m, (0.0..=1.0).contains(&m), "0 to 1")
    }
}

fn at_least_one(key: impl Into<Cow<'static, str>>, value: u64) -> Result<()> {
    check(value >= 1, key, "is 0", || "at least 1".to_owned())
}

fn in_range(key: impl Into<Cow<'static, str>>, value: f64, ok: bool, allowed: &str) -> Result<()> {
    check(ok && value.is_finite(), key, &format!("is {value}"), || {
        allowed.to_owned()
    })
}

fn check(
    ok: bool,
    key: impl Into<Cow<'static, str>>,
    problem: &str,
    allowed: impl FnOnce() -> String,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Config {
        key: key.into(),
        problem: problem.to_owned(),
        allowed: allowed(),
    })
}

impl From<&GenerateConfig> for SamplingConfig {
    fn from(config: &GenerateConfig) -> Self {
        Self {
            params: SamplingParams {
                temperature: config.temperature as f32,
                top_p: config.top_p as f32,
                top_k: config.top_k,
                min_p: config.min_p.map(|p| p as f32),
            },
            max_new_tokens: config.max_new_tokens,
            top_k_logits: config.top_k_logits,
            concurrency: config.concurrency,
            samples_per_request: config.samples_per_request as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_the_documented_ones() {
        let generate: GenerateConfig = serde_json::from_value(json!({})).unwrap();
        assert_eq!(generate, GenerateConfig::default());
        generate.validate().unwrap();
        let prompts: PromptsConfig = serde_json::from_value(json!({"source": "x.jsonl"})).unwrap();
        assert_eq!(prompts.problem, "problem");
        assert_eq!(prompts.template, R1_TEMPLATE);
        prompts.validate().unwrap();
        let teacher: TeacherConfig = serde_json::from_value(json!({"model": "t"})).unwrap();
        assert_eq!(teacher.backend, Backend::Candle);
    }

    #[test]
    fn unknown_keys_and_backends_say_what_is_allowed() {
        let error = serde_json::from_value::<GenerateConfig>(json!({"temprature": 1})).unwrap_err();
        assert!(error.to_string().contains("temperature"), "{error}");
        let backend = |name: &str| {
            let teacher = json!({"backend": name, "model": "r1"});
            serde_json::from_value::<TeacherConfig>(teacher).map_err(|error| error.to_string())
        };
        let message = backend("vllm").unwrap_err();
        assert!(message.contains("`candle`, `mistralrs`"), "{message}");
        match backend("mistralrs") {
            Ok(teacher) => {
                teacher.validate().unwrap();
                let wrong = TeacherConfig {
                    quantization: Some("q3".into()),
                    ..teacher
                };
                let message = wrong.validate().unwrap_err().to_string();
                assert!(message.contains("teacher.quantization"), "{message}");
            }
            Err(message) => assert!(message.contains("--features mistralrs"), "{message}"),
        }
    }

    #[test]
    fn scoring_and_several_samples_want_servers_that_can() {
        let teacher = |dialect: Option<Dialect>| TeacherConfig {
            backend: dialect.map_or(Backend::Candle, |_| Backend::Openai),
            dialect,
            ..TeacherConfig::default()
        };
        let scores = |dialect| teacher(dialect).validate_scoring().is_ok();
        assert!(scores(None) && scores(Some(Dialect::Vllm)) && scores(Some(Dialect::Sglang)));
        assert!(!scores(Some(Dialect::Llamacpp)) && !scores(Some(Dialect::Openai)));
        let takes_n = |dialect, top_k| teacher(dialect).takes_n(top_k);
        assert!(takes_n(Some(Dialect::Vllm), 0) && takes_n(Some(Dialect::Openai), 5));
        assert!(!takes_n(Some(Dialect::Openai), 0) && !takes_n(None, 20));
        let generate = GenerateConfig {
            samples_per_request: 64,
            concurrency: 32,
            ..GenerateConfig::default()
        };
        let message = generate.validate().unwrap_err().to_string();
        assert!(
            message.contains("generate.samples_per_request"),
            "{message}"
        );
    }

    #[test]
    fn impossible_values_name_their_key() {
        let check = |generate: GenerateConfig, key: &str| {
            let message = generate.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        };
        let base = GenerateConfig::default;
        check(
            GenerateConfig {
                temperature: -0.1,
                ..base()
            },
            "generate.temperature",
        );
        check(
            GenerateConfig {
                temperature: f64::NAN,
                ..base()
            },
            "generate.temperature",
        );
        check(
            GenerateConfig {
                top_p: 0.0,
                ..base()
            },
            "generate.top_p",
        );
        check(
            GenerateConfig {
                top_k: Some(0),
                ..base()
            },
            "generate.top_k",
        );
        check(
            GenerateConfig {
                min_p: Some(2.0),
                ..base()
            },
            "generate.min_p",
        );
        check(
            GenerateConfig {
                concurrency: 0,
                ..base()
            },
            "generate.concurrency",
        );
        check(
            GenerateConfig {
                max_new_tokens: 0,
                ..base()
            },
            "generate.max_new_tokens",
        );
        check(
            GenerateConfig {
                samples_per_prompt: 0,
                ..base()
            },
            "generate.samples_per_prompt",
        );
    }
}
