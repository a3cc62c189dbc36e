//! `push-hub RECIPE`: the results of a run, to the Hub.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pushes dataset, adapter, merged model and scores to the Hugging Face Hub
#[derive(Parser)]
#[command(name = "push-hub", version, about)]
struct Arguments {
    #[command(flatten)]
    args: stillroom::args::PushArgs,
}

fn main() -> ExitCode {
    let args = Arguments::parse().args;
    cli::main(|stop| cli::push_hub(args, stop))
}
