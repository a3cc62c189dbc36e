//! One conversation as it is trained on.

use std::ops::Range;

use records::top_k::TopK;

/// One conversation to train on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingExample {
    pub id: String,
    pub prompt_ids: Vec<u32>,
    /// Supervised, every one of them that has a token before it and lies in no range of `context`.
    pub completion_ids: Vec<u32>,
    /// Positions of the completion that are read and not learnt: turns of others between two of the assistant's.
    pub context: Vec<Range<usize>>,
    /// One position per completion id; only loaded where the loss needs it.
    pub top: Option<TopK>,
}

impl TrainingExample {
    /// Prompt and completion together.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.prompt_ids.len() + self.completion_ids.len()
    }

    /// Completion tokens that are learnt.
    #[must_use]
    pub fn n_supervised(&self) -> usize {
        self.supervised().filter(|learnt| *learnt).count()
    }

    /// Whether each completion token is learnt. Without a prompt nothing predicts the first.
    pub fn supervised(&self) -> impl Iterator<Item = bool> {
        let unpredicted = usize::from(self.prompt_ids.is_empty());
        (0..self.completion_ids.len()).map(move |at| {
            at >= unpredicted && !self.context.iter().any(|range| range.contains(&at))
        })
    }

    /// Keeps the first `n` tokens of the completion.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.completion_ids.truncate(n);
        self.top = self.top.take().map(|top| top.truncated(n));
        self.context.retain_mut(|range| {
            range.end = range.end.min(n);
            range.start < range.end
        });
    }
}
