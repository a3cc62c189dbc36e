//! `judge-traces RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::{cli, stages};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has a judge read the answers that rules cannot settle
#[derive(Parser)]
#[command(name = "judge-traces", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::AskingArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::asking(args, stages::JUDGE_TRACES, stop))
}
