//! `train-student RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fine-tunes the student on the dataset
#[derive(Parser)]
#[command(name = "train-student", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::JobArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::job(args, stillroom::stages::TRAIN_STUDENT, stop))
}
