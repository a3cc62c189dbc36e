//! maj@k (cons@k): the answer that most of a question's samples give.

use std::collections::BTreeMap;

use records::score::Estimate;

use super::mean_interval;

/// What one sample says of its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The answer's key, equal for equivalent answers; None for a sample without an answer,
    /// which does not vote.
    pub answer: Option<String>,
    pub correct: bool,
}

/// The score of one question between 0 and 1: 1 when the most frequent answer is correct; of m
/// answers that tie, a correct one counts 1/m. 0 when nobody votes, None without samples.
pub fn majority_score(votes: &[Vote]) -> Option<f64> {
    if votes.is_empty() {
        return None;
    }
    let mut groups: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for vote in votes {
        if let Some(answer) = vote.answer.as_deref() {
            let group = groups.entry(answer).or_default();
            group.0 += 1;
            group.1 |= vote.correct;
        }
    }
    let Some(most) = groups.values().map(|group| group.0).max() else {
        return Some(0.0);
    };
    let winners = groups.values().filter(|group| group.0 == most);
    let (n, correct) = winners.fold((0.0, 0.0), |(n, correct), group| {
        (n + 1.0, correct + f64::from(u8::from(group.1)))
    });
    Some(correct / n)
}

/// The mean of [`majority_score`] over questions; None when no question has samples.
pub fn maj_at_k<'a>(questions: impl IntoIterator<Item = &'a [Vote]>) -> Option<Estimate> {
    let scores: Vec<f64> = questions.into_iter().filter_map(majority_score).collect();
    Some(mean_interval(&scores)?.of_rate().estimate())
}
