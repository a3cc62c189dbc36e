//! Compiles the kernels of the `cuda` feature, every `.cu` file under `src`, for GPUs 8.0 and 9.0 as machine code and
//! for later ones as PTX.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    // The folder, as a new kernel has to be found: this runs at every change, and compiles what has changed.
    println!("cargo::rerun-if-changed=src");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let nvcc = match std::env::var_os("CUDA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/nvcc"),
        None => "nvcc".into(),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut headers = String::new();
    for header in files("src".as_ref(), "cuh")? {
        headers += &fs::read_to_string(header)?;
    }
    for source in files("src".as_ref(), "cu")? {
        if let Err(error) = compile(&nvcc, &source, &headers, &out) {
            println!("cargo::error={}: {error}", source.display());
        }
    }
    Ok(())
}

/// The files below a folder whose names end so, in an order of their own.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes NAME.fatbin for NAME.cu, where it is not there already of the same command, source and headers.
fn compile(nvcc: &Path, source: &Path, headers: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    let name = Path::new(source.file_name().ok_or("a file without a name")?);
    let fatbin = out.join(name.with_extension("fatbin"));
    let mut command = Command::new(nvcc);
    command
        .args(["-O3", "-std=c++17", "-fatbin"])
        .args(["-gencode", "arch=compute_80,code=sm_80"])
        .args(["-gencode", "arch=compute_90,code=[sm_90,compute_90]"])
        .arg("-o")
        .arg(&fatbin)
        .arg(source);
    let made_of = format!("{command:?}\n{headers}\n{}", fs::read_to_string(source)?);
    let record = fatbin.with_extension("made-of");
    if fatbin.exists() && fs::read_to_string(&record).is_ok_and(|before| before == made_of) {
        return Ok(());
    }
    if record.exists() {
        // What an interrupted compiler leaves is nobody's.
        fs::remove_file(&record)?;
    }
    let status = command.status().map_err(|error| {
        format!(
            "cannot start {}: {error}; `. scripts/cuda-env.sh` finds or makes a CUDA toolkit",
            nvcc.display()
        )
    })?;
    if !status.success() {
        return Err(format!("nvcc: {status}").into());
    }
    Ok(fs::write(record, made_of)?)
}
