use records::Reference;
use serde::{Deserialize, Serialize};

use super::check;
use crate::error::Result;

/// Traces that are there already, from this system or another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Without a format: a Parquet file with token ids or messages, or a glob over such files, for `score-traces`.
    /// With one: Parquet or JSONL files to import, a local path, a glob, or a URL as `prompts.source` has them.
    pub source: Reference,
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
    /// The column that holds what was written, its thought in tags; texts, or a list of them. With `columns` only, as are
    /// the three after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
    /// The column that holds the thought by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought: Option<String>,
    /// The column that holds what follows the thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_text: Option<String>,
    /// The column that holds the gold answer, or a list of answers of which any is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
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
    /// s1K-1.1: `question`, `solution`, and two teachers' `…_thinking_trajectory` and `…_attempt`. s1K 1.0:
    /// `thinking_trajectories` and `attempt`.
    S1k,
    /// `messages` or `conversations`, of `role` and `content` or of `from` and `value`.
    Messages,
    /// TRL's `prompt` and `completion`, each a text or a list of messages.
    PromptCompletion,
    /// Any columns, named by dotted paths: `problem`, and `completion` or `thought` with `answer_text`.
    Columns,
    /// OpenMathReasoning: `problem`, `generated_solution`, `expected_answer`.
    #[serde(rename = "openmathreasoning", alias = "open_math_reasoning")]
    OpenMathReasoning,
    /// LIMO: `question`, `solution`, `answer`.
    Limo,
    /// DeepMath-103K: `question`, `final_answer`, `r1_solution_1` to `r1_solution_3`.
    #[serde(rename = "deepmath", alias = "deepmath_103k")]
    DeepMath,
    /// AceReason-1.1-SFT: `input`, `output`.
    #[serde(rename = "acereason")]
    AceReason,
    /// Llama-Nemotron-Post-Training-Dataset: `input` as turns, `output`.
    Nemotron,
    /// Alpaca's `instruction`, `input`, `output`.
    Alpaca,
    /// glaive's reasoning-v1-20m: `prompt`, `response`.
    Glaive,
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
            Self::Columns => "columns",
            Self::OpenMathReasoning => "openmathreasoning",
            Self::Limo => "limo",
            Self::DeepMath => "deepmath",
            Self::AceReason => "acereason",
            Self::Nemotron => "nemotron",
            Self::Alpaca => "alpaca",
            Self::Glaive => "glaive",
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
            Self::PromptCompletion
            | Self::OpenMathReasoning
            | Self::Limo
            | Self::DeepMath
            | Self::AceReason
            | Self::Nemotron
            | Self::Alpaca
            | Self::Glaive => &["problem", "answer", "teacher", "finish_reason"],
            Self::Columns => &[
                "problem",
                "completion",
                "thought",
                "answer_text",
                "gold",
                "teacher",
                "finish_reason",
            ],
        }
    }
}

impl TracesConfig {
    pub fn validate(&self) -> Result<()> {
        check(
            !self.source.as_str().is_empty(),
            "traces.source",
            "is empty",
            || "files of traces, a glob, or a URL of such files".to_owned(),
        )?;
        let given = [
            ("traces.problem", "problem", &self.problem),
            ("traces.answer", "answer", &self.answer),
            ("traces.messages", "messages", &self.messages),
            ("traces.completion", "completion", &self.completion),
            ("traces.thought", "thought", &self.thought),
            ("traces.answer_text", "answer_text", &self.answer_text),
            ("traces.gold", "gold", &self.gold),
            ("traces.teacher", "teacher", &self.teacher),
            ("traces.finish_reason", "finish_reason", &self.finish_reason),
        ];
        for (key, name, _) in given.iter().filter(|(.., column)| column.is_some()) {
            match self.format {
                None => check(false, *key, "has no meaning without a format", || {
                    "with traces.format, which has traces imported".to_owned()
                })?,
                Some(format) => check(
                    format.named().contains(name),
                    *key,
                    &format!("is no column of the format {}", format.as_str()),
                    || format!("{} can be named for it", format.named().join(", ")),
                )?,
            }
        }
        if self.format == Some(TraceFormat::Columns) {
            let written =
                self.completion.is_some() || self.thought.is_some() || self.answer_text.is_some();
            for (key, named) in [
                ("traces.problem", self.problem.is_some()),
                ("traces.completion", written),
            ] {
                check(named, key, "is not named", || {
                    "with format = \"columns\", problem and either completion, or thought and answer_text".to_owned()
                })?;
            }
            let apart = self.thought.is_some() || self.answer_text.is_some();
            check(
                !(self.completion.is_some() && apart),
                "traces.completion",
                "is named beside thought or answer_text",
                || "either completion, or thought and answer_text".to_owned(),
            )?;
        }
        Ok(())
    }
}
