//! `eval-aime RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Scores base, student and teacher
#[derive(Parser)]
#[command(name = "eval-aime", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::JobArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::job(args, stillroom::stages::EVAL_AIME, stop))
}
