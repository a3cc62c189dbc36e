//! `gen-traces RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Samples traces from the teacher
#[derive(Parser)]
#[command(name = "gen-traces", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::GenTracesArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::gen_traces(args, stop))
}
