//! From graded samples to the scores of `scores.json`.

use std::collections::BTreeMap;

use records::FinishReason;
use records::score::{Estimate, ModelScores, PairedDifference};
use verify::Verdict;

use crate::sample::Sample;
use crate::statistics::{Tally, Vote, avg_at_k, maj_at_k, paired_difference, pass_at_k_estimates};

/// The samples of one model on one benchmark, reduced to what the scores need.
#[derive(Clone, Debug, Default)]
pub struct Graded {
    /// By question, in the benchmark's order.
    pub questions: Vec<Vec<Vote>>,
    pub truncated: u64,
    pub no_think_end: u64,
    pub no_answer: u64,
    pub n_tokens: u64,
    pub n_samples: u64,
}

impl Graded {
    /// `question_ids`: the benchmark's questions in order. Failed samples are passed over.
    pub fn new(question_ids: &[String], samples: &[Sample]) -> Self {
        let place: BTreeMap<&str, usize> = question_ids
            .iter()
            .enumerate()
            .map(|(i, id)| (id.as_str(), i))
            .collect();
        let mut graded = Self {
            questions: vec![Vec::new(); question_ids.len()],
            ..Self::default()
        };
        for sample in samples {
            let Some(&question) = place.get(sample.trace.prompt_id.as_str()) else {
                continue;
            };
            let verdict = match sample.verdict {
                None | Some(Verdict::GoldUnreadable) => continue,
                Some(verdict) => verdict,
            };
            let has_answer = matches!(verdict, Verdict::Correct | Verdict::Incorrect);
            let answer = sample.extracted.as_deref().filter(|_| has_answer);
            graded.questions[question].push(Vote {
                answer: answer.map(str::to_owned),
                correct: verdict == Verdict::Correct,
            });
            graded.n_samples += 1;
            graded.truncated += u64::from(sample.trace.finish_reason == Some(FinishReason::Length));
            graded.no_think_end += u64::from(sample.trace.answer.is_none());
            graded.no_answer += u64::from(!has_answer);
            graded.n_tokens += u64::from(sample.trace.n_completion_tokens.unwrap_or(0));
        }
        graded.questions.iter_mut().for_each(|votes| unite(votes));
        graded
    }

    /// Samples and correct samples, by question.
    pub fn tallies(&self) -> Vec<Tally> {
        let count = |votes: &Vec<Vote>| Tally {
            n: votes.len() as u64,
            correct: votes.iter().filter(|vote| vote.correct).count() as u64,
        };
        self.questions.iter().map(count).collect()
    }

    /// The scores; None when there is not one sample.
    pub fn scores(
        &self,
        role: &str,
        model: &str,
        samples_per_question: u64,
    ) -> Option<ModelScores> {
        let tallies = self.tallies();
        let share = |count: u64| count as f64 / self.n_samples as f64;
        let maj_at_k: Estimate = maj_at_k(self.questions.iter().map(Vec::as_slice))?;
        Some(ModelScores {
            role: role.to_owned(),
            model: model.to_owned(),
            samples_per_question,
            avg_at_k: avg_at_k(&tallies)?,
            pass_at_k: pass_at_k_estimates(&tallies, samples_per_question),
            maj_at_k,
            truncated: share(self.truncated),
            no_think_end: share(self.no_think_end),
            no_answer: share(self.no_answer),
            missing: samples_per_question * self.questions.len() as u64 - self.n_samples,
            mean_completion_tokens: share(self.n_tokens),
        })
    }
}

/// Each pair of models, the earlier one first.
pub fn paired(models: &[(String, Graded)]) -> Vec<PairedDifference> {
    let mut pairs = Vec::new();
    for (i, (a, graded_a)) in models.iter().enumerate() {
        for (b, graded_b) in &models[i + 1..] {
            if let Some(interval) = paired_difference(&graded_a.tallies(), &graded_b.tallies()) {
                pairs.push(PairedDifference {
                    a: a.clone(),
                    b: b.clone(),
                    difference: interval.mean,
                    ci95: interval.ci95,
                });
            }
        }
    }
    pairs
}

/// Gives equivalent answers of one question the same key, that of the first.
fn unite(votes: &mut [Vote]) {
    let answers: Vec<String> = votes
        .iter()
        .map(|vote| vote.answer.clone().unwrap_or_default())
        .collect();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    for (vote, first) in votes.iter_mut().zip(verify::groups(&answers)) {
        let first = first.and_then(|first| answers.get(first));
        vote.answer = first.map(|first| (*first).to_owned());
    }
}
