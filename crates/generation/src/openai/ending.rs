//! What an answer's end means, and what an error means that comes in place of one or beside it: the one place that
//! decides, for every dialect.
//!
//! A completion has ended where the server says `stop` or `length`, or a word that its dialect documents as an end. Every
//! other word (`error`, `abort`, `insufficient_system_resource`, one that nobody knows) says that the server broke off:
//! the words are kept and the request is sent again.

use records::FinishReason;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How a completion has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Finished(FinishReason),
    /// At its token limit.
    Cut,
    /// The server broke off; its words.
    Broken(String),
}

/// Words for an end that every dialect may use: a stop token or string, and what routers pass on of other makers.
const STOPS: &[&str] = &[
    "stop",
    "eos",
    "eos_token",
    "stop_sequence",
    "stop_token",
    "word",
    "end_turn",
];
/// Words for a token limit, of the request or of the model.
const CUTS: &[&str] = &[
    "length",
    "limit",
    "max_tokens",
    "max_length",
    "max_new_tokens",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
];

/// What a server's word for an end means; `documented` are the dialect's own beside the common ones.
pub fn end(word: &Word, documented: &[&str]) -> End {
    let plain = word.word.to_ascii_lowercase();
    if STOPS.contains(&plain.as_str()) {
        End::Finished(FinishReason::Stop)
    } else if CUTS.contains(&plain.as_str()) {
        End::Cut
    } else if documented.contains(&plain.as_str()) {
        End::Finished(plain.into())
    } else {
        End::Broken(match &word.words {
            Some(words) => format!("the server ended it with {:?}: {words}", word.word),
            None => format!("the server ended it with {:?}", word.word),
        })
    }
}

/// A server's word for an end, with what it says beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub word: String,
    pub words: Option<String>,
}

impl Word {
    pub fn new(word: &str) -> Self {
        Self {
            word: word.to_owned(),
            words: None,
        }
    }
}

/// Reads `finish_reason`: a word, or an object with a `type`. Servers that say `""` or `"null"` until the last event
/// mean null.
///
/// # Errors
/// Those of `deserializer`.
pub fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Word>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Kind {
            #[serde(rename = "type")]
            kind: Option<String>,
            message: Option<String>,
        },
    }
    let (word, words) = match Option::<Form>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Form::Text(word)) => (word, None),
        Some(Form::Kind { kind, message }) => (kind.unwrap_or_default(), message),
    };
    let words = words.filter(|words| !words.is_empty());
    Ok((!matches!(word.as_str(), "" | "null")).then_some(Word { word, words }))
}

/// An error that a server reports, in any of the forms that they use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    pub words: String,
    /// `code` and `type`, as far as they are there.
    labels: Vec<String>,
}

impl ServerError {
    /// Of a body's `error`, or of a body that is one; none where it is null, false or empty.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null | Value::Bool(false) => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::Object(keys) if keys.is_empty() => return None,
            _ => {}
        }
        let text = value.as_str().map(str::to_owned).or_else(|| {
            ["message", "detail", "msg", "error"]
                .iter()
                .find_map(|key| match value.get(key)? {
                    Value::String(text) => Some(text.clone()),
                    Value::Null => None,
                    other => Some(other.to_string()),
                })
        });
        let labels = ["code", "type", "status"].iter().filter_map(|key| {
            let label = value.get(key)?;
            let text = label.as_str().map(str::to_owned);
            text.or_else(|| Some(label.as_i64()?.to_string()))
        });
        let mut labels: Vec<String> = labels.collect();
        // What a router was told by the server behind it.
        if let Some(raw) = value.pointer("/metadata/raw").and_then(Value::as_str) {
            labels.push(raw.to_owned());
        }
        let words = text.unwrap_or_else(|| value.to_string());
        Some(Self { words, labels })
    }

    /// The error that a JSON body is or has; none where the body is no JSON, or no object with words for people.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        if let Some(error) = value.get("error").and_then(Self::of) {
            // FastAPI's neighbours put the code beside the error.
            let beside = Self::of(&value).map_or_else(Vec::new, |outer| outer.labels);
            let labels = [error.labels, beside].concat();
            return Some(Self {
                words: error.words,
                labels,
            });
        }
        let says = ["message", "detail", "msg"];
        let has_words = value.is_string() || says.iter().any(|key| !value[*key].is_null());
        has_words.then(|| Self::of(&value)).flatten()
    }

    /// It has too many requests now.
    pub fn is_busy(&self) -> bool {
        let busy = ["429", "rate_limit_exceeded", "rate_limit_error"];
        self.labels
            .iter()
            .any(|label| busy.contains(&label.as_str()))
    }

    /// The provider will not be paid: nothing that is asked now is answered until somebody does something about the
    /// account.
    pub fn is_account(&self) -> bool {
        let says = |text: &str| {
            let text = text.to_ascii_lowercase();
            ACCOUNT.iter().any(|word| text.contains(word))
        };
        self.labels
            .iter()
            .any(|label| label == "402" || says(label))
            || says(&self.words)
    }
}

/// Parts of codes and messages that mean the account: OpenAI, DeepSeek, OpenRouter, Moonshot, Anthropic, DashScope,
/// Together, xAI. Words of a rate limit (`rate_limit_exceeded`, "quota per minute") are not among them.
const ACCOUNT: &[&str] = &[
    "insufficient_quota",
    "insufficient quota",
    "insufficient_balance",
    "insufficient balance",
    "insufficient_credit",
    "insufficient credit",
    "insufficient funds",
    "insufficient_funds",
    "exceeded your current quota",
    "exceeded_current_quota",
    "exceeded current quota",
    "credit balance is too low",
    "credit_limit",
    "credit limit",
    "out of credits",
    "billing_hard_limit",
    "billing hard limit",
    "billing_not_active",
    "billing not active",
    "account is not active",
    "account_deactivated",
    "payment required",
    "payment_required",
    "arrearage",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_documented_words_end_a_completion() {
        let check = |word: &str, documented: &[&str], expected: &End| {
            assert_eq!(&end(&Word::new(word), documented), expected, "{word}");
        };
        let stop = End::Finished(FinishReason::Stop);
        for word in STOPS {
            check(word, &[], &stop);
        }
        check("STOP", &[], &stop);
        for word in CUTS {
            check(word, &[], &End::Cut);
        }
        let filtered = End::Finished("content_filter".into());
        check("content_filter", &["content_filter"], &filtered);
        for word in [
            "error",
            "abort",
            "insufficient_system_resource",
            "content_filter",
            "cancelled",
            "none",
        ] {
            let found = end(&Word::new(word), &[]);
            assert!(
                matches!(&found, End::Broken(words) if words.contains(word)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn an_empty_word_is_no_word() {
        #[derive(Deserialize)]
        struct Choice {
            #[serde(default, deserialize_with = "word")]
            finish_reason: Option<Word>,
        }
        let read = |value: Value| {
            let choice: Choice = serde_json::from_value(value).unwrap();
            choice.finish_reason
        };
        for value in [
            json!({}),
            json!({"finish_reason": null}),
            json!({"finish_reason": ""}),
            json!({"finish_reason": "null"}),
        ] {
            assert_eq!(read(value), None);
        }
        assert_eq!(
            read(json!({"finish_reason": {"type": "abort", "message": "killed"}})),
            Some(Word {
                word: "abort".into(),
                words: Some("killed".into())
            })
        );
    }

    #[test]
    fn errors_are_told_apart_by_code_and_words() {
        let check = |body: Value, words: &str, account: bool| {
            let error = ServerError::of_body(body.to_string().as_bytes()).unwrap();
            assert!(error.words.contains(words), "{error:?}");
            assert_eq!(error.is_account(), account, "{error:?}");
        };
        check(
            json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}),
            "quota",
            true,
        );
        check(
            json!({"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
            "Insufficient Balance",
            true,
        );
        check(
            json!({"error": {"message": "no money", "code": 402}}),
            "no money",
            true,
        );
        check(
            json!({"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}),
            "Rate limit",
            false,
        );
        check(json!({"error": "engine is dead"}), "engine is dead", false);
        check(
            json!({"object": "error", "message": "too long", "code": 400}),
            "too long",
            false,
        );
        check(
            json!({"detail": [{"msg": "field required"}]}),
            "field required",
            false,
        );
        for body in ["{\"choices\": []}", "<html>", "{\"error\": null}"] {
            assert_eq!(ServerError::of_body(body.as_bytes()), None, "{body}");
        }
    }
}
