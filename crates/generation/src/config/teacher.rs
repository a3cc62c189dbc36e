//! `[teacher]`: what answers, and how it is reached and paid.

use records::Reference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RequestConfig, at_least_one, check, in_range};
use crate::error::Result;

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
    /// A checkpoint: a folder in Hugging Face layout, `ORG/NAME@REVISION` on the Hub, or a GGUF file for mistral.rs. Of a
    /// server, the name it serves the model by.
    pub model: Reference,
    /// To what mistral.rs quantises the weights as it loads them, such as `q4k` or `q8_0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// Base addresses, such as `http://host:8000/v1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// The tokenizer of a served model, or of a GGUF file: a folder, or `ORG/NAME@REVISION` on the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Reference>,
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
    /// What is sent to the server beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestConfig>,
    /// What the chat template is given beside the messages, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<Map<String, Value>>,
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
        let named = !self.model.as_str().is_empty();
        check(named, "teacher.model", "is empty", || {
            "a checkpoint folder, a Hub id, or the served model's name".to_owned()
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
        let gguf = self.model.as_str().ends_with(".gguf");
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
            ("teacher.request", self.request.is_some()),
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
        if let Some(request) = &self.request {
            request.validate()?;
        }
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
