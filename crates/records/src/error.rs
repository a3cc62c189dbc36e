use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a record could not be read or written. Every variant names its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: not a whole Parquet file ({source}); remove it and run the stage that wrote it again", path.display())]
    Parquet {
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
    #[error("{}: cannot be written as Parquet: {source}", path.display())]
    ParquetWrite {
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
    #[error("cannot build a record batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("column `{column}` is missing; the columns are {present}")]
    MissingColumn { column: String, present: String },
    #[error("column `{column}` holds {found}, expected {expected}")]
    ColumnType {
        column: String,
        found: String,
        expected: &'static str,
    },
    /// The row is from 1, where it is known.
    #[error("{}column `{column}` holds a null", row.map(|row| format!("row {row}: ")).unwrap_or_default())]
    NullValue { column: String, row: Option<u64> },
    #[error("a batch has fewer rows than it says")]
    NoRow,
    #[error("{}: {source}", path.display())]
    InFile { path: PathBuf, source: Box<Error> },
    /// Says the line itself.
    #[error("{}: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("{}:{line}: {source}", path.display())]
    Json {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
    },
    #[error("{}:{row}: {problem}", path.display())]
    Row {
        path: PathBuf,
        row: u64,
        problem: String,
    },
    #[error("{}:{line}: no field `{field}`; the fields are {present}", path.display())]
    MissingField {
        path: PathBuf,
        line: u64,
        field: String,
        present: String,
    },
    #[error("{}:{line}: field `{field}` is neither text nor a number, nor a list of them", path.display())]
    FieldType {
        path: PathBuf,
        line: u64,
        field: String,
    },
    #[error("{}: files of this kind are not read; the endings are .{}", path.display(), endings.join(", ."))]
    FileKind {
        path: PathBuf,
        endings: &'static [&'static str],
    },
    #[error("{pattern}: {problem}")]
    Pattern { pattern: String, problem: String },
    #[error("no file matches {0:?}")]
    NoMatch(String),
    #[error("{}: the folder's manifest does not list this part; remove it, or import it as traces of its own", .0.display())]
    StrayPart(PathBuf),
    /// A row's list of turns is none, and why.
    #[error("{0}")]
    Conversation(String),
    #[error("top-k entries: {0}")]
    TopK(String),
    #[error(
        "benchmark `{0}` is not known; known are {1}, or give a table {{ name, source, problem, answer }}, whose source is a file, a URL or hf://datasets/ORG/NAME@REVISION/FILE"
    )]
    UnknownBenchmark(String, String),
}

impl Error {
    /// Says which file an error about rows or columns came from.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Error::Arrow(_)
            | Error::MissingColumn { .. }
            | Error::ColumnType { .. }
            | Error::NullValue { .. }
            | Error::Conversation(_)
            | Error::TopK(_) => Error::InFile {
                path: path.to_path_buf(),
                source: Box::new(self),
            },
            other => other,
        }
    }
}

/// Attaches the path to an IO error: `file.sync_all().map_err(io(path))?`.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
