//! Which examples make which optimizer step, and the passes a step is cut into.
//!
//! Everything follows from the step's number: step s (from 0) is the s mod P-th batch of epoch s / P, P being the
//! batches per epoch, and an epoch's order is a shuffle keyed by (seed, epoch). So resuming needs no saved position.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::TrainingExample;
use crate::loss::{Objective, SupervisedRows, TeacherRows};

/// The order of a training run.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    pub n_examples: usize,
    pub batch_size: usize,
    pub shuffle: bool,
    pub seed: u64,
}

impl Sampler {
    /// Optimizer steps of one pass over the data; the last takes what is left.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.n_examples.div_ceil(self.batch_size) as u64
    }

    /// Indices of the examples of the step with index `step` (from 0).
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let per_epoch = self.steps_per_epoch();
        let order = self.order(step / per_epoch);
        let start = (step % per_epoch) as usize * self.batch_size;
        order[start..(start + self.batch_size).min(order.len())].to_vec()
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.n_examples).collect();
        if self.shuffle {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            // Streams of one seed do not overlap, so neighbouring seeds and epochs never share an order.
            rng.set_stream(epoch);
            order.shuffle(&mut rng);
        }
        order
    }
}

/// Cuts `batch` (indices into `examples`) into passes of at most `max_tokens`, in order.
///
/// A longer example is a pass of its own; without `packing` every example is.
#[must_use]
pub fn micro_batches(
    examples: &[TrainingExample],
    batch: &[usize],
    max_tokens: usize,
    packing: bool,
) -> Vec<Vec<usize>> {
    let mut passes: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for &index in batch {
        let length = examples[index].n_tokens();
        match passes.last_mut() {
            Some(pass) if packing && tokens + length <= max_tokens => {
                pass.push(index);
                tokens += length;
            }
            _ => {
                passes.push(vec![index]);
                tokens = length;
            }
        }
    }
    passes
}

/// One pass: documents one after another, no padding.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// `[N]`.
    pub ids: Vec<u32>,
    /// Lengths of the documents; they sum to N.
    pub lengths: Vec<usize>,
    /// `[S]`: rows whose next token is supervised.
    pub rows: Vec<u32>,
    pub supervised: SupervisedRows,
}

impl MicroBatch {
    #[must_use]
    pub fn new(examples: &[TrainingExample], pass: &[usize], objective: Objective) -> Self {
        let mut ids = Vec::new();
        let (mut lengths, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut teacher = TeacherRows::default();
        for &index in pass {
            let example = &examples[index];
            let start = ids.len() + example.prompt_ids.len();
            ids.extend_from_slice(&example.prompt_ids);
            ids.extend_from_slice(&example.completion_ids);
            lengths.push(example.n_tokens());
            // Row r predicts the token at r + 1: the first completion token is the last prompt row's.
            let skipped = example.completion_ids.len() - example.n_supervised();
            for (t, &target) in example.completion_ids.iter().enumerate().skip(skipped) {
                rows.push((start + t - 1) as u32);
                targets.push(target);
            }
            if let Some(top) = &example.top {
                for (ids, logprobs, tail) in top.positions().skip(skipped) {
                    teacher.push(ids, logprobs.iter().map(|logprob| logprob.to_f32()), tail);
                }
            }
        }
        Self {
            ids,
            lengths,
            rows,
            supervised: SupervisedRows {
                objective,
                targets,
                teacher,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::LossConfig;

    fn example(prompt: usize, completion: usize) -> TrainingExample {
        TrainingExample {
            id: format!("{prompt}+{completion}"),
            prompt_ids: (0..prompt as u32).collect(),
            completion_ids: (100..100 + completion as u32).collect(),
            top: None,
        }
    }

    #[test]
    fn an_epoch_sees_every_example_once_and_orders_differ() {
        let sampler = Sampler {
            n_examples: 10,
            batch_size: 4,
            shuffle: true,
            seed: 3,
        };
        assert_eq!(sampler.steps_per_epoch(), 3);
        let epoch = |n: u64| {
            (3 * n..3 * n + 3)
                .flat_map(|step| sampler.batch(step))
                .collect::<Vec<_>>()
        };
        let mut sorted = epoch(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(epoch(0), epoch(1));
        assert_eq!(epoch(1), epoch(1));
        assert_eq!(sampler.batch(2).len(), 2);
        let other = Sampler { seed: 4, ..sampler };
        assert_ne!(other.batch(0), sampler.batch(0));
        let plain = Sampler {
            shuffle: false,
            ..sampler
        };
        assert_eq!(plain.batch(4), [4, 5, 6, 7]);
    }

    #[test]
    fn passes_stay_under_their_tokens_and_keep_the_order() {
        let examples = [
            example(3, 3),
            example(2, 2),
            example(9, 9),
            example(1, 1),
            example(2, 1),
        ];
        let batch = [0, 1, 2, 3, 4];
        let check = |max: usize, packing: bool, expected: &[&[usize]]| {
            assert_eq!(
                micro_batches(&examples, &batch, max, packing),
                expected,
                "{max} {packing}"
            );
        };
        check(10, true, &[&[0, 1], &[2], &[3, 4]]);
        check(1000, true, &[&[0, 1, 2, 3, 4]]);
        check(1000, false, &[&[0], &[1], &[2], &[3], &[4]]);
        check(1, true, &[&[0], &[1], &[2], &[3], &[4]]);
    }

    #[test]
    fn targets_are_the_next_tokens_of_their_own_document() {
        let examples = [example(3, 2), example(0, 3), example(1, 1)];
        let batch = MicroBatch::new(
            &examples,
            &[0, 1, 2],
            Objective::new(&LossConfig::default()),
        );
        assert_eq!(batch.ids, [0, 1, 2, 100, 101, 100, 101, 102, 0, 100]);
        assert_eq!(batch.lengths, [5, 3, 2]);
        // A document without a prompt has nothing to predict its first token from.
        assert_eq!(batch.rows, [2, 3, 5, 6, 8]);
        assert_eq!(batch.supervised.targets, [100, 101, 101, 102, 100]);
    }
}
