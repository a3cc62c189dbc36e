//! Whether what a server gives as log-probabilities can be such.

use super::answer::{Position, Problem, floor};

/// How far above 0 a log-probability may come by rounding: servers that compute in bfloat16 have eight bits.
const ABOVE: f64 = 0.02;
/// How much the probabilities of a position may sum to. Rounding alone takes it a few hundredths above 1; logits take it
/// to many times 1, and a server that counts a token's mass twice is not mistaken for one that gives logits.
const MASS: f64 = 1.15;

/// That these can be logarithms of probabilities: none above 0, and those of a position sum to at most 1. A server that
/// was started to give logits gives what looks like them and means something else.
pub(super) fn check(positions: &[Position]) -> Result<(), Problem> {
    let hopeless = |what: String| Problem {
        words: format!(
            "the log-probabilities are none: {what}; start the server so that it gives log-probabilities and no logits (vLLM: --logprobs-mode raw_logprobs, its default)"
        ),
        is_of_all: true,
    };
    for (at, position) in positions.iter().enumerate() {
        let top = position.top.iter().map(|&(_, logprob)| logprob);
        let mut all = top.clone().chain([position.logprob]);
        if let Some(above) = all.find(|&logprob| logprob > ABOVE) {
            return Err(hopeless(format!("{above} at token {at} is above 0")));
        }
        let mass = |entries: &[(u32, f64)]| -> f64 {
            let entries = entries.iter();
            entries.map(|&(_, logprob)| floor(logprob).exp()).sum()
        };
        if mass(&position.top) > MASS {
            // The sampled token may be there twice.
            let mut entries = position.top.clone();
            entries.sort_unstable_by_key(|&(id, _)| id);
            entries.dedup_by_key(|&mut (id, _)| id);
            let mass = mass(&entries);
            if mass > MASS {
                return Err(hopeless(format!(
                    "those of token {at} sum to a probability of {mass:.3}"
                )));
            }
        }
    }
    Ok(())
}
