//! Files of MinHash signatures, one after the other without anything else.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Result, io};
use crate::minhash::{FUNCTIONS, Signature};

/// Stands where there is nothing to compare.
pub const NONE: Signature = [0; FUNCTIONS];

/// Writes one after the other, from a row on; several may write to a file, each its own rows.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    pub fn from_row(path: &Path, row: u64) -> Result<Self> {
        let open = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            file.seek(SeekFrom::Start(row * FUNCTIONS as u64))?;
            Ok(file)
        };
        let file = open().map_err(io(path))?;
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
        let finish = |file: &mut BufWriter<File>| {
            file.flush()?;
            file.get_ref().sync_data()
        };
        finish(&mut self.file).map_err(io(&self.path))
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
