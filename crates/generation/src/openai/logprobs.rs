//! The log-probabilities that a server gives, and whether they can be such.

use std::fmt;

/// vLLM's clamp of −∞, and llama.cpp's lowest f32: no mass.
const NO_MASS: f64 = -9999.0;

/// What stands in for a log-probability that a server writes as null: JSON has no −∞.
pub fn or_no_mass(logprob: Option<f64>) -> f64 {
    logprob.unwrap_or(f64::NEG_INFINITY)
}

/// How far above 0 a log-probability may come by rounding: servers that compute in bfloat16 have eight bits.
const ABOVE: f64 = 0.02;
/// How much the probabilities of a position may sum to. Rounding alone takes it a few hundredths above 1; logits take it
/// to many times 1, and a server that counts a token's mass twice is not mistaken for one that gives logits.
const MASS: f64 = 1.15;

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub words: String,
    /// Every answer of this server has it: it lies in how the server was started.
    pub is_of_all: bool,
}

impl From<String> for Problem {
    fn from(words: String) -> Self {
        Self {
            words,
            is_of_all: false,
        }
    }
}

impl From<&str> for Problem {
    fn from(words: &str) -> Self {
        words.to_owned().into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// A sampled token with the likeliest ones in its place.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Position {
    /// None where the server names tokens by their text only.
    pub id: Option<u32>,
    pub logprob: f64,
    /// Ids and log-probabilities in any order; the sampled token may be one more.
    pub top: Vec<(u32, f64)>,
}

/// Without a clamp of −∞.
pub(super) fn floor(logprob: f64) -> f64 {
    if logprob <= NO_MASS {
        f64::NEG_INFINITY
    } else {
        logprob
    }
}

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
