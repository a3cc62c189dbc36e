//! The arithmetic world: a small world in which everything real runs in minutes on a CPU.
//!
//! A problem is a start value and three to five lettered operations; a teacher works it out
//! step by step, a smaller base student can do any single step but has never seen a result
//! carried into the next one. Distillation teaches it to chain.
//!
//! ```text
//! Start with 237. A: double. B: add 42. C: subtract 30. What results?
//! <think>
//! 732 A*20=474 B+24=>615 C-03=684
//! </think>
//!
//! \boxed{486}
//! ```
//!
//! Digits inside the thinking are least significant first, because that is the order in which
//! carries arise; the boxed answer is written as usual.
//!
//! # Layout
//!
//! - [`problem`]: the family, and which problems are held out.
//! - [`trace`]: how a solution is written.
//! - [`examples`]: the kinds of training examples; [`curriculum`]: how many of each, in which order.
//! - [`tokenizer`]: the byte-level vocabulary and the chat template.
//! - [`shape`]: the two models' configurations.
//! - [`world`]: the files.

mod curriculum;
mod examples;
mod problem;
mod shape;
mod tokenizer;
mod trace;
mod world;

pub use world::write_world;
