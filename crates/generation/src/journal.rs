//! SQLite; every request and every completion, durable as received.
//!
//! Write-ahead logging with `synchronous=FULL`: what [`Journal::commit`] took survives a power
//! cut. Locking is exclusive, so a second process is refused, no shared-memory file is mapped
//! (a full disk would end the process with SIGBUS), and network file systems work.

mod failed;
pub(crate) mod payload;

use std::ops::Deref;
use std::path::Path;

use records::hash::FileStamp;
use records::trace::Trace;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::database::{Database, LOST, at, count, count_input};
use crate::error::Result;
use crate::key::SamplingKey;

pub const FILE_NAME: &str = "journal.sqlite";

/// Version of the tables below and of the payloads in them.
const FORMAT: u32 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS part (
    number INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    bytes INTEGER,              -- of the Parquet file; null until it has its name
    sealed INTEGER NOT NULL     -- 1 once its payloads are gone from here
);
CREATE TABLE IF NOT EXISTS request (
    prompt_id TEXT NOT NULL,
    sample_index INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    seed INTEGER NOT NULL,      -- the u64's bits
    attempts INTEGER NOT NULL DEFAULT 0,
    failure TEXT,               -- kind
    error TEXT,
    n_tokens INTEGER NOT NULL DEFAULT 0,
    part INTEGER REFERENCES part (number),
    PRIMARY KEY (prompt_id, sample_index)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS completion (
    id INTEGER PRIMARY KEY,
    prompt_id TEXT NOT NULL,
    sample_index INTEGER NOT NULL,
    payload BLOB NOT NULL,      -- one trace row, Arrow IPC
    UNIQUE (prompt_id, sample_index)
);
";

/// A trace on its way into the journal.
#[derive(Debug, Clone)]
pub struct Finished {
    pub trace: Trace,
    /// The kind of failure; `None` for a completion.
    pub failure: Option<&'static str>,
    /// Prompt tokens that were paid for.
    pub input_tokens: u32,
    /// Completion tokens that were paid for: an estimate where nobody counts.
    pub output_tokens: u32,
}

/// Which finished rows a part is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Done,
    /// These keep their payloads here: a later start may ask for them again, and write the others anew.
    Failed,
}

impl Rows {
    fn state(self) -> &'static str {
        match self {
            Rows::Done => "done",
            Rows::Failed => "failed",
        }
    }
}

/// What the rows of a folder add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub done: u64,
    pub failed: u64,
    pub tokens: u64,
}

/// A part of the sealed traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u32,
    pub rows: u64,
    /// Size of the Parquet file, once it has its name.
    pub bytes: Option<u64>,
    pub sealed: bool,
}

/// What a traces folder was begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub key: SamplingKey,
    pub teacher_files: Vec<FileStamp>,
}

/// What the folder was begun with; `None` when it holds no traces. A journal that was closed is
/// only read, one that a kill left open is recovered.
pub fn saved(dir: &Path) -> Result<Option<Saved>> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(None);
    }
    // `-journal`: killed while the file was made, before the write-ahead log took over.
    let left_open = ["wal", "journal"].map(|end| dir.join(format!("{FILE_NAME}-{end}")));
    if left_open.iter().any(|path| path.exists()) {
        let journal = Journal::open(dir)?;
        let saved = journal.saved();
        journal.close()?;
        return saved;
    }
    let failed = at(&path, "read the journal");
    let db =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(&failed)?;
    db.busy_timeout(std::time::Duration::ZERO)
        .map_err(&failed)?;
    let begun: bool = db
        .query_row(
            "SELECT count(*) FROM sqlite_master WHERE name = 'meta'",
            [],
            |row| row.get(0),
        )
        .map_err(&failed)?;
    if !begun {
        return Ok(None);
    }
    let database = Database::reader(path, db);
    Journal { database }.saved()
}

/// The journal of one traces folder, held exclusively until it is closed or dropped.
pub struct Journal {
    database: Database,
}

impl Deref for Journal {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl Journal {
    /// Opens or creates the journal of a traces folder.
    pub fn open(dir: &Path) -> Result<Self> {
        let database = Database::open(dir, FILE_NAME, TABLES, FORMAT)?;
        Ok(Self { database })
    }

    fn saved(&self) -> Result<Option<Saved>> {
        let Some(key) = self.key()? else {
            return Ok(None);
        };
        Ok(Some(Saved {
            key,
            teacher_files: self.teacher_files()?,
        }))
    }

    /// Writes a pending row for each request that has none, in one transaction, and returns
    /// those that wait for an answer, in the order given.
    pub fn plan<'a, T: Copy>(
        &mut self,
        requests: impl Iterator<Item = (T, &'a str, u32, u64)>,
    ) -> Result<Vec<T>> {
        self.database.write("plan requests", |transaction| {
            let mut waiting = Vec::new();
            {
                let mut find = transaction.prepare(
                    "SELECT state FROM request WHERE prompt_id = ?1 AND sample_index = ?2",
                )?;
                let mut insert = transaction.prepare(
                    "INSERT INTO request (prompt_id, sample_index, state, seed) VALUES (?1, ?2, 'pending', ?3)",
                )?;
                for (handle, prompt_id, sample_index, seed) in requests {
                    let state: Option<String> = find
                        .query_row(params![prompt_id, sample_index], |row| row.get(0))
                        .optional()?;
                    match state.as_deref() {
                        None => {
                            insert.execute(params![prompt_id, sample_index, seed as i64])?;
                            waiting.push(handle);
                        }
                        Some("pending") => waiting.push(handle),
                        Some(_) => {}
                    }
                }
            }
            Ok(waiting)
        })
    }

    /// Makes finished rows durable, all in one transaction; returns their payload bytes.
    pub fn commit(&mut self, finished: &[Finished]) -> Result<u64> {
        let input_tokens: u64 = finished.iter().map(|row| u64::from(row.input_tokens)).sum();
        let payloads = finished
            .iter()
            .map(|row| payload::encode(&row.trace))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|problem| self.unreadable(problem))?;
        self.database.write("keep completions", |transaction| {
            {
                let mut update = transaction.prepare_cached(
                    "UPDATE request SET state = ?3, failure = ?4, error = ?5, n_tokens = ?6,
                     attempts = attempts + 1 WHERE prompt_id = ?1 AND sample_index = ?2",
                )?;
                let mut insert = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO completion (prompt_id, sample_index, payload) VALUES (?1, ?2, ?3)",
                )?;
                for (row, payload) in finished.iter().zip(&payloads) {
                    let trace = &row.trace;
                    let state = if row.failure.is_some() {
                        "failed"
                    } else {
                        "done"
                    };
                    update.execute(params![
                        trace.prompt_id,
                        trace.sample_index,
                        state,
                        row.failure,
                        trace.error,
                        row.output_tokens
                    ])?;
                    insert.execute(params![trace.prompt_id, trace.sample_index, payload])?;
                }
            }
            count_input(transaction, input_tokens)
        })?;
        Ok(payloads.iter().map(|payload| payload.len() as u64).sum())
    }

    /// That what stands beside the rows is there, where there are rows: the settings that they were sampled with, and what
    /// was paid for them. Without the first, rows of another experiment would be added; without the second, a spending
    /// limit would begin anew.
    pub fn check_meta(&self) -> Result<()> {
        let counts = self.counts()?;
        let any: bool = self
            .connection()
            .query_row("SELECT EXISTS (SELECT 1 FROM request)", [], |row| {
                row.get(0)
            })
            .map_err(self.failed("read"))?;
        let needed = [("sampling_key", any), ("input_tokens", counts.done > 0)];
        for (key, needed) in needed {
            if needed && self.meta(key)?.is_none() {
                return Err(self.damaged(key, "is missing"));
            }
        }
        self.input_tokens()?;
        self.lost_tokens()?;
        self.teacher_files().map(drop)
    }

    /// Counts tokens that were paid for and came to nothing, of prompts and of completions.
    pub fn count_lost(&mut self, [input, output]: [u64; 2]) -> Result<()> {
        self.database.write("count tokens", |transaction| {
            count_input(transaction, input)?;
            count(transaction, LOST, output)
        })
    }

    /// Bytes of payload that a part of answered rows is to hold.
    pub fn payload_bytes(&self) -> Result<u64> {
        self.connection()
            .query_row(
                "SELECT coalesce(sum(length(payload)), 0) FROM completion JOIN request USING (prompt_id, sample_index)
                 WHERE state = 'done'",
                [],
                |row| row.get::<_, i64>(0),
            )
            .map(|bytes| bytes as u64)
            .map_err(self.failed("read"))
    }

    /// What the rows of this folder add up to, whether or not the recipe still asks for them.
    pub fn counts(&self) -> Result<Counts> {
        let sql = "SELECT coalesce(sum(state = 'done'), 0), coalesce(sum(state = 'failed'), 0),
                   coalesce(sum(n_tokens), 0) FROM request";
        self.connection()
            .query_row(sql, [], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
                Ok(Counts {
                    done: number(0)?,
                    failed: number(1)?,
                    tokens: number(2)?,
                })
            })
            .map_err(self.failed("read"))
    }

    /// Failed rows by kind.
    pub fn failures(&self) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT coalesce(failure, 'unknown'), count(*) FROM request
                   WHERE state = 'failed' GROUP BY 1 ORDER BY 1";
        self.rows(sql, [], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
        })
    }

    pub fn parts(&self) -> Result<Vec<Part>> {
        self.rows(
            "SELECT number, rows, bytes, sealed FROM part ORDER BY number",
            [],
            |row| {
                Ok(Part {
                    number: row.get(0)?,
                    rows: row.get::<_, i64>(1)? as u64,
                    bytes: row.get::<_, Option<i64>>(2)?.map(|bytes| bytes as u64),
                    sealed: row.get(3)?,
                })
            },
        )
    }

    /// Gives the next part its number and its rows: those that no part has, in order,
    /// up to `max_bytes` of payload and at least one. `None` when none are left.
    pub fn assign_part(&mut self, max_bytes: u64, rows: Rows) -> Result<Option<Part>> {
        let state = rows.state();
        self.database.write("assign a part", |transaction| {
            let number: u32 = transaction.query_row(
                "SELECT coalesce(max(number) + 1, 0) FROM part",
                [],
                |row| row.get(0),
            )?;
            let mut chosen: Vec<(String, u32)> = Vec::new();
            {
                let mut find = transaction.prepare(
                    "SELECT c.prompt_id, c.sample_index, length(c.payload) FROM completion c
                     JOIN request r USING (prompt_id, sample_index)
                     WHERE r.part IS NULL AND r.state = ?1 ORDER BY 1, 2",
                )?;
                let mut rows = find.query([state])?;
                let mut bytes = 0;
                while let Some(row) = rows.next()? {
                    let size = row.get::<_, i64>(2)? as u64;
                    if !chosen.is_empty() && bytes + size > max_bytes {
                        break;
                    }
                    bytes += size;
                    chosen.push((row.get(0)?, row.get(1)?));
                }
            }
            if chosen.is_empty() {
                return Ok(None);
            }
            let n_rows = chosen.len() as u64;
            transaction.execute(
                "INSERT INTO part VALUES (?1, ?2, NULL, 0)",
                params![number, n_rows as i64],
            )?;
            {
                let mut update = transaction.prepare(
                    "UPDATE request SET part = ?1 WHERE prompt_id = ?2 AND sample_index = ?3",
                )?;
                for (prompt_id, sample_index) in &chosen {
                    update.execute(params![number, prompt_id, sample_index])?;
                }
            }
            Ok(Some(Part {
                number,
                rows: n_rows,
                bytes: None,
                sealed: false,
            }))
        })
    }

    /// The rows of a part that is not sealed yet, sorted by prompt and sample.
    pub fn part_rows(
        &self,
        number: u32,
        mut each: impl FnMut(arrow::array::RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let failed = self.failed("read completions");
        let mut find = self
            .connection()
            .prepare(
                "SELECT c.payload FROM request r JOIN completion c USING (prompt_id, sample_index)
                 WHERE r.part = ?1 ORDER BY r.prompt_id, r.sample_index",
            )
            .map_err(&failed)?;
        let mut rows = find.query([number]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let payload = row
                .get_ref(0)
                .and_then(|value| Ok(value.as_blob()?))
                .map_err(&failed)?;
            let batch = payload::decode(payload).map_err(|problem| self.unreadable(problem))?;
            each(batch)?;
        }
        Ok(())
    }

    /// Marks a part sealed and gives its payloads up, in one transaction, once its file of
    /// `bytes` has its name.
    pub fn seal_part(&mut self, number: u32, bytes: u64) -> Result<()> {
        self.database.write("seal a part", |transaction| {
            transaction.execute(
                "UPDATE part SET sealed = 1, bytes = ?2 WHERE number = ?1",
                params![number, bytes as i64],
            )?;
            transaction.execute(
                "DELETE FROM completion WHERE (prompt_id, sample_index) IN
                 (SELECT prompt_id, sample_index FROM request WHERE part = ?1 AND state = 'done')",
                [number],
            )?;
            Ok(())
        })?;
        self.vacuum("seal a part")
    }

    /// Folds the log into the one file that stays behind.
    pub fn close(self) -> Result<()> {
        self.database.close()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_journal_killed_while_it_was_made_is_recovered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("whole.sqlite");
        let db = Connection::open(&path).unwrap();
        // A transaction larger than the cache reaches the file before it ends, its rollback journal first.
        db.execute_batch(
            "PRAGMA cache_size = 1; CREATE TABLE t (x); BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO t SELECT zeroblob(4000) FROM n;",
        )
        .unwrap();
        let killed = dir.path().join("killed");
        std::fs::create_dir(&killed).unwrap();
        for end in ["", "-journal"] {
            let from = dir.path().join(format!("whole.sqlite{end}"));
            std::fs::copy(from, killed.join(format!("{FILE_NAME}{end}"))).unwrap();
        }
        let reader =
            Connection::open_with_flags(killed.join(FILE_NAME), OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap();
        let read = reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert!(read.is_err(), "only a writer may roll back");
        drop(reader);
        assert_eq!(saved(&killed).unwrap(), None);
        assert!(!killed.join(format!("{FILE_NAME}-journal")).exists());
    }

    #[test]
    fn a_journal_killed_as_its_log_took_over_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x);")
            .unwrap();
        drop(db);
        // The file says WAL, and no log is there yet.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(saved(dir.path()).unwrap(), None);
        Journal::open(dir.path()).unwrap().close().unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [FILE_NAME]);
    }
}
