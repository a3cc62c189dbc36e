//! How the Hub names bytes: the SHA-256 of large files, git's SHA-1 of the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::digest;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, io};
use crate::progress::{Say, megabytes};
use crate::repo::upload::{Contents, UploadFile};

/// Hashing is told of from this size on.
const WORTH_TELLING: u64 = 1 << 30;

/// Bytes of a file that the Hub looks at to know its kind.
const SAMPLE: u64 = 512;

/// A file as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub size: u64,
    modified: Option<SystemTime>,
}

/// Hashes of files, each made once.
pub(super) struct Sums {
    say: Say,
    /// SHA-256 by blake3.
    known: BTreeMap<String, String>,
    /// SHA-256 by path in the repository.
    made: BTreeMap<String, String>,
    /// What was made or known of the files here, by blake3.
    pub used: BTreeMap<String, String>,
}

impl Sums {
    pub fn new(known: &BTreeMap<String, String>, say: Say) -> Self {
        Self {
            say,
            known: known.clone(),
            made: BTreeMap::new(),
            used: BTreeMap::new(),
        }
    }

    pub fn sha256(&mut self, file: &UploadFile) -> Result<String> {
        if let Some(sum) = self.made.get(&file.path) {
            return Ok(sum.clone());
        }
        let sum = match &file.contents {
            Contents::Bytes(bytes) => hex(&Sha256::digest(bytes)),
            Contents::File { path, blake3 } => {
                let known = blake3.as_ref().and_then(|key| self.known.get(key));
                let sum = match known {
                    Some(sum) => sum.clone(),
                    None => self.read(path)?,
                };
                if let Some(key) = blake3 {
                    self.used.insert(key.clone(), sum.clone());
                }
                sum
            }
        };
        self.made.insert(file.path.clone(), sum.clone());
        Ok(sum)
    }

    fn read(&self, path: &Path) -> Result<String> {
        let size = state_of(path)?.size;
        if size >= WORTH_TELLING {
            let shown = path.display();
            (self.say)(&format!("hashing {shown} ({})", megabytes(size)));
        }
        let mut hasher = Sha256::new();
        each(path, |bytes| hasher.update(bytes))?;
        Ok(hex(&hasher.finalize()))
    }
}

/// The name that git gives the bytes.
pub(super) fn git_oid(file: &UploadFile) -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let size = state(file)?.size;
    context.update(format!("blob {size}\0").as_bytes());
    match &file.contents {
        Contents::Bytes(bytes) => context.update(bytes),
        Contents::File { path, .. } => each(path, |bytes| context.update(bytes))?,
    }
    Ok(hex(context.finish().as_ref()))
}

/// Size and time of a file; bytes in memory have no time.
pub(super) fn state(file: &UploadFile) -> Result<State> {
    match &file.contents {
        Contents::Bytes(bytes) => Ok(State {
            size: bytes.len() as u64,
            modified: None,
        }),
        Contents::File { path, .. } => state_of(path),
    }
}

fn state_of(path: &Path) -> Result<State> {
    let metadata = std::fs::metadata(path).map_err(io(path))?;
    Ok(State {
        size: metadata.len(),
        modified: metadata.modified().ok(),
    })
}

/// The first bytes.
pub(super) fn sample(file: &UploadFile) -> Result<Vec<u8>> {
    match &file.contents {
        Contents::Bytes(bytes) => Ok(bytes.iter().take(SAMPLE as usize).copied().collect()),
        Contents::File { path, .. } => {
            let mut bytes = Vec::new();
            let file = File::open(path).map_err(io(path))?;
            file.take(SAMPLE)
                .read_to_end(&mut bytes)
                .map_err(io(path))?;
            Ok(bytes)
        }
    }
}

/// All bytes.
pub(super) fn whole(file: &UploadFile) -> Result<Vec<u8>> {
    match &file.contents {
        Contents::Bytes(bytes) => Ok(bytes.clone()),
        Contents::File { path, .. } => std::fs::read(path).map_err(io(path)),
    }
}

/// That a file is as it was when it was hashed.
pub(super) fn check_unchanged(file: &UploadFile, before: State) -> Result<()> {
    match (&file.contents, state(file)? == before) {
        (Contents::File { path, .. }, false) => Err(Error::Changed { path: path.clone() }),
        _ => Ok(()),
    }
}

fn each(path: &Path, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut file = File::open(path).map_err(io(path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io(path))? {
            0 => return Ok(()),
            n => take(buffer.get(..n).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    #[test]
    fn bytes_are_named_as_git_and_as_large_file_storage_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"hello\n").unwrap();
        let on_disk = UploadFile {
            path: "x".into(),
            contents: Contents::File {
                path,
                blake3: Some("b".into()),
            },
        };
        for file in [on_disk.clone(), UploadFile::bytes("x", "hello\n")] {
            // As `git hash-object` and `sha256sum` say.
            let oid = "ce013625030ba8dba906f756967f9e9ca394464a";
            let sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
            assert_eq!(git_oid(&file).unwrap(), oid);
            let mut sums = Sums::new(&BTreeMap::new(), Arc::new(|_: &str| ()));
            assert_eq!(sums.sha256(&file).unwrap(), sum);
            assert_eq!(sample(&file).unwrap(), b"hello\n");
        }
        let known = BTreeMap::from([("b".to_owned(), "kept".to_owned())]);
        let mut sums = Sums::new(&known, Arc::new(|_: &str| ()));
        assert_eq!(sums.sha256(&on_disk).unwrap(), "kept");
        assert_eq!(sums.used, known);
    }
}
