//! What scripts/gpu-check.sh runs on a machine with a GPU.

mod ops;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every operation on the GPU against the CPU; ends with 1 where one is too far off
    Ops {
        /// Only those whose name contains it
        #[arg(long)]
        only: Option<String>,
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Optimizer steps of a LoRA run on random weights and tokens; a JSON object per line
    Throughput(throughput::Arguments),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Ops { only, json } => {
            let passes = ops::run(only, json.as_deref())?;
            Ok(ExitCode::from(u8::from(!passes)))
        }
        Command::Throughput(arguments) => {
            throughput::run(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
