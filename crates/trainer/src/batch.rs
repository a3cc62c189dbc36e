//! Which examples make which optimizer step, and the passes a step is cut into.
//!
//! Everything follows from the step's number: step s (from 0) is the s mod P-th batch of epoch s / P, P being the
//! batches per epoch, and an epoch's order is a shuffle keyed by (seed, epoch). So resuming needs no saved position.

use ops::dropout::key;
use std::cmp::Reverse;
use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use records::top_k::TopK;

use crate::example::TrainingExample;
use crate::loss::TeacherRows;

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

    /// The batches of steps `start` to `end` (from 0, `end` left out): indices of examples, one batch per step.
    pub fn batches(self, start: u64, end: u64) -> Batches {
        Batches {
            sampler: self,
            steps: start..end,
            epoch: None,
            order: Vec::new(),
        }
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

/// The batches of consecutive steps; an epoch's order is made once.
#[derive(Clone, Debug)]
pub struct Batches {
    sampler: Sampler,
    steps: Range<u64>,
    /// The epoch that `order` is of.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let step = self.steps.next()?;
        let per_epoch = self.sampler.steps_per_epoch();
        let epoch = step / per_epoch;
        if self.epoch != Some(epoch) {
            self.order = self.sampler.order(epoch);
            self.epoch = Some(epoch);
        }
        let size = self.sampler.batch_size;
        let start = (step % per_epoch) as usize * size;
        Some(self.order[start..(start + size).min(self.order.len())].to_vec())
    }
}

/// How the examples of a step are laid into passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Tokens of a pass; a longer example is a pass of its own.
    pub max_tokens: usize,
    /// False = every example is a pass of its own.
    pub packing: bool,
}

impl Packing {
    /// Lays `batch` (indices of examples with `n_tokens` each) into passes by first-fit decreasing: the longest
    /// first, each into the first pass with room. Examples of one length stay in the batch's order.
    #[must_use]
    pub fn passes(self, n_tokens: impl Fn(usize) -> usize, batch: &[usize]) -> Vec<Vec<usize>> {
        let mut sorted: Vec<(usize, usize)> = batch
            .iter()
            .map(|&index| (n_tokens(index), index))
            .collect();
        sorted.sort_by_key(|&(length, _)| Reverse(length));
        let mut passes: Vec<Vec<usize>> = Vec::new();
        let mut rooms: Vec<usize> = Vec::new();
        for (length, index) in sorted {
            let fitting = rooms
                .iter()
                .position(|&room| self.packing && room >= length);
            match fitting {
                Some(pass) => {
                    passes[pass].push(index);
                    rooms[pass] -= length;
                }
                None => {
                    passes.push(vec![index]);
                    rooms.push(self.max_tokens.saturating_sub(length));
                }
            }
        }
        passes
    }
}

/// One pass: documents one after another, no padding.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// `[N]`.
    pub ids: Vec<u32>,
    /// Lengths of the documents; they sum to N.
    pub lengths: Vec<usize>,
    /// The example that each document is, by its number in the data.
    pub examples: Vec<usize>,
    /// `[S]`: rows whose next token is supervised.
    pub rows: Vec<u32>,
    /// `[S]`: the token after each of `rows`.
    pub targets: Vec<u32>,
    /// The stored teacher at each of `rows`; empty where none is.
    pub stored: TeacherRows,
}

impl MicroBatch {
    /// A key for every token, `[N]`: of its example and its position, whatever else is in the pass.
    #[must_use]
    pub fn row_keys(&self, whole: u64) -> Vec<u64> {
        let documents = self.examples.iter().zip(&self.lengths);
        documents
            .flat_map(|(&example, &length)| {
                let document = key(whole, example as u64);
                (0..length as u64).map(move |position| key(document, position))
            })
            .collect()
    }

    /// Lays out `documents`, each with its number in the data.
    #[must_use]
    pub fn new(documents: &[(usize, TrainingExample)]) -> Self {
        let mut ids = Vec::new();
        let (mut lengths, mut examples) = (Vec::new(), Vec::new());
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let mut stored = TeacherRows::default();
        for (index, example) in documents {
            let start = ids.len() + example.prompt_ids.len();
            ids.extend_from_slice(&example.prompt_ids);
            ids.extend_from_slice(&example.completion_ids);
            lengths.push(example.n_tokens());
            examples.push(*index);
            // Row r predicts the token at r + 1: the first completion token is the last prompt row's.
            let supervised: Vec<bool> = example.supervised().collect();
            for (t, &target) in example.completion_ids.iter().enumerate() {
                if supervised[t] {
                    rows.push((start + t - 1) as u32);
                    targets.push(target);
                }
            }
            let top = example.top.iter().flat_map(TopK::positions);
            for ((ids, logprobs, tail), _) in top.zip(&supervised).filter(|(_, taken)| **taken) {
                stored.push(ids, logprobs.iter().map(|logprob| logprob.to_f32()), tail);
            }
        }
        Self {
            ids,
            lengths,
            examples,
            rows,
            targets,
            stored,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example(prompt: usize, completion: usize) -> TrainingExample {
        TrainingExample {
            id: format!("{prompt}+{completion}"),
            prompt_ids: (0..prompt as u32).collect(),
            completion_ids: (100..100 + completion as u32).collect(),
            context: Vec::new(),
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
            sampler
                .batches(3 * n, 3 * n + 3)
                .flatten()
                .collect::<Vec<_>>()
        };
        let batch = |sampler: Sampler, step: u64| sampler.batches(step, step + 1).next().unwrap();
        let mut sorted = epoch(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(epoch(0), epoch(1));
        assert_eq!(epoch(1), epoch(1));
        assert_eq!(batch(sampler, 2).len(), 2);
        // A step's batch is the same wherever the run began.
        for (step, expected) in sampler.batches(0, 9).enumerate() {
            assert_eq!(batch(sampler, step as u64), expected);
        }
        let other = Sampler { seed: 4, ..sampler };
        assert_ne!(batch(other, 0), batch(sampler, 0));
        let plain = Sampler {
            shuffle: false,
            ..sampler
        };
        assert_eq!(batch(plain, 4), [4, 5, 6, 7]);
    }

    #[test]
    fn the_order_of_a_seed_stays_what_it_was() {
        // Resuming counts on it: another order would train on other batches after the checkpoint.
        let sampler = Sampler {
            n_examples: 12,
            batch_size: 12,
            shuffle: true,
            seed: 7,
        };
        let epochs: Vec<Vec<usize>> = sampler.batches(0, 2).collect();
        assert_eq!(epochs[0], [0, 11, 5, 2, 9, 1, 6, 10, 3, 4, 8, 7]);
        assert_eq!(epochs[1], [9, 5, 7, 1, 4, 8, 3, 11, 6, 0, 10, 2]);
    }

    #[test]
    fn passes_are_filled_longest_first_and_stay_under_their_tokens() {
        let lengths = [6, 4, 18, 2, 3, 6, 4];
        let check = |max_tokens: usize, packing: bool, expected: &[&[usize]]| {
            let packing = Packing {
                max_tokens,
                packing,
            };
            let passes = packing.passes(|index| lengths[index], &[0, 1, 2, 3, 4, 5, 6]);
            assert_eq!(passes, expected, "{packing:?}");
        };
        check(10, true, &[&[2], &[0, 1], &[5, 6], &[4, 3]]);
        check(12, true, &[&[2], &[0, 5], &[1, 6, 4], &[3]]);
        check(1000, true, &[&[2, 0, 5, 1, 6, 4, 3]]);
        let apart: &[&[usize]] = &[&[2], &[0], &[5], &[1], &[6], &[4], &[3]];
        check(1000, false, apart);
        check(1, true, apart);
    }

    #[test]
    fn targets_are_the_next_tokens_of_their_own_document() {
        let documents = [(4, example(3, 2)), (9, example(0, 3)), (5, example(1, 1))];
        let batch = MicroBatch::new(&documents);
        assert_eq!(batch.ids, [0, 1, 2, 100, 101, 100, 101, 102, 0, 100]);
        assert_eq!(batch.lengths, [5, 3, 2]);
        assert_eq!(batch.examples, [4, 9, 5]);
        // A document without a prompt has nothing to predict its first token from.
        assert_eq!(batch.rows, [2, 3, 5, 6, 8]);
        assert_eq!(batch.targets, [100, 101, 101, 102, 100]);

        // Turns of others between two of the assistant's are read and not learnt.
        let between = TrainingExample {
            context: vec![1..3, 4..5],
            ..example(2, 6)
        };
        assert_eq!(between.n_supervised(), 3);
        let batch = MicroBatch::new(&[(0, between)]);
        assert_eq!(batch.rows, [1, 4, 6]);
        assert_eq!(batch.targets, [100, 103, 105]);
    }
}
