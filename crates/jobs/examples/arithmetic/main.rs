//! Writes the arithmetic world, and the data of the control arms: `cargo run --release --example arithmetic -- --help`.
//!
//! The arithmetic world is a small world in which everything real runs in minutes on a CPU.
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
//! - [`world`]: the files; [`control`]: the data of a run's control arms.

mod control;
mod curriculum;
mod examples;
mod problem;
mod shape;
mod tokenizer;
mod trace;
mod world;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::control::Kind;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Write prompts, held-out problems, training texts and the tokenizer
    World {
        /// The folder to write
        out: PathBuf,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Write the data of a control arm from a run's dataset
    ControlData {
        run_dir: PathBuf,
        /// The folder to write
        out: PathBuf,
        #[arg(long, value_enum)]
        kind: Kind,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::World { out, seed } => world::write_world(&out, seed),
        Command::ControlData { run_dir, out, kind } => {
            for (path, rows) in control::write(&run_dir, &out, kind)? {
                eprintln!("{}: {rows} rows", path.display());
            }
            Ok(())
        }
    }
}
