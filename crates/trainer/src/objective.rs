//! What is minimised: terms over the student's logits, and the signal that they compare them with.

use crate::config::TrainConfig;
use crate::loss::LogitLoss;
use crate::loss::logits::MEASURES;

/// Where the teacher's distributions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// No term asks for them.
    None,
    /// The rows' top-k.
    Stored,
    /// A decoder that reads every pass beside the student.
    Online,
}

/// The terms of a run's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    pub logits: LogitLoss,
    pub signal: Signal,
}

impl Objective {
    #[must_use]
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            logits: LogitLoss::new(&config.loss),
            signal: match (config.loss.is_soft(), &config.teacher) {
                (false, _) => Signal::None,
                (true, None) => Signal::Stored,
                (true, Some(_)) => Signal::Online,
            },
        }
    }

    /// Names of what is measured beside the loss, in the head's order; a name that this run has no value for is none.
    pub(crate) fn measured(&self) -> impl Iterator<Item = Option<&'static str>> {
        let signal = self.signal;
        MEASURES.into_iter().map(move |name| {
            let has_value = match name {
                "loss" => false,
                "loss_hard" | "agreement" => true,
                "top_k_mass" => signal == Signal::Stored,
                _ => signal != Signal::None,
            };
            has_value.then_some(name)
        })
    }
}
