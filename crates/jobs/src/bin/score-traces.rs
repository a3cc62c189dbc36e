//! `score-traces RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::{cli, stages};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has a teacher score traces that are there already
#[derive(Parser)]
#[command(name = "score-traces", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::AskingArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::asking(args, stages::SCORE_TRACES, stop))
}
