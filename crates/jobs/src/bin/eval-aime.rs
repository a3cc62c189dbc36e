//! `eval-aime RECIPE`: one stage of a run. `eval-aime compare RUN_A RUN_B`: finished ones side by side.

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
    args: stillroom::args::EvalArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::eval_aime(args, stop))
}
