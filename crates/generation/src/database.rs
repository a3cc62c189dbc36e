//! SQLite as the stages use it: one file, held by one process, durable at every commit.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::{Error, Result};

/// Opens or makes a database of a stage's folder, for this process alone.
pub(crate) fn open_database(dir: &Path, name: &str, tables: &str) -> Result<(PathBuf, Connection)> {
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
        db.execute_batch(&format!("BEGIN EXCLUSIVE; {tables} COMMIT;"))
    };
    set_up().map_err(at(&path, "open the journal"))?;
    // A reader of a journal that a kill left in WAL mode has made one. Nobody shares what is held exclusively,
    // and closing would not remove it.
    let _ = std::fs::remove_file(dir.join(format!("{name}-shm")));
    Ok((path, db))
}

/// Gives the pages of removed rows back.
pub(crate) fn vacuum(db: &Connection) -> rusqlite::Result<()> {
    // It yields a row per step; execute_batch would stop at the first page.
    let mut vacuum = db.prepare("PRAGMA incremental_vacuum")?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// Folds the log into the one file that stays behind.
pub(crate) fn close_database(path: &Path, db: Connection) -> Result<()> {
    let close = || -> rusqlite::Result<()> {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        db.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
    };
    close().map_err(at(path, "close the journal"))?;
    db.close()
        .map_err(|(_, source)| at(path, "close the journal")(source))
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
