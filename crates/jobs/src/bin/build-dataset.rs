//! `build-dataset RECIPE`: one stage of a run.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Verifies and filters a run's traces into a Parquet dataset
#[derive(Parser)]
#[command(name = "build-dataset", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::JobArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::job(args, stillroom::stages::BUILD_DATASET, stop))
}
