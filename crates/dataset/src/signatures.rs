//! Files of MinHash signatures, one after the other without anything else.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use records::atomic;

use crate::error::{Result, io};
use crate::minhash::{FUNCTIONS, Signature};

/// Stands where there is nothing to compare.
pub const NONE: Signature = [0; FUNCTIONS];

/// Writes under a temporary name and renames in [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    pub fn create(path: &Path) -> Result<Self> {
        let temporary = atomic::temporary_path(path);
        let file = File::create(&temporary).map_err(io(&temporary))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 20, file),
        })
    }

    pub fn write(&mut self, signature: Option<&[u8]>) -> Result<()> {
        let signature = signature.unwrap_or(&NONE);
        self.file.write_all(signature).map_err(io(&self.path))
    }

    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(io(&self.path))?;
        Ok(atomic::publish(
            &atomic::temporary_path(&self.path),
            &self.path,
        )?)
    }
}

/// Reads single signatures of a file.
pub struct Reader {
    path: PathBuf,
    file: File,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            file: File::open(path).map_err(io(path))?,
            path: path.to_path_buf(),
        })
    }

    pub fn read(&self, row: u64) -> Result<Signature> {
        let mut signature = NONE;
        self.file
            .read_exact_at(&mut signature, row * FUNCTIONS as u64)
            .map_err(io(&self.path))?;
        Ok(signature)
    }
}

/// All signatures of a file, without a copy in memory.
pub struct Mapped(Mmap);

impl Mapped {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io(path))?;
        // SAFETY: the file is this run's own, in its hidden folder, and is not written again.
        Ok(Self(unsafe { Mmap::map(&file) }.map_err(io(path))?))
    }

    pub fn all(&self) -> &[Signature] {
        self.0.as_chunks().0
    }
}
