//! `scores.json`: what an evaluation says of its models. All rates lie between 0 and 1, all lengths are in tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::benchmark::AnswerSearch;

/// Version of the format of `scores.json`.
pub const SCHEMA: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub schema: u32,
    pub benchmarks: Vec<BenchmarkScores>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkScores {
    pub name: String,
    pub n_questions: u64,
    /// How the questions were asked; files of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingScores>,
    pub models: Vec<ModelScores>,
    pub paired: Vec<PairedDifference>,
}

/// How the questions of a benchmark were asked, and the answers looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingScores {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Where it is not the protocol's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<String>,
    /// Samples per question that were asked for; a model that was stopped early has fewer.
    pub samples: u64,
    pub temperature: f64,
    pub top_p: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    pub max_new_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub template: String,
    /// `written`, `last-number` or `boxed`.
    pub answer_from: AnswerSearch,
    /// Version of the rules by which answers were graded.
    pub verifier: u32,
}

impl SamplingScores {
    /// In one line: how questions are asked, and how answers are sampled.
    pub fn described(&self) -> String {
        let system = self.system.as_ref();
        let system = system.map_or(String::new(), |text| {
            format!(" after the system message {text:?}")
        });
        let more = [
            self.top_k.map(|k| format!(", top-k {k}")),
            self.min_p.map(|p| format!(", min-p {p}")),
        ];
        format!(
            "Questions are asked as {:?}{system}; temperature {}, top-p {}{}, at most {} new tokens.",
            self.template,
            self.temperature,
            self.top_p,
            more.into_iter().flatten().collect::<String>(),
            self.max_new_tokens
        )
    }
}

impl BenchmarkScores {
    /// The share of the distance from base to teacher that the student has closed, by avg@k; None unless all three were
    /// scored and the teacher is ahead of the base.
    pub fn closed_share(&self) -> Option<f64> {
        let value = |role: &str| {
            let model = self.models.iter().find(|model| model.role == role)?;
            Some(model.avg_at_k.value)
        };
        let (base, student, teacher) = (value("base")?, value("student")?, value("teacher")?);
        (teacher > base).then(|| (student - base) / (teacher - base))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelScores {
    /// `base`, `student`, `teacher`, or the name of a table of `[eval.models]`.
    pub role: String,
    pub model: String,
    pub samples_per_question: u64,
    pub avg_at_k: AvgAtK,
    /// Keyed by k, as text: `"1"`, `"2"`, `"4"`, ….
    pub pass_at_k: BTreeMap<String, Estimate>,
    pub maj_at_k: Estimate,
    /// Share of samples cut by the token limit.
    pub truncated: f64,
    /// Share of samples that opened a thought and never closed it.
    pub no_think_end: f64,
    /// Share of samples without a readable answer.
    pub no_answer: f64,
    /// Samples that should exist and do not; they are in no rate.
    pub missing: u64,
    pub mean_completion_tokens: f64,
    /// Of right samples; null without any.
    #[serde(default)]
    pub mean_tokens_correct: Option<f64>,
    /// Of all others.
    #[serde(default)]
    pub mean_tokens_incorrect: Option<f64>,
    /// avg@k under lower limits of new tokens, as if longer samples had been cut there. Empty where the tokens of a sample
    /// are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_token_limit: Vec<LimitScore>,
    /// Scores by subject and level, where the benchmark has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupScores>,
    /// Why there are fewer samples than were asked for: `precision` or `max_tokens_total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
}

/// The score that a lower limit of new tokens would have given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitScore {
    pub max_new_tokens: u64,
    pub avg_at_k: f64,
}

/// The score on the questions of one subject or level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupScores {
    /// `subject` or `level`.
    pub by: String,
    pub name: String,
    pub n_questions: u64,
    pub avg_at_k: Estimate,
}

/// Mean over questions of the share of correct samples (pass@1 over k samples).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AvgAtK {
    pub value: f64,
    /// Standard error from sampling alone; null at one sample a question.
    pub sampling_error: Option<f64>,
    /// Standard error over questions; null for a single question.
    pub question_error: Option<f64>,
    pub ci95: Option<[f64; 2]>,
}

/// A mean over questions with its 95 % interval (t); null for a single question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    pub ci95: Option<[f64; 2]>,
}

/// avg@k of `b` minus avg@k of `a`, question by question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    pub a: String,
    pub b: String,
    pub difference: f64,
    pub ci95: Option<[f64; 2]>,
}
