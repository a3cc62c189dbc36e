//! Hashes of files, kept from one start to the next, so that a file is read for its hash once.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::atomic::{self, MTIME_STEP};
use crate::error::{Error, Result, io};
use crate::hash::{self, FileStamp};
use crate::json;
use crate::manifest::{from_run, within_run};

/// Version of the format of `stamps.json`.
pub const SCHEMA: u32 = 1;

/// The age at which the half-written file of another process is taken for that of a killed one.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The stamps of files by their paths, in a JSON file of the run folder.
///
/// A stamp is believed as long as the file has its size and its modification time. That fails for a file that was changed
/// twice within one step of the file system's clock, once before and once after it was hashed. Git calls such entries
/// racily clean and compares the contents again; here they are not kept: a stamp is kept only where the file had been left
/// alone for [`MTIME_STEP`] when its hashing began. Files that this crate writes and hashes at once pass, since
/// [`atomic::publish_hashed`] sets their times back by as much.
///
/// All methods may be called from several threads. Two threads that ask for the same new file at once both read it.
/// Several processes may share the file: what one reads is always whole, and the last to save may lose what another saved
/// at the same moment, so that those files are read again.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Absolute. `None` keeps stamps for as long as the value lives.
    path: Option<PathBuf>,
    warning: Option<String>,
    known: Mutex<Known>,
    /// Held while the file is replaced, so that what a thread saves is not replaced by an older state of another.
    saving: Mutex<()>,
}

/// By absolute path.
type ByPath = BTreeMap<PathBuf, FileStamp>;

#[derive(Debug, Default)]
struct Known {
    /// From the file, when it was opened or saved.
    read: ByPath,
    /// Since then.
    new: ByPath,
    /// Files by their identity on the disk: a file that this process has written or read may have got another name.
    files: HashMap<FileId, FileStamp>,
}

/// Device and inode.
type FileId = (u64, u64);

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(_: &Path) -> Option<FileId> {
    None
}

/// The stamps of the run that this process works for.
static OF_RUN: Mutex<Option<Arc<Stamps>>> = Mutex::new(None);

/// Has [`stamp`] and [`remember`] use these from now on.
pub fn of_run(stamps: Arc<Stamps>) {
    *OF_RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamps);
}

fn current() -> Option<Arc<Stamps>> {
    let of_run = OF_RUN.lock().unwrap_or_else(PoisonError::into_inner);
    of_run.clone()
}

/// [`Stamps::stamp`] of the run that this process works for; without one the file is read.
///
/// # Errors
/// A file that is not there, or cannot be read.
pub fn stamp(path: &Path) -> Result<FileStamp> {
    match current() {
        Some(stamps) => stamps.stamp(path),
        None => hash::stamp(path),
    }
}

/// [`stamp`] of each file, in their order.
///
/// # Errors
/// The first file that is not there, or cannot be read.
pub fn stamp_all(paths: &[PathBuf]) -> Result<Vec<FileStamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// [`Stamps::remember`] of the run that this process works for.
pub fn remember(stamp: FileStamp) {
    if let Some(stamps) = current() {
        stamps.remember(stamp);
    }
}

/// A file that is hashed while it is read. Its hash is kept for the run once its end is reached.
pub struct Reading {
    file: File,
    /// None where the hash is known, or nobody wants it, or the end was reached.
    hashing: Option<HashedRead>,
}

struct HashedRead {
    path: PathBuf,
    stamps: Arc<Stamps>,
    began: SystemTime,
    /// When it was opened.
    metadata: Metadata,
    hasher: blake3::Hasher,
}

impl Reading {
    /// # Errors
    /// Those of opening the file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Self::of(path, current())
    }

    fn of(path: &Path, stamps: Option<Arc<Stamps>>) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let stamps = stamps.filter(|stamps| !stamps.knows(path));
        let hashing = stamps.map(|stamps| HashedRead {
            path: path.to_path_buf(),
            stamps,
            began: SystemTime::now(),
            metadata,
            hasher: blake3::Hasher::new(),
        });
        Ok(Self { file, hashing })
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        match &mut self.hashing {
            Some(hashing) if n > 0 => {
                hashing.hasher.update(buffer.get(..n).unwrap_or(buffer));
            }
            Some(_) if !buffer.is_empty() => {
                if let Some(hashing) = self.hashing.take() {
                    hashing.end(&self.file.metadata()?);
                }
            }
            _ => {}
        }
        Ok(n)
    }
}

impl HashedRead {
    /// Keeps the stamp unless the file was written to meanwhile.
    fn end(self, metadata: &Metadata) {
        let blake3 = self.hasher.finalize().to_hex().to_string();
        let stamps = [&self.metadata, metadata]
            .map(|metadata| hash::stamped(&self.path, metadata, blake3.clone()).ok());
        if let ([Some(before), Some(after)], Ok(key)) = (stamps, key(&self.path))
            && before == after
            && self.hasher.count() == after.size
        {
            self.stamps.keep(key, &after, self.began);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Contents {
    schema: u32,
    stamps: Vec<FileStamp>,
}

impl Stamps {
    /// Reads the stamps in `path`, `stamps.json` of a run folder: paths below that folder are kept relative to it, so that
    /// the run may be moved. A missing file has none; a damaged one has none either, with a [`warning`](Self::warning).
    pub fn open(path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // Only disk space is at stake.
        let _ = atomic::remove_abandoned(&absolute, ABANDONED);
        let (read, warning) = match read(&absolute) {
            Ok(read) => (read, None),
            Err(problem) => {
                let path = path.display();
                let line = format!(
                    "warning: {path}: not a list of file hashes ({problem}); the files are read again, and it is replaced"
                );
                (ByPath::new(), Some(line))
            }
        };
        let new = ByPath::new();
        Self {
            path: Some(absolute),
            warning,
            known: Mutex::new(Known {
                read,
                new,
                ..Known::default()
            }),
            saving: Mutex::default(),
        }
    }

    /// A line for the terminal where the file was there and could not be used.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// What [`hash::stamp`] says of the file: kept from before where size and modification time still hold, else read.
    ///
    /// # Errors
    /// A file that is not there, or cannot be read.
    pub fn stamp(&self, path: &Path) -> Result<FileStamp> {
        if let Some(stamp) = self.kept(path)? {
            return Ok(stamp);
        }
        // Hashing takes minutes for large files.
        let (key, began) = (key(path)?, SystemTime::now());
        let stamp = hash::stamp(path)?;
        self.keep(key, &stamp, began);
        Ok(stamp)
    }

    /// The stamp that is known of the file as it is now.
    fn kept(&self, path: &Path) -> Result<Option<FileStamp>> {
        let key = key(path)?;
        let found = hash::size_and_mtime(path)?;
        let known = self.known();
        let kept = known.new.get(&key).or_else(|| known.read.get(&key));
        let holds = |kept: &&FileStamp| (kept.size, kept.mtime_ns) == found;
        if let Some(kept) = kept.filter(holds) {
            return Ok(Some(kept.clone().moved_to(path)));
        }
        let renamed = file_id(path).and_then(|id| known.files.get(&id).filter(holds).cloned());
        drop(known);
        if let Some(stamp) = &renamed {
            self.keep(key, stamp, SystemTime::now());
        }
        Ok(renamed.map(|stamp| stamp.moved_to(path)))
    }

    /// Whether [`stamp`](Self::stamp) would not have to read the file.
    fn knows(&self, path: &Path) -> bool {
        matches!(self.kept(path), Ok(Some(_)))
    }

    /// Keeps a stamp that came with the writing of a file, such as
    /// [`WrittenFile::stamp`](crate::parquet_file::WrittenFile::stamp). Its `origin` is not kept; a stamp of a file that
    /// was changed less than [`MTIME_STEP`] ago is not kept at all.
    pub fn remember(&self, stamp: FileStamp) {
        // Without a working folder there is no key, and the file is read again.
        if let Ok(key) = key(&stamp.path) {
            self.keep(key, &stamp, SystemTime::now());
        }
    }

    /// Writes the stamps down, together with those that other processes have saved since, less those of files that are
    /// gone. Does nothing when there is none to add.
    ///
    /// # Errors
    /// Those of writing the file. The stamps stay in memory; a run may go on without the file.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.known().new.clone();
        if new.is_empty() {
            return Ok(());
        }
        let mut all = match read(path) {
            Ok(saved) => saved,
            Err(_) => self.known().read.clone(),
        };
        all.extend(new.clone());
        all.retain(|path, _| !is_gone(path));
        write(path, &all)?;
        let mut known = self.known();
        // Other threads may have added to them meanwhile.
        known.new.retain(|path, stamp| new.get(path) != Some(stamp));
        known.read = all;
        Ok(())
    }

    fn keep(&self, key: PathBuf, stamp: &FileStamp, hashing_began: SystemTime) {
        if was_left_alone(stamp, hashing_began) {
            let mut kept = stamp.clone().moved_to(&key);
            kept.origin = None;
            let id = file_id(&key);
            let mut known = self.known();
            if let Some(id) = id {
                known.files.insert(id, kept.clone());
            }
            known.new.insert(key, kept);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one insertion: a thread that panicked left nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether every change from `hashing_began` on gives the file another modification time.
fn was_left_alone(stamp: &FileStamp, hashing_began: SystemTime) -> bool {
    let modified = UNIX_EPOCH + Duration::from_nanos(stamp.mtime_ns);
    hashing_began
        .duration_since(modified)
        .is_ok_and(|age| age >= MTIME_STEP)
}

/// Relative paths mean other files at a start in another folder.
fn key(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(io(path))
}

fn is_gone(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// The run folder of a file of stamps.
fn root(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn read(path: &Path) -> Result<ByPath, String> {
    let contents = json::read::<Contents>(path).map_err(|error| match error {
        Error::Json { source, .. } => source.to_string(),
        Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    })?;
    let stamps = match contents {
        None => Vec::new(),
        Some(Contents { schema, stamps }) if schema == SCHEMA => stamps,
        Some(Contents { schema, .. }) => {
            return Err(format!("its format is {schema}, not {SCHEMA}"));
        }
    };
    let by_path = stamps.into_iter().map(|stamp| {
        let path = from_run(root(path), &stamp.path);
        (path.clone(), stamp.moved_to(path))
    });
    Ok(by_path.collect())
}

fn write(path: &Path, stamps: &ByPath) -> Result<()> {
    let stamps = stamps.iter().map(|(file, stamp)| {
        let file = within_run(root(path), file);
        stamp.clone().moved_to(file)
    });
    let contents = Contents {
        schema: SCHEMA,
        stamps: stamps.collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&contents).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        line: 0,
        source,
    })?;
    bytes.push(b'\n');
    atomic::write_shared(path, &bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::thread;

    use super::*;

    /// Writes a file that was last changed `seconds` ago.
    fn aged(path: &Path, text: &str, seconds: u64) {
        fs::write(path, text).unwrap();
        set_modified(path, SystemTime::now() - Duration::from_secs(seconds));
    }

    fn set_modified(path: &Path, time: SystemTime) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    /// Changes a file behind the back of its size and its modification time: who still gives the old hash has not read it.
    fn change_unseen(path: &Path, text: &str) {
        let before = fs::metadata(path).unwrap();
        fs::write(path, text).unwrap();
        set_modified(path, before.modified().unwrap());
        assert_eq!(fs::metadata(path).unwrap().len(), before.len());
    }

    fn blake3(stamps: &Stamps, path: &Path) -> String {
        let stamp = stamps.stamp(path).unwrap();
        assert_eq!(stamp.path, path);
        stamp.blake3
    }

    #[test]
    fn a_known_file_is_not_read_and_a_changed_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = (dir.path().join("f"), dir.path().join("stamps.json"));
        aged(&file, "abc", 60);
        let stamps = Stamps::open(&path);
        assert_eq!(stamps.stamp(&file).unwrap(), hash::stamp(&file).unwrap());
        stamps.save().unwrap();
        change_unseen(&file, "abd");
        for stamps in [&stamps, &Stamps::open(&path)] {
            assert_eq!(stamps.warning(), None);
            assert_eq!(blake3(stamps, &file), hash::bytes(b"abc"));
        }
        // Another time, then another size.
        for (text, seconds) in [("abe", 50), ("abcd", 50)] {
            aged(&file, text, seconds);
            assert_eq!(blake3(&stamps, &file), hash::bytes(text.as_bytes()));
        }
        fs::remove_file(&file).unwrap();
        let error = stamps.stamp(&file).unwrap_err().to_string();
        assert!(error.contains("/f: "), "{error}");
    }

    #[test]
    fn a_file_that_was_just_changed_is_read_until_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let stamps = Stamps::default();
        aged(&file, "abc", 0);
        blake3(&stamps, &file);
        stamps.remember(hash::stamp(&file).unwrap());
        change_unseen(&file, "abd");
        assert_eq!(blake3(&stamps, &file), hash::bytes(b"abd"));
        // A clock that is behind the file system's is no proof either.
        set_modified(&file, SystemTime::now() + Duration::from_secs(60));
        blake3(&stamps, &file);
        change_unseen(&file, "abe");
        assert_eq!(blake3(&stamps, &file), hash::bytes(b"abe"));

        let stamp = hash::stamp(&file).unwrap();
        let modified = UNIX_EPOCH + Duration::from_nanos(stamp.mtime_ns);
        let almost = MTIME_STEP - Duration::from_nanos(1);
        assert!(!was_left_alone(&stamp, modified + almost));
        assert!(was_left_alone(&stamp, modified + MTIME_STEP));
    }

    #[test]
    fn a_file_stamped_while_it_was_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("f"), dir.path().join("moved"));
        let stamps = Stamps::open(&dir.path().join("stamps.json"));
        let stamp = atomic::write_stamped(&file, b"abc").unwrap();
        stamps.remember(stamp);
        change_unseen(&file, "abd");
        assert_eq!(blake3(&stamps, &file), hash::bytes(b"abc"));
        fs::rename(&file, &moved).unwrap();
        assert_eq!(blake3(&stamps, &moved), hash::bytes(b"abc"));
        stamps.save().unwrap();
        let stamps = Stamps::open(&dir.path().join("stamps.json"));
        assert_eq!(blake3(&stamps, &moved), hash::bytes(b"abc"));
        // An edit at once, without tricks, shows: the time was set back.
        let before = fs::metadata(&moved).unwrap().modified().unwrap();
        fs::write(&moved, "abe").unwrap();
        assert_ne!(fs::metadata(&moved).unwrap().modified().unwrap(), before);
        assert_eq!(blake3(&stamps, &moved), hash::bytes(b"abe"));
    }

    #[test]
    fn a_damaged_list_counts_as_empty_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = (dir.path().join("f"), dir.path().join("stamps.json"));
        aged(&file, "abc", 60);
        let cases = [
            ("", "EOF"),
            ("{\"schema\": 1, \"sta", "EOF"),
            ("{\"schema\": 2, \"stamps\": []}", "its format is 2, not 1"),
            (
                "{\"schema\": 1, \"stamps\": [{\"path\": \"f\"}]}",
                "missing field",
            ),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let stamps = Stamps::open(&path);
            let warning = stamps.warning().unwrap_or_default();
            assert!(
                warning.contains("stamps.json") && warning.contains(expected),
                "{warning}"
            );
            assert_eq!(blake3(&stamps, &file), hash::bytes(b"abc"));
            stamps.save().unwrap();
            assert_eq!(Stamps::open(&path).warning(), None);
        }
    }

    #[test]
    fn a_run_may_move_and_files_that_are_gone_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir(&old).unwrap();
        for name in ["kept", "gone"] {
            aged(&old.join(name), "abc", 60);
        }
        let stamps = Stamps::open(&old.join("stamps.json"));
        blake3(&stamps, &old.join("kept"));
        blake3(&stamps, &old.join("gone"));
        fs::remove_file(old.join("gone")).unwrap();
        stamps.save().unwrap();
        fs::rename(&old, &new).unwrap();
        let text = fs::read_to_string(new.join("stamps.json")).unwrap();
        assert!(
            text.contains("<run>/kept") && !text.contains("gone"),
            "{text}"
        );
        change_unseen(&new.join("kept"), "abd");
        let stamps = Stamps::open(&new.join("stamps.json"));
        assert_eq!(blake3(&stamps, &new.join("kept")), hash::bytes(b"abc"));
    }

    #[test]
    fn processes_that_save_in_turn_keep_each_others_stamps() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let path = dir.path().join("stamps.json");
        aged(&a, "a", 60);
        aged(&b, "b", 60);
        let (first, second) = (Stamps::open(&path), Stamps::open(&path));
        blake3(&first, &a);
        blake3(&second, &b);
        first.save().unwrap();
        second.save().unwrap();
        for (file, text) in [(&a, "a"), (&b, "b")] {
            change_unseen(file, "x");
            let stamps = Stamps::open(&path);
            assert_eq!(blake3(&stamps, file), hash::bytes(text.as_bytes()));
        }
    }

    /// Threads of two processes stamp, save and open the same list: it is whole whenever it is read, and right at the end.
    #[test]
    fn a_list_that_many_write_at_once_is_always_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamps.json");
        let files: Vec<PathBuf> = (0..24).map(|n| dir.path().join(n.to_string())).collect();
        for file in &files {
            aged(file, &file.display().to_string(), 60);
        }
        let processes = [Stamps::open(&path), Stamps::open(&path)];
        thread::scope(|scope| {
            for n in 0..6 {
                let (files, processes, path) = (&files, &processes, &path);
                scope.spawn(move || {
                    let stamps = &processes[n % 2];
                    for file in files.iter().skip(n).chain(files.iter().take(n)) {
                        let text = file.display().to_string();
                        assert_eq!(blake3(stamps, file), hash::bytes(text.as_bytes()));
                        stamps.save().unwrap();
                        assert_eq!(Stamps::open(path).warning(), None);
                    }
                });
            }
        });
        let stamps = Stamps::open(&path);
        let known = stamps.known();
        for stamp in known.read.values() {
            assert_eq!(*stamp, hash::stamp(&stamp.path).unwrap());
        }
        // Only the stamps and the files: no half-written list stays.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files.len() + 1);
    }

    #[test]
    fn a_file_that_was_read_to_its_end_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let stamps = Arc::new(Stamps::default());
        let whole = |name: &str, stop: usize| {
            let path = dir.path().join(name);
            atomic::write_stamped(&path, b"some rows").unwrap();
            let mut reading = Reading::of(&path, Some(stamps.clone())).unwrap();
            let mut bytes = vec![0; stop];
            reading.read_exact(&mut bytes).unwrap();
            if stop == 9 {
                assert_eq!(reading.read(&mut [0; 4]).unwrap(), 0);
            }
            path
        };
        let path = whole("whole", 9);
        assert!(stamps.knows(&path));
        assert_eq!(stamps.stamp(&path).unwrap(), hash::stamp(&path).unwrap());
        assert!(!stamps.knows(&whole("half", 4)));
        fs::write(&path, b"other rows").unwrap();
        assert!(!stamps.knows(&path));
    }
}
