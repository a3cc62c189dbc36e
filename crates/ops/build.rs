//! Compiles the kernels of the `cuda` feature, for GPUs 8.0 and 9.0 as machine code and for later ones as PTX.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Folders with a kernel file of their name.
const KERNELS: [&str; 10] = [
    "activation",
    "attention",
    "dropout",
    "element",
    "head_loss",
    "linear",
    "norm",
    "optimizer",
    "rope",
    "rows",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/cuda");
    for kernel in KERNELS {
        println!("cargo::rerun-if-changed=src/{kernel}/{kernel}.cu");
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let nvcc = match std::env::var_os("CUDA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/nvcc"),
        None => "nvcc".into(),
    };
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else {
        return ExitCode::FAILURE;
    };
    for kernel in KERNELS {
        let source = format!("src/{kernel}/{kernel}.cu");
        let status = Command::new(&nvcc)
            .args(["-O3", "-std=c++17", "-fatbin"])
            .args(["-gencode", "arch=compute_80,code=sm_80"])
            .args(["-gencode", "arch=compute_90,code=[sm_90,compute_90]"])
            .arg("-o")
            .arg(out.join(format!("{kernel}.fatbin")))
            .arg(&source)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                println!("cargo::error=nvcc on {source}: {status}");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!(
                    "cargo::error=cannot start {}: {error}; `. scripts/cuda-env.sh` finds or makes a CUDA toolkit",
                    nvcc.display()
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
