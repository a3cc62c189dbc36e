//! SQLite; every score, durable as received.

use std::collections::HashSet;
use std::ops::Deref;
use std::path::Path;

use arrow::array::RecordBatch;
use records::column::Columns;
use records::hash::FileStamp;
use rusqlite::{OptionalExtension, params};

use super::columns;
use crate::database::{Database, count_input};
use crate::error::Result;
use crate::journal::payload;
use crate::teacher::{ScoreOutcome, Scored};

pub const FILE_NAME: &str = "scores.sqlite";

/// Version of the tables below and of the payloads in them.
const FORMAT: u32 = 1;

const TABLES: &str = "
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
    database: Database,
}

impl Deref for Store {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self> {
        let database = Database::open(dir, FILE_NAME, TABLES, FORMAT)?;
        Ok(Self { database })
    }

    pub fn parts(&self) -> Result<Vec<Part>> {
        let sql = "SELECT number, stamp, rows, failed, tokens, bytes FROM part ORDER BY number";
        let rows: Vec<_> = self.rows(sql, [], |row| {
            let count = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
            let bytes = row.get::<_, Option<i64>>(5)?.map(|bytes| bytes as u64);
            let numbers = [count(2)?, count(3)?, count(4)?];
            Ok((row.get(0)?, row.get::<_, String>(1)?, numbers, bytes))
        })?;
        rows.into_iter()
            .map(|(number, stamp, [rows, failed, tokens], bytes)| {
                let input = serde_json::from_str(&stamp)
                    .map_err(|error| self.unreadable(format!("an input's stamp: {error}")))?;
                Ok(Part {
                    number,
                    input,
                    rows,
                    failed,
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
        self.connection()
            .query_row(
                "INSERT INTO part (number, stamp)
                 VALUES (coalesce(?1, (SELECT coalesce(max(number) + 1, 0) FROM part)), ?2)
                 ON CONFLICT (number) DO UPDATE SET stamp = excluded.stamp RETURNING number",
                params![known, stamp],
                |row| row.get(0),
            )
            .map_err(self.failed("plan parts"))
    }

    /// Opens a part again, to be written anew.
    pub fn reopen(&mut self, number: u32) -> Result<()> {
        let sql = "UPDATE part SET bytes = NULL WHERE number = ?1";
        self.execute("reopen a part", sql, [number])
    }

    /// The completions of a part that have a score or an error.
    pub fn keys(&self, part: u32) -> Result<HashSet<String>> {
        let sql = "SELECT key FROM score WHERE part = ?1";
        self.rows(sql, [part], |row| row.get(0))
    }

    /// The score of a completion, or why it has none; `None` where it was not asked for.
    pub fn get(&self, part: u32, key: &str) -> Result<Option<std::result::Result<Scored, String>>> {
        let failed = self.failed("read scores");
        let mut find = self
            .connection()
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
        let payloads = finished
            .iter()
            .map(|row| row.score.as_ref().ok().map(encode).transpose())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|problem| self.unreadable(problem))?;
        let paid = finished.iter().map(|row| u64::from(row.input_tokens)).sum();
        self.database.write("keep scores", |transaction| {
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
            count_input(transaction, paid)
        })
    }

    /// Completions scored, failed, and the tokens of both, of a part that is not written yet.
    pub fn counts(&self, part: u32) -> Result<[u64; 3]> {
        self.connection()
            .query_row(
                "SELECT coalesce(sum(error IS NULL), 0), coalesce(sum(error IS NOT NULL), 0),
                 coalesce(sum(n_tokens), 0) FROM score WHERE part = ?1",
                [part],
                |row| {
                    let count = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
                    Ok([count(0)?, count(1)?, count(2)?])
                },
            )
            .map_err(self.failed("read scores"))
    }

    /// The parts that have their names and failed completions of some of these kinds.
    pub fn failed_parts(&self, kinds: &[&str]) -> Result<Vec<u32>> {
        let list: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        let sql = format!(
            "SELECT DISTINCT number FROM part JOIN score ON part = number
             WHERE bytes IS NOT NULL AND failure IN ({})",
            list.join(", ")
        );
        self.rows(&sql, [], |row| row.get(0))
    }

    /// Lets failed completions of a kind be asked for again.
    pub fn ask_again(&mut self, kind: &str) -> Result<()> {
        let sql = "DELETE FROM score WHERE failure = ?1";
        self.execute("ask again", sql, [kind])
    }

    /// Notes that a part has its name, and gives up the payloads that it holds, with the failures that it no longer has.
    pub fn seal(&mut self, part: &Part, failed: &HashSet<String>) -> Result<()> {
        self.database.write("seal a part", |transaction| {
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
            Ok(())
        })?;
        self.vacuum("seal a part")
    }

    /// Failed completions by kind.
    pub fn failures(&self) -> Result<Vec<(String, u64)>> {
        let sql =
            "SELECT failure, count(*) FROM score WHERE failure IS NOT NULL GROUP BY 1 ORDER BY 1";
        self.rows(sql, [], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
        })
    }

    /// Folds the log into the one file that stays behind.
    pub fn close(self) -> Result<()> {
        self.database.close()
    }
}

fn encode(scored: &Scored) -> std::result::Result<Vec<u8>, String> {
    let columns = columns::columns(std::iter::once(Some(scored)));
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns);
    payload::encode_batch(&batch.map_err(|error| error.to_string())?)
}

fn decode(bytes: &[u8]) -> std::result::Result<Scored, String> {
    let batch = payload::decode(bytes)?;
    let mut scores = columns::read(&Columns(&batch)).map_err(|error| error.to_string())?;
    scores
        .pop()
        .flatten()
        .ok_or_else(|| "a kept score is empty".to_owned())
}
