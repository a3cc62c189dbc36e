use serde::{Deserialize, Serialize};

use super::check;
use crate::error::Result;

/// Traces that are there already, from this system or another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Without a format: a Parquet file with token ids or messages, or a glob over such files, for `score-traces`.
    /// With one: Parquet or JSONL files to import, a local path, a glob, or a URL as `prompts.source` has them.
    pub source: String,
    /// How the files are laid out; it makes them this run's traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TraceFormat>,
    /// The column that holds the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The column that holds the gold answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The column that holds the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<String>,
    /// The column that says which model wrote the trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// The column that says why the trace ended; a list of them in `openr1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// The layouts of trace sets that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// OpenR1-Math-220k: `problem`, `answer`, and a list of `generations`.
    #[serde(rename = "openr1")]
    OpenR1,
    /// OpenThoughts-114k: `system` and `conversations` with its own tags, or the columns of its `metadata` set.
    #[serde(rename = "openthoughts")]
    OpenThoughts,
    /// OpenThoughts3-1.2M: `conversations` between `human` and `gpt`.
    #[serde(rename = "openthoughts3")]
    OpenThoughts3,
    /// s1K-1.1: `question`, `solution`, and two teachers' `…_thinking_trajectory` and `…_attempt`.
    S1k,
    /// `messages` or `conversations`, of `role` and `content` or of `from` and `value`.
    Messages,
    /// TRL's `prompt` and `completion`, each a text or a list of messages.
    PromptCompletion,
}

impl TraceFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenR1 => "openr1",
            Self::OpenThoughts => "openthoughts",
            Self::OpenThoughts3 => "openthoughts3",
            Self::S1k => "s1k",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt_completion",
        }
    }

    /// The column names that a recipe may give.
    fn named(self) -> &'static [&'static str] {
        match self {
            Self::OpenR1 => &["problem", "answer", "teacher", "finish_reason"],
            Self::OpenThoughts | Self::OpenThoughts3 | Self::Messages => {
                &["problem", "answer", "messages", "teacher", "finish_reason"]
            }
            Self::S1k => &["problem", "answer"],
            Self::PromptCompletion => &["problem", "answer", "teacher", "finish_reason"],
        }
    }
}

impl TracesConfig {
    pub fn validate(&self) -> Result<()> {
        check(!self.source.is_empty(), "traces.source", "is empty", || {
            "files of traces, a glob, or a URL of such files".to_owned()
        })?;
        let given = [
            ("traces.problem", "problem", &self.problem),
            ("traces.answer", "answer", &self.answer),
            ("traces.messages", "messages", &self.messages),
            ("traces.teacher", "teacher", &self.teacher),
            ("traces.finish_reason", "finish_reason", &self.finish_reason),
        ];
        for (key, name, _) in given.iter().filter(|(.., column)| column.is_some()) {
            match self.format {
                None => check(false, key, "has no meaning without a format", || {
                    "with traces.format, which has traces imported".to_owned()
                })?,
                Some(format) => check(
                    format.named().contains(name),
                    key,
                    &format!("is no column of the format {}", format.as_str()),
                    || format!("{} can be named for it", format.named().join(", ")),
                )?,
            }
        }
        Ok(())
    }
}
