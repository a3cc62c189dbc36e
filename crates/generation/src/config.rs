//! The recipe's `[prompts]`, `[teacher]` and `[generate]` sections.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::openai::answer::CHOICES;

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
    pub source: String,
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

impl PromptsConfig {
    pub fn validate(&self) -> Result<()> {
        check(
            !self.source.is_empty(),
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

/// Traces that are there already, from this system or another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// A Parquet file with token ids or messages, or a glob over such files.
    pub source: String,
}

/// How a teacher is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In this process, through our own decoder.
    #[default]
    Candle,
    /// In this process, through mistral.rs.
    #[cfg(feature = "mistralrs")]
    Mistralrs,
    /// Servers, over HTTP.
    Openai,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candle => "candle",
            #[cfg(feature = "mistralrs")]
            Self::Mistralrs => "mistralrs",
            Self::Openai => "openai",
        }
    }
}

// By hand, because the derived message would not say why a documented backend is refused.
impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "candle" => Ok(Self::Candle),
            "openai" => Ok(Self::Openai),
            #[cfg(feature = "mistralrs")]
            "mistralrs" => Ok(Self::Mistralrs),
            #[cfg(not(feature = "mistralrs"))]
            "mistralrs" => Err(serde::de::Error::custom(
                "teacher.backend is `mistralrs`, which is not in this build; build with `--features mistralrs`",
            )),
            other => Err(serde::de::Error::custom(format!(
                "teacher.backend is `{other}`, allowed are `candle`, `mistralrs` and `openai`"
            ))),
        }
    }
}

/// What kind of server answers, which decides how it is asked for token ids and distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `/v1/completions` with token ids.
    Vllm,
    /// `/generate`.
    Sglang,
    /// `/completion`.
    Llamacpp,
    /// `/chat/completions` with `reasoning_content`, without log-probabilities.
    Deepseek,
    /// `/chat/completions`.
    Openai,
}

impl Dialect {
    /// Whether completions that are there already can be scored.
    pub fn scores(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang)
    }

    /// Whether prompts go out as token ids, which needs the server's tokenizer here.
    pub fn takes_token_ids(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang | Self::Llamacpp)
    }
}

/// What a million tokens cost, in any one currency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub input: f64,
    pub output: f64,
}

impl Prices {
    pub fn of(&self, input_tokens: u64, output_tokens: u64) -> f64 {
        (self.input * input_tokens as f64 + self.output * output_tokens as f64) / 1e6
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    #[serde(default)]
    pub backend: Backend,
    /// A checkpoint folder in Hugging Face layout, a GGUF file for mistral.rs, or the name a server serves the model by.
    pub model: String,
    /// To what mistral.rs quantises the weights as it loads them, such as `q4k` or `q8_0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// Base addresses, such as `http://host:8000/v1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// A folder with the tokenizer of a served model, or of a GGUF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The environment variable that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<String>,
    /// Of each endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Of each endpoint; prompt and completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_million: Option<Prices>,
    /// In the prices' currency; no request is sent once it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spending_limit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryConfig>,
}

/// How long a server may take, and how often it is asked; in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Of one request, in one start.
    pub attempts: u32,
    /// The longest pause after the first failure; it doubles with every further one.
    pub pause: f64,
    pub longest_pause: f64,
    pub connect: f64,
    /// Until a response begins.
    pub first_byte: f64,
    /// Between two pieces of a response.
    pub idle: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 12,
            pause: 0.5,
            longest_pause: 60.0,
            connect: 10.0,
            first_byte: 1800.0,
            idle: 120.0,
        }
    }
}

impl RetryConfig {
    fn validate(&self) -> Result<()> {
        at_least_one("teacher.retry.attempts", u64::from(self.attempts))?;
        for (key, value) in [
            ("teacher.retry.pause", self.pause),
            ("teacher.retry.longest_pause", self.longest_pause),
            ("teacher.retry.connect", self.connect),
            ("teacher.retry.first_byte", self.first_byte),
            ("teacher.retry.idle", self.idle),
        ] {
            in_range(key, value, value > 0.0 && value <= 1e6, "seconds, above 0")?;
        }
        Ok(())
    }
}

impl TeacherConfig {
    /// The dialect of an `openai` teacher.
    pub fn dialect(&self) -> Dialect {
        self.dialect.unwrap_or(Dialect::Openai)
    }

    /// Whether one request may ask for several samples whose tokens can be told apart.
    pub fn takes_n(&self, top_k_logits: u16) -> bool {
        let counts = match self.dialect() {
            Dialect::Vllm => true,
            Dialect::Openai => top_k_logits > 0,
            Dialect::Sglang | Dialect::Llamacpp | Dialect::Deepseek => false,
        };
        self.backend == Backend::Openai && counts
    }

    /// That this teacher can score completions.
    pub fn validate_scoring(&self) -> Result<()> {
        let can = match self.backend {
            Backend::Candle => true,
            #[cfg(feature = "mistralrs")]
            Backend::Mistralrs => false,
            Backend::Openai => self.dialect().scores(),
        };
        check(can, "teacher.dialect", "cannot score completions", || {
            "`vllm` or `sglang`, or teacher.backend = \"candle\"".to_owned()
        })
    }

    pub fn validate(&self) -> Result<()> {
        check(!self.model.is_empty(), "teacher.model", "is empty", || {
            "a checkpoint folder, or the served model's name".to_owned()
        })?;
        match self.backend {
            Backend::Candle => {
                self.validate_local()?;
                let key = "teacher.tokenizer";
                check(self.tokenizer.is_none(), key, "is of a server", || {
                    "the folder of the model has it".to_owned()
                })?;
                self.validate_quantization()
            }
            #[cfg(feature = "mistralrs")]
            Backend::Mistralrs => self.validate_mistralrs(),
            Backend::Openai => {
                self.validate_quantization()?;
                self.validate_server()
            }
        }
    }

    fn validate_quantization(&self) -> Result<()> {
        let key = "teacher.quantization";
        check(self.quantization.is_none(), key, "is of mistral.rs", || {
            "only with teacher.backend = \"mistralrs\"".to_owned()
        })
    }

    #[cfg(feature = "mistralrs")]
    fn validate_mistralrs(&self) -> Result<()> {
        self.validate_local()?;
        let gguf = self.model.ends_with(".gguf");
        check(
            !(gguf && self.tokenizer.is_none()),
            "teacher.tokenizer",
            "is missing",
            || "a folder with the GGUF file's tokenizer.json and chat template".to_owned(),
        )?;
        check(
            !(gguf && self.quantization.is_some()),
            "teacher.quantization",
            "stands beside a GGUF file",
            || "leave it out: the file is quantised already".to_owned(),
        )?;
        let Some(name) = &self.quantization else {
            return Ok(());
        };
        let known = ::mistralrs::parse_isq_value(name, None).is_ok();
        check(
            known,
            "teacher.quantization",
            &format!("is {name:?}"),
            || "a name of mistral.rs, such as q4k, q5k, q6k, q8_0 or hqq8".to_owned(),
        )
    }

    fn validate_local(&self) -> Result<()> {
        let given = [
            ("teacher.endpoints", !self.endpoints.is_empty()),
            ("teacher.dialect", self.dialect.is_some()),
            ("teacher.api_key_env", self.api_key_env.is_some()),
            ("teacher.api_key_file", self.api_key_file.is_some()),
            (
                "teacher.requests_per_minute",
                self.requests_per_minute.is_some(),
            ),
            (
                "teacher.tokens_per_minute",
                self.tokens_per_minute.is_some(),
            ),
            (
                "teacher.price_per_million",
                self.price_per_million.is_some(),
            ),
            ("teacher.spending_limit", self.spending_limit.is_some()),
            ("teacher.retry", self.retry.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => check(false, key, "is of a server", || {
                "only with teacher.backend = \"openai\"".to_owned()
            }),
            None => Ok(()),
        }
    }

    fn validate_server(&self) -> Result<()> {
        check(
            !self.endpoints.is_empty(),
            "teacher.endpoints",
            "is empty",
            || "base addresses, such as [\"http://host:8000/v1\"]".to_owned(),
        )?;
        for endpoint in &self.endpoints {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| endpoint.strip_prefix(scheme));
            check(
                host.is_some_and(|host| !host.is_empty() && !host.contains(['@', ' ', '?', '#'])),
                "teacher.endpoints",
                &format!("has {endpoint:?}"),
                || "http:// or https:// addresses without a key in them".to_owned(),
            )?;
        }
        check(
            !(self.dialect().takes_token_ids() && self.tokenizer.is_none()),
            "teacher.tokenizer",
            "is missing",
            || {
                "a folder with the served model's tokenizer: this dialect is asked with token ids"
                    .to_owned()
            },
        )?;
        check(
            !(self.api_key_env.is_some() && self.api_key_file.is_some()),
            "teacher.api_key_file",
            "stands beside teacher.api_key_env",
            || "one of the two".to_owned(),
        )?;
        at_least_one(
            "teacher.requests_per_minute",
            self.requests_per_minute.map_or(1, u64::from),
        )?;
        at_least_one(
            "teacher.tokens_per_minute",
            self.tokens_per_minute.map_or(1, u64::from),
        )?;
        self.retry.unwrap_or_default().validate()?;
        if let Some(prices) = &self.price_per_million {
            for price in [prices.input, prices.output] {
                in_range(
                    "teacher.price_per_million",
                    price,
                    price >= 0.0,
                    "0 or more",
                )?;
            }
        }
        if let Some(limit) = self.spending_limit {
            in_range("teacher.spending_limit", limit, limit > 0.0, "above 0")?;
            check(
                self.price_per_million.is_some(),
                "teacher.spending_limit",
                "has no prices to count with",
                || "with teacher.price_per_million = { input = …, output = … }".to_owned(),
            )?;
        }
        Ok(())
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
        }
    }
}

impl GenerateConfig {
    pub fn validate(&self) -> Result<()> {
        at_least_one(
            "generate.samples_per_prompt",
            u64::from(self.samples_per_prompt),
        )?;
        at_least_one("generate.max_new_tokens", u64::from(self.max_new_tokens))?;
        at_least_one("generate.concurrency", self.concurrency as u64)?;
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
        at_least_one("generate.top_k", self.top_k.map_or(1, u64::from))?;
        in_range(
            "generate.temperature",
            self.temperature,
            self.temperature >= 0.0,
            "0 (greedy) or more",
        )?;
        in_range(
            "generate.top_p",
            self.top_p,
            self.top_p > 0.0 && self.top_p <= 1.0,
            "above 0, up to 1",
        )?;
        let min_p = self.min_p.unwrap_or(0.0);
        in_range(
            "generate.min_p",
            min_p,
            (0.0..=1.0).contains(&min_p),
            "0 to 1",
        )
    }
}

fn at_least_one(key: &'static str, value: u64) -> Result<()> {
    check(value >= 1, key, "is 0", || "at least 1".to_owned())
}

fn in_range(key: &'static str, value: f64, ok: bool, allowed: &str) -> Result<()> {
    check(ok && value.is_finite(), key, &format!("is {value}"), || {
        allowed.to_owned()
    })
}

fn check(
    ok: bool,
    key: &'static str,
    problem: &str,
    allowed: impl FnOnce() -> String,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Config {
        key,
        problem: problem.to_owned(),
        allowed: allowed(),
    })
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
