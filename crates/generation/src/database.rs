//! SQLite as the stages use it: one file, held by one process, durable at every commit; and what every one of them says
//! of itself in its table `meta`.

use std::path::{Path, PathBuf};

use records::hash::FileStamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior};

use crate::error::{Error, Result};
use crate::key::SamplingKey;

const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

/// A database of a stage's folder.
pub struct Database {
    path: PathBuf,
    db: Connection,
}

impl Database {
    /// Opens or makes one, for this process alone. `format` is the version of the tables and of what lies in them.
    pub(crate) fn open(dir: &Path, name: &str, tables: &str, format: u32) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io {
            path: dir.to_path_buf(),
            source,
        })?;
        let path = dir.join(name);
        let db = Connection::open(&path).map_err(at(&path, "open the journal"))?;
        let set_up = || -> rusqlite::Result<()> {
            db.busy_timeout(std::time::Duration::ZERO)?;
            // Before the first access: a journal that is never shared needs no -shm file.
            db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            // Before the first table: a payload is hundreds of kilobytes, and each page of it is written by itself.
            db.pragma_update(None, "page_size", 32768)?;
            // Before the first table, too: sealed payloads give their pages back.
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            db.pragma_update(None, "synchronous", "FULL")?;
            // What a large transaction leaves of the log is given back.
            db.query_row("PRAGMA journal_size_limit = 16777216", [], |_| Ok(()))?;
            db.execute_batch(&format!("BEGIN EXCLUSIVE; {META} {tables} COMMIT;"))
        };
        set_up().map_err(at(&path, "open the journal"))?;
        // A reader of a journal that a kill left in WAL mode has made one. Nobody shares what is held exclusively,
        // and closing would not remove it.
        let _ = std::fs::remove_file(dir.join(format!("{name}-shm")));
        let database = Self { path, db };
        match database.meta("format")? {
            None => database.set_meta("format", &format.to_string())?,
            Some(found) if found == format.to_string() => {}
            Some(found) => {
                return Err(Error::JournalFormat {
                    path: database.path,
                    found,
                    expected: format,
                });
            }
        }
        Ok(database)
    }

    /// One that is only read, and was closed.
    pub(crate) fn reader(path: PathBuf, db: Connection) -> Self {
        Self { path, db }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.db
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        self.db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(self.failed("read"))
    }

    pub fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.execute(
            "write",
            "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
            [key, value],
        )
    }

    /// The settings of what is in this folder; `None` in a fresh one.
    pub fn key(&self) -> Result<Option<SamplingKey>> {
        let text = self.meta("sampling_key")?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| self.unreadable(format!("the sampling key cannot be read: {error}")))
    }

    pub fn set_key(&self, key: &SamplingKey) -> Result<()> {
        let text = serde_json::Value::Object(key.clone()).to_string();
        self.set_meta("sampling_key", &text)
    }

    /// The teacher's files as they were hashed last, so that the next start need not hash them again.
    pub fn teacher_files(&self) -> Result<Vec<FileStamp>> {
        let Some(text) = self.meta("teacher_files")? else {
            return Ok(Vec::new());
        };
        serde_json::from_str(&text)
            .map_err(|error| self.damaged("teacher_files", &format!("cannot be read: {error}")))
    }

    pub fn set_teacher_files(&self, files: &[FileStamp]) -> Result<()> {
        let text = serde_json::to_string(files)
            .map_err(|error| self.unreadable(format!("the teacher's files: {error}")))?;
        if self.meta("teacher_files")?.as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        self.set_meta("teacher_files", &text)
    }

    /// Prompt tokens that were paid for.
    pub fn input_tokens(&self) -> Result<u64> {
        self.counted(INPUT)
    }

    /// Completion tokens that were paid for and came to nothing.
    pub fn lost_tokens(&self) -> Result<u64> {
        self.counted(LOST)
    }

    /// A count that is not there yet is 0; one that cannot be read is not.
    fn counted(&self, key: &str) -> Result<u64> {
        let Some(text) = self.meta(key)? else {
            return Ok(0);
        };
        text.parse()
            .map_err(|_| self.damaged(key, &format!("is {text:?} and no count")))
    }

    /// A row of `meta` that is not as it was written.
    pub(crate) fn damaged(&self, key: &str, how: &str) -> Error {
        self.unreadable(format!(
            "its table meta is damaged: `{key}` {how}; restore the file from a copy, or remove the folder to start again"
        ))
    }

    pub(crate) fn execute(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl Params,
    ) -> Result<()> {
        self.db
            .execute(sql, params)
            .map(drop)
            .map_err(self.failed(doing))
    }

    pub(crate) fn rows<T, C: FromIterator<T>>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<C> {
        let failed = self.failed("read");
        let mut statement = self.db.prepare(sql).map_err(&failed)?;
        let rows = statement.query_map(params, read).map_err(&failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&failed)
    }

    /// Writes in one transaction, which is durable when this returns; none of it is where `write` fails.
    pub(crate) fn write<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let failed = self.failed(doing);
        let commit = || -> rusqlite::Result<T> {
            let transaction = self
                .db
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = write(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        commit().map_err(failed)
    }

    /// Gives the pages of removed rows back.
    pub(crate) fn vacuum(&self, doing: &'static str) -> Result<()> {
        let vacuum = || -> rusqlite::Result<()> {
            // It yields a row per step; execute_batch would stop at the first page.
            let mut vacuum = self.db.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        };
        vacuum().map_err(self.failed(doing))
    }

    /// Folds the log into the one file that stays behind.
    pub(crate) fn close(self) -> Result<()> {
        let close = || -> rusqlite::Result<()> {
            self.db
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            self.db
                .pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
        };
        close().map_err(self.failed("close the journal"))?;
        let path = self.path;
        self.db
            .close()
            .map_err(|(_, source)| at(&path, "close the journal")(source))
    }

    pub(crate) fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        at(&self.path, doing)
    }

    pub(crate) fn unreadable(&self, problem: String) -> Error {
        Error::Payload {
            path: self.path.clone(),
            problem,
        }
    }
}

/// The keys of counts in `meta`.
const INPUT: &str = "input_tokens";
pub(crate) const LOST: &str = "lost_tokens";

/// Counts prompt tokens that were paid for, beside what they were paid for.
pub(crate) fn count_input(transaction: &Transaction<'_>, tokens: u64) -> rusqlite::Result<()> {
    count(transaction, INPUT, tokens)
}

pub(crate) fn count(transaction: &Transaction<'_>, key: &str, tokens: u64) -> rusqlite::Result<()> {
    transaction
        .execute(
            "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE
             SET value = CAST(value AS INTEGER) + CAST(excluded.value AS INTEGER)",
            [key, &tokens.to_string()],
        )
        .map(drop)
}

/// Attaches the file and what was being done to it; a lock held elsewhere is its own error.
pub(crate) fn at(path: &Path, doing: &'static str) -> impl Fn(rusqlite::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Error::InUse { path: path.clone() }
        }
        _ => Error::Journal {
            path: path.clone(),
            doing,
            source,
        },
    }
}
