//! Puts the commit into the binaries, where there is a git checkout to ask. Never fails a build.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Its reflog changes with every commit and checkout. A path that is not there would make
    // cargo run this script at every build.
    let reflog = "../../.git/logs/HEAD";
    if Path::new(reflog).exists() {
        println!("cargo:rerun-if-changed={reflog}");
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    if let Ok(output) = output
        && output.status.success()
        && let Ok(commit) = String::from_utf8(output.stdout)
    {
        println!("cargo:rustc-env=STILLROOM_COMMIT={}", commit.trim());
    }
}
