//! `scores.json`: what an evaluation says of its models. All rates lie between 0 and 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    pub models: Vec<ModelScores>,
    pub paired: Vec<PairedDifference>,
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
    /// `base`, `student` or `teacher`.
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
