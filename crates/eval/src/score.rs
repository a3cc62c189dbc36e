//! From graded samples to the scores of `scores.json`.

use std::collections::BTreeMap;

use records::FinishReason;
use records::benchmark::Problem;
use records::score::{Estimate, GroupScores, LimitScore, ModelScores, PairedDifference};
use verify::Verdict;

use crate::sample::Sample;
use crate::statistics::{
    Tally, Vote, avg_at_k, maj_at_k, mean_interval, paired_difference, pass_at_k_estimates,
};

/// The samples of one model on one benchmark, reduced to what the scores need.
#[derive(Clone, Debug, Default)]
pub struct Graded {
    /// By question, in the benchmark's order.
    pub questions: Vec<Vec<Vote>>,
    /// Completion tokens of the same samples, where they are known.
    pub lengths: Vec<Vec<Option<u32>>>,
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
            lengths: vec![Vec::new(); question_ids.len()],
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
            graded.lengths[question].push(sample.trace.n_completion_tokens);
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
        let questions = self.questions.iter();
        questions
            .map(|votes| Tally::of(votes.iter().map(|vote| vote.correct)))
            .collect()
    }

    /// The mean length of samples that are right, or of those that are not; None without any, or where one is not known.
    fn mean_length(&self, correct: bool) -> Option<f64> {
        let votes = self.questions.iter().flatten();
        let lengths = votes.zip(self.lengths.iter().flatten());
        let lengths = lengths.filter(|(vote, _)| vote.correct == correct);
        let (mut n, mut total) = (0u64, 0u64);
        for (_, length) in lengths {
            n += 1;
            total += u64::from((*length)?);
        }
        (n > 0).then(|| total as f64 / n as f64)
    }

    /// The tallies if `limit` new tokens had been all there were; None where a length is not known.
    fn tallies_within(&self, limit: u64) -> Option<Vec<Tally>> {
        let questions = self.questions.iter().zip(&self.lengths);
        let tally = |(votes, lengths): (&Vec<Vote>, &Vec<Option<u32>>)| {
            let mut correct = 0;
            for (vote, length) in votes.iter().zip(lengths) {
                correct += u64::from(vote.correct && u64::from((*length)?) <= limit);
            }
            let n = votes.len() as u64;
            Some(Tally { n, correct })
        };
        questions.map(tally).collect()
    }

    /// The scores under a sixteenth of the limit, an eighth and so on; none where a length is not known.
    fn by_token_limit(&self, max_new_tokens: u64) -> Vec<LimitScore> {
        let limits = [16, 8, 4, 2, 1].map(|part| max_new_tokens / part);
        let scores = limits.into_iter().filter(|&limit| limit > 0).map(|limit| {
            let avg = avg_at_k(&self.tallies_within(limit)?)?;
            Some(LimitScore {
                max_new_tokens: limit,
                avg_at_k: avg.value,
            })
        });
        scores.collect::<Option<_>>().unwrap_or_default()
    }

    /// The scores; None when there is not one sample.
    pub fn scores(
        &self,
        role: &str,
        model: &str,
        samples_per_question: u64,
        problems: &[Problem],
        max_new_tokens: u64,
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
            mean_tokens_correct: self.mean_length(true),
            mean_tokens_incorrect: self.mean_length(false),
            by_token_limit: self.by_token_limit(max_new_tokens),
            groups: groups(&tallies, problems),
            stopped_by: None,
        })
    }
}

/// Scores by subject, then by level, each sorted by name. A benchmark whose questions are all of one group has none.
fn groups(tallies: &[Tally], problems: &[Problem]) -> Vec<GroupScores> {
    let subject = |problem: &Problem| problem.subject.clone();
    let level = |problem: &Problem| problem.level.clone();
    let mut scores = Vec::new();
    type Name = fn(&Problem) -> Option<String>;
    for (by, name) in [("subject", subject as Name), ("level", level as Name)] {
        let mut shares: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (tally, problem) in tallies.iter().zip(problems) {
            if let (Some(share), Some(name)) = (tally.share(), name(problem)) {
                shares.entry(name).or_default().push(share);
            }
        }
        if shares.len() < 2 {
            continue;
        }
        scores.extend(shares.into_iter().filter_map(|(name, shares)| {
            Some(GroupScores {
                by: by.to_owned(),
                name,
                n_questions: shares.len() as u64,
                avg_at_k: mean_interval(&shares)?.of_rate().estimate(),
            })
        }));
    }
    scores
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
pub fn unite(votes: &mut [Vote]) {
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
