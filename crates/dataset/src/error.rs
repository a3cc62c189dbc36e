use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// Why a dataset could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe asks for something that cannot be; found before any trace is read.
    #[error("{key}: {message}; allowed: {allowed}")]
    Config {
        /// `dataset.…`
        key: &'static str,
        message: String,
        allowed: String,
    },
    #[error("{}: no traces to build a dataset from; run gen-traces first", dir.display())]
    NoTraces { dir: PathBuf },
    /// The parts were sampled with different tokenizers: their ids do not mean the same.
    #[error(
        "{} has the tokenizer {found}, {} has {expected}; \
         build a dataset of each, or sample again with one teacher",
        path.display(), other.display()
    )]
    Tokenizers {
        path: PathBuf,
        found: String,
        other: PathBuf,
        expected: String,
    },
    #[error("{}: {message}", path.display())]
    Tokenizer { path: PathBuf, message: String },
    #[error("{}: has fewer rows than when it was annotated; build the dataset again", path.display())]
    ShortPart { path: PathBuf },
    #[error("more than 4,294,967,295 traces; build a dataset of each half")]
    TooManyRows,
    #[error("trace {trace_id} is in {} and in {}; remove one of the two parts", first.display(), second.display())]
    RepeatedTrace {
        trace_id: String,
        first: PathBuf,
        second: PathBuf,
    },
    #[error("none of the {n_traces} traces became an example: {}; see dataset.filter", reasons.join(", "))]
    AllRejected {
        n_traces: u64,
        /// `COUNT × REASON`, the most frequent first.
        reasons: Vec<String>,
    },
    #[error("{n_in} traces were read and {n_out} accounted for; a part changed while it was read")]
    Unaccounted { n_in: u64, n_out: u64 },
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("counting a completion's tokens: {0}")]
    Tokens(String),
    #[error("annotating the traces: {0}")]
    Query(#[from] Box<datafusion_common::DataFusionError>),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn config(
        key: &'static str,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Error::Config {
            key,
            message: message.into(),
            allowed: allowed.into(),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::Records(error.into())
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    fn from(error: datafusion_common::DataFusionError) -> Self {
        Error::Query(Box::new(error))
    }
}

/// Attaches the path to an IO error: `std::fs::rename(a, b).map_err(io(b))?`.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
