//! The order in which the two models meet their examples.
//!
//! Each file is read once, in its own order (`shuffle = false` in the recipes): single operations
//! teach copying and digit sums several times faster than chains do, so they come first.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::examples::{Exchange, chain, direct, invented_steps, only_step, rewritten_list};

/// One kind of example.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Worked steps, their number drawn from these.
    Chain(&'static [usize]),
    /// Steps of the model's own invention.
    InventedSteps,
    /// One named step of a list.
    OnlyStep,
    /// A list in the traces' spelling, nothing calculated.
    RewrittenList,
    /// A chain answered without thinking.
    Direct,
}

impl Kind {
    fn draw(self, rng: &mut impl Rng) -> Exchange {
        match self {
            Self::Chain(lengths) => chain(rng, lengths),
            Self::InventedSteps => invented_steps(rng),
            Self::OnlyStep => only_step(rng),
            Self::RewrittenList => rewritten_list(rng),
            Self::Direct => direct(rng),
        }
    }
}

/// A stretch of a training file, drawn from one mixture.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub n_examples: usize,
    /// Kinds with their weights.
    pub mixture: &'static [(Kind, u32)],
}

/// A whole training file.
#[derive(Clone, Copy, Debug)]
pub struct Curriculum {
    pub stages: &'static [Stage],
}

impl Curriculum {
    /// All examples in the order of the file.
    pub fn examples<R: Rng>(&self, rng: &mut R) -> impl Iterator<Item = Exchange> {
        self.stages
            .iter()
            .flat_map(|stage| vec![*stage; stage.n_examples])
            .filter_map(|stage| {
                let (kind, _) = stage
                    .mixture
                    .choose_weighted(rng, |(_, weight)| *weight)
                    .ok()?;
                Some(kind.draw(rng))
            })
    }
}

/// The teacher: worked problems only, from one operation to five. 1,300 batches of 32.
pub const TEACHER_CURRICULUM: Curriculum = Curriculum {
    stages: &[
        Stage {
            n_examples: 350 * 32,
            mixture: &[(Kind::Chain(&[1]), 85), (Kind::Chain(&[2, 3]), 15)],
        },
        Stage {
            n_examples: 200 * 32,
            mixture: &[(Kind::Chain(&[1, 1, 2, 2, 3]), 1)],
        },
        Stage {
            n_examples: 750 * 32,
            mixture: &[(Kind::Chain(&[1, 2, 3, 3, 4, 4, 5, 5]), 1)],
        },
    ],
};

/// The base student: one operation at a time, lists rewritten but not worked, and chains answered
/// without thinking. No example carries a result into another step. 2,000 batches of 32.
///
/// The invented steps decide whether the student can be taught to chain; see their function.
pub const STUDENT_CURRICULUM: Curriculum = Curriculum {
    stages: &[
        Stage {
            n_examples: 450 * 32,
            mixture: &[
                (Kind::InventedSteps, 40),
                (Kind::OnlyStep, 25),
                (Kind::RewrittenList, 25),
                (Kind::Direct, 10),
            ],
        },
        Stage {
            n_examples: 1550 * 32,
            mixture: &[
                (Kind::InventedSteps, 15),
                (Kind::Chain(&[1]), 10),
                (Kind::OnlyStep, 40),
                (Kind::RewrittenList, 25),
                (Kind::Direct, 10),
            ],
        },
    ],
};
