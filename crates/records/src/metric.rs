//! One line of `metrics.jsonl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
}

/// What one optimizer step (or one validation pass) measured. Losses are means over the
/// supervised tokens, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    pub split: Split,
    /// Optimizer steps done, from 1.
    pub step: u64,
    /// Epochs done, fractional.
    pub epoch: f64,
    pub loss: f64,
    /// What the terms of the loss measured.
    #[serde(flatten)]
    pub measures: Measures,
    /// Global norm before clipping; null for validation.
    pub grad_norm: Option<f64>,
    pub learning_rate: Option<f64>,
    pub n_supervised_tokens: u64,
    pub n_tokens: u64,
    /// Wall time since the step before.
    pub seconds: f64,
    /// `n_tokens / seconds`.
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
}

/// A quantity that a term of the loss measures, as a mean over the supervised tokens.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    /// For documents; plain text.
    pub meaning: &'static str,
}

/// Every quantity there is, in the order of a line.
pub const MEASURES: [Measure; 7] = [
    Measure {
        name: "loss_hard",
        meaning: "cross-entropy with the sampled token, whatever its weight",
    },
    Measure {
        name: "loss_soft",
        meaning: "divergence from the teacher's distribution, T² included",
    },
    Measure {
        name: "loss_features",
        meaning: "distance of hidden states from the teacher's",
    },
    Measure {
        name: "loss_relations",
        meaning: "distance of relations between hidden states from the teacher's",
    },
    Measure {
        name: "teacher_entropy",
        meaning: "entropy of the teacher's distribution, in nats",
    },
    Measure {
        name: "top_k_mass",
        meaning: "probability mass inside the stored entries",
    },
    Measure {
        name: "agreement",
        meaning: "share of tokens where student and teacher agree on the most likely token",
    },
];

/// Values by the names of [`MEASURES`]; in a line, null for a name without one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures(BTreeMap<String, f64>);

impl Measures {
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// In the order of a line.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        MEASURES.iter().map(|of| (of.name, self.get(of.name)))
    }
}

impl<'a> FromIterator<(&'a str, f64)> for Measures {
    fn from_iter<I: IntoIterator<Item = (&'a str, f64)>>(values: I) -> Self {
        let owned = values.into_iter().map(|(name, x)| (name.to_owned(), x));
        Self(owned.collect())
    }
}

impl Serialize for Measures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Measures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
        let given = values
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        Ok(Self(given.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_measure_and_reads_back() -> serde_json::Result<()> {
        let metrics = StepMetrics {
            split: Split::Train,
            step: 3,
            epoch: 0.5,
            loss: 1.5,
            measures: [("loss_hard", 1.5), ("agreement", 0.25)]
                .into_iter()
                .collect(),
            grad_norm: Some(2.0),
            learning_rate: None,
            n_supervised_tokens: 4,
            n_tokens: 5,
            seconds: 0.5,
            tokens_per_second: 10.0,
            peak_memory_bytes: 6,
        };
        let line = serde_json::to_string(&metrics)?;
        let expected = concat!(
            r#"{"split":"train","step":3,"epoch":0.5,"loss":1.5,"loss_hard":1.5,"loss_soft":null,"loss_features":null,"#,
            r#""loss_relations":null,"teacher_entropy":null,"top_k_mass":null,"agreement":0.25,"grad_norm":2.0,"#,
            r#""learning_rate":null,"n_supervised_tokens":4,"n_tokens":5,"seconds":0.5,"tokens_per_second":10.0,"#,
            r#""peak_memory_bytes":6}"#
        );
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_str::<StepMetrics>(&line)?, metrics);
        Ok(())
    }
}
