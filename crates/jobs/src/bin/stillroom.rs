//! `stillroom`: every job, and the small commands around them.

use std::process::ExitCode;

use clap::Parser;
use stillroom::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = cli::Stillroom::parse().command;
    cli::main(|stop| cli::stillroom(command, stop))
}
