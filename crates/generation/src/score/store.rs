//! SQLite; every score, durable as received.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Float32Type;
use records::column::{self, Columns};
use records::hash::FileStamp;
use records::trace;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::database::{at, close_database, open_database, vacuum};
use crate::error::{Error, Result};
use crate::journal::payload;
use crate::key::SamplingKey;
use crate::teacher::{ScoreOutcome, Scored};

pub const FILE_NAME: &str = "scores.sqlite";

/// Version of the tables below and of the payloads in them.
const FORMAT: &str = "1";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (
    number INTEGER PRIMARY KEY,
    stamp TEXT NOT NULL,        -- of the input, JSON
    rows INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER               -- of the Parquet file; null until it has its name
);
CREATE TABLE IF NOT EXISTS score (
    part INTEGER NOT NULL REFERENCES part (number),
    key TEXT NOT NULL,          -- of the token ids
    n_tokens INTEGER NOT NULL,
    payload BLOB,               -- Arrow IPC
    error TEXT,
    failure TEXT,               -- kind
    PRIMARY KEY (part, key)
);
";

/// An input and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u32,
    pub input: FileStamp,
    pub rows: u64,
    /// Rows with an error.
    pub failed: u64,
    pub tokens: u64,
    /// Size of the part's file, once it has its name.
    pub bytes: Option<u64>,
}

/// A score on its way into the store.
pub struct Finished {
    pub key: String,
    pub part: u32,
    /// Tokens that were read for it and paid for.
    pub input_tokens: u32,
    pub n_tokens: u32,
    pub score: ScoreOutcome,
}

/// The scores of one folder, held exclusively until it is closed or dropped.
pub struct Store {
    path: PathBuf,
    db: Connection,
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self> {
        let (path, db) = open_database(dir, FILE_NAME, TABLES)?;
        let store = Self { path, db };
        match store.meta("format")? {
            None => store.set_meta("format", FORMAT)?,
            Some(found) if found == FORMAT => {}
            Some(found) => {
                return Err(Error::JournalFormat {
                    path: store.path,
                    found,
                    expected: 1,
                });
            }
        }
        Ok(store)
    }

    fn meta(&self, key: &str) -> Result<Option<String>> {
        self.db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(at(&self.path, "read scores"))
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        self.db
            .execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value])
            .map(drop)
            .map_err(at(&self.path, "write"))
    }

    /// What the scores of this folder were asked with; `None` in a fresh one.
    pub fn key(&self) -> Result<Option<SamplingKey>> {
        let text = self.meta("scoring_key")?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| self.unreadable(format!("the scoring key: {error}")))
    }

    /// Tokens that were read for all scores.
    pub fn input_tokens(&self) -> Result<u64> {
        let text = self.meta("input_tokens")?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// The teacher's files as they were hashed last, so that the next start need not hash them again.
    pub fn teacher_files(&self) -> Result<Vec<FileStamp>> {
        let text = self.meta("teacher_files")?;
        Ok(text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default())
    }

    pub fn set_teacher_files(&self, files: &[FileStamp]) -> Result<()> {
        let text = serde_json::to_string(files).unwrap_or_default();
        self.set_meta("teacher_files", &text)
    }

    pub fn set_key(&self, key: &SamplingKey) -> Result<()> {
        self.set_meta(
            "scoring_key",
            &serde_json::Value::Object(key.clone()).to_string(),
        )
    }

    fn unreadable(&self, problem: String) -> Error {
        Error::Payload {
            path: self.path.clone(),
            problem,
        }
    }

    pub fn parts(&self) -> Result<Vec<Part>> {
        let failed = at(&self.path, "read scores");
        let sql = "SELECT number, stamp, rows, failed, tokens, bytes FROM part ORDER BY number";
        let mut statement = self.db.prepare(sql).map_err(&failed)?;
        let rows = statement.query_map([], |row| {
            let count = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
            let bytes = row.get::<_, Option<i64>>(5)?.map(|bytes| bytes as u64);
            let numbers = [count(2)?, count(3)?, count(4)?];
            Ok((row.get(0)?, row.get::<_, String>(1)?, numbers, bytes))
        });
        rows.map_err(&failed)?
            .map(|row| {
                let (number, stamp, [rows, n_failed, tokens], bytes) = row.map_err(&failed)?;
                let input = serde_json::from_str(&stamp)
                    .map_err(|error| self.unreadable(format!("an input's stamp: {error}")))?;
                Ok(Part {
                    number,
                    input,
                    rows,
                    failed: n_failed,
                    tokens,
                    bytes,
                })
            })
            .collect()
    }

    /// Gives an input a part: `known`, or a new one.
    pub fn assign(&mut self, known: Option<u32>, input: &FileStamp) -> Result<u32> {
        let stamp =
            serde_json::to_string(input).map_err(|error| self.unreadable(error.to_string()))?;
        self.db
            .query_row(
                "INSERT INTO part (number, stamp)
                 VALUES (coalesce(?1, (SELECT coalesce(max(number) + 1, 0) FROM part)), ?2)
                 ON CONFLICT (number) DO UPDATE SET stamp = excluded.stamp RETURNING number",
                params![known, stamp],
                |row| row.get(0),
            )
            .map_err(at(&self.path, "plan parts"))
    }

    /// Opens a part again, to be written anew.
    pub fn reopen(&mut self, number: u32) -> Result<()> {
        self.db
            .execute("UPDATE part SET bytes = NULL WHERE number = ?1", [number])
            .map(drop)
            .map_err(at(&self.path, "reopen a part"))
    }

    /// The completions of a part that have a score or an error.
    pub fn keys(&self, part: u32) -> Result<HashSet<String>> {
        let failed = at(&self.path, "read scores");
        let sql = "SELECT key FROM score WHERE part = ?1";
        let mut statement = self.db.prepare(sql).map_err(&failed)?;
        let rows = statement.query_map([part], |row| row.get(0));
        rows.map_err(&failed)?
            .collect::<rusqlite::Result<_>>()
            .map_err(&failed)
    }

    /// The score of a completion, or why it has none; `None` where it was not asked for.
    pub fn get(&self, part: u32, key: &str) -> Result<Option<std::result::Result<Scored, String>>> {
        let failed = at(&self.path, "read scores");
        let mut find = self
            .db
            .prepare_cached("SELECT payload, error FROM score WHERE part = ?1 AND key = ?2")
            .map_err(&failed)?;
        let found: Option<(Option<Vec<u8>>, Option<String>)> = find
            .query_row(params![part, key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(&failed)?;
        match found {
            None => Ok(None),
            Some((Some(payload), _)) => decode(&payload)
                .map(|scored| Some(Ok(scored)))
                .map_err(|problem| self.unreadable(problem)),
            Some((None, error)) => Ok(Some(Err(error.unwrap_or_default()))),
        }
    }

    /// Makes scores durable, all in one transaction.
    pub fn commit(&mut self, finished: &[Finished]) -> Result<()> {
        let path = self.path.clone();
        let payloads = finished
            .iter()
            .map(|row| row.score.as_ref().ok().map(encode).transpose())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|problem| self.unreadable(problem))?;
        let mut commit = || -> rusqlite::Result<()> {
            let transaction = self
                .db
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO score (part, key, n_tokens, payload, error, failure)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                for (row, payload) in finished.iter().zip(&payloads) {
                    let failure = row.score.as_ref().err();
                    insert.execute(params![
                        row.part,
                        row.key,
                        row.n_tokens,
                        payload,
                        failure.map(|failure| &failure.message),
                        failure.map(|failure| failure.kind.as_str()),
                    ])?;
                }
            }
            let paid: u64 = finished.iter().map(|row| u64::from(row.input_tokens)).sum();
            transaction.execute(
                "INSERT INTO meta VALUES ('input_tokens', ?1) ON CONFLICT (key) DO UPDATE
                 SET value = CAST(value AS INTEGER) + CAST(excluded.value AS INTEGER)",
                [paid.to_string()],
            )?;
            transaction.commit()
        };
        commit().map_err(at(&path, "keep scores"))
    }

    /// Completions scored, failed, and the tokens of both, of a part that is not written yet.
    pub fn counts(&self, part: u32) -> Result<[u64; 3]> {
        self.db
            .query_row(
                "SELECT coalesce(sum(error IS NULL), 0), coalesce(sum(error IS NOT NULL), 0),
                 coalesce(sum(n_tokens), 0) FROM score WHERE part = ?1",
                [part],
                |row| {
                    let count = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
                    Ok([count(0)?, count(1)?, count(2)?])
                },
            )
            .map_err(at(&self.path, "read scores"))
    }

    /// The parts that have their names and failed completions of some of these kinds.
    pub fn failed_parts(&self, kinds: &[&str]) -> Result<Vec<u32>> {
        let failed = at(&self.path, "read scores");
        let list: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        let sql = format!(
            "SELECT DISTINCT number FROM part JOIN score ON part = number
             WHERE bytes IS NOT NULL AND failure IN ({})",
            list.join(", ")
        );
        let mut statement = self.db.prepare(&sql).map_err(&failed)?;
        let rows = statement.query_map([], |row| row.get(0));
        rows.map_err(&failed)?
            .collect::<rusqlite::Result<_>>()
            .map_err(&failed)
    }

    /// Lets failed completions of a kind be asked for again.
    pub fn ask_again(&mut self, kind: &str) -> Result<()> {
        self.db
            .execute("DELETE FROM score WHERE failure = ?1", [kind])
            .map(drop)
            .map_err(at(&self.path, "ask again"))
    }

    /// Notes that a part has its name, and gives up the payloads that it holds, with the failures that it no longer has.
    pub fn seal(&mut self, part: &Part, failed: &HashSet<String>) -> Result<()> {
        let path = self.path.clone();
        let mut seal = || -> rusqlite::Result<()> {
            let transaction = self
                .db
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "UPDATE part SET rows = ?2, failed = ?3, tokens = ?4, bytes = ?5 WHERE number = ?1",
                params![
                    part.number,
                    part.rows as i64,
                    part.failed as i64,
                    part.tokens as i64,
                    part.bytes.map(|bytes| bytes as i64)
                ],
            )?;
            // What failed is kept: a later start may ask for it again.
            transaction.execute(
                "DELETE FROM score WHERE part = ?1 AND error IS NULL",
                [part.number],
            )?;
            {
                let mut find = transaction.prepare("SELECT key FROM score WHERE part = ?1")?;
                let left: Vec<String> = find
                    .query_map([part.number], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                let mut delete =
                    transaction.prepare("DELETE FROM score WHERE part = ?1 AND key = ?2")?;
                for key in left.iter().filter(|key| !failed.contains(*key)) {
                    delete.execute(params![part.number, key])?;
                }
            }
            transaction.commit()?;
            vacuum(&self.db)
        };
        seal().map_err(at(&path, "seal a part"))
    }

    /// Failed completions by kind.
    pub fn failures(&self) -> Result<Vec<(String, u64)>> {
        let failed = at(&self.path, "read scores");
        let sql =
            "SELECT failure, count(*) FROM score WHERE failure IS NOT NULL GROUP BY 1 ORDER BY 1";
        let mut statement = self.db.prepare(sql).map_err(&failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
        rows.map_err(&failed)?
            .collect::<rusqlite::Result<_>>()
            .map_err(&failed)
    }

    /// Folds the log into the one file that stays behind.
    pub fn close(self) -> Result<()> {
        close_database(&self.path, self.db)
    }
}

fn encode(scored: &Scored) -> std::result::Result<Vec<u8>, String> {
    let row = std::iter::once(Some(scored));
    let [k, ids, logprobs, tails, counts] =
        trace::top_k_columns(row.clone().map(|row| row.and_then(|row| row.top.as_ref())));
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "token_logprobs",
            column::lists::<Float32Type>(
                row.clone()
                    .map(|row| row.map(|row| row.token_logprobs.as_slice())),
            ),
        ),
        ("top_k", k),
        ("top_ids", ids),
        ("top_logprobs", logprobs),
        ("tail_logprobs", tails),
        ("top_counts", counts),
        (
            "logprob_space",
            column::strings(row.map(|row| row.map(|row| row.logprob_space.as_str()))),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    payload::encode_batch(&batch.map_err(|error| error.to_string())?)
}

fn decode(bytes: &[u8]) -> std::result::Result<Scored, String> {
    let batch = payload::decode(bytes)?;
    let columns = Columns(&batch);
    let read = || -> records::Result<Option<Scored>> {
        let logprobs = columns.optional_lists::<Float32Type>("token_logprobs")?;
        let space = columns.optional_strings("logprob_space")?;
        let top = trace::read_top_k(&columns)?.pop().flatten();
        let logprobs = logprobs.into_iter().next().flatten();
        Ok(logprobs.zip(space.into_iter().next().flatten()).map(
            |(token_logprobs, logprob_space)| Scored {
                token_logprobs,
                top,
                logprob_space,
            },
        ))
    };
    read()
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "a kept score is empty".to_owned())
}
