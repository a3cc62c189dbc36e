use std::path::PathBuf;

/// Why training stopped. Messages are for the person who wrote the recipe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{key}`: {problem}")]
    Config { key: &'static str, problem: String },
    #[error("`{key}`: {pattern}: {problem}")]
    DataPattern {
        key: &'static str,
        pattern: String,
        problem: String,
    },
    #[error("{}, row {row}: {problem}", path.display())]
    Row {
        path: PathBuf,
        row: usize,
        problem: String,
    },
    #[error("{}: {problem}", path.display())]
    Tokenizer { path: PathBuf, problem: String },
    #[error("no example is left to train on: {read} rows read, {dropped}")]
    NoExamples { read: u64, dropped: String },
    #[error(
        "`{name}` received no gradient: it is trainable, but nothing it feeds reaches the loss"
    )]
    MissingGradient { name: String },
    #[error("step {step}: {what} is not finite; its batch is in {}. A lower `train.learning_rate` or a longer warm-up is the usual remedy", batch.display())]
    NotFinite {
        step: u64,
        what: String,
        batch: PathBuf,
    },
    #[error("the examples' temporary file in {}: {source}", folder.display())]
    Store {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("checkpoint: tensor `{name}` is missing or has another shape")]
    CheckpointTensor { name: String },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("a training thread ended without a result")]
    Thread,
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Attaches the path to an IO error: `file.sync_all().map_err(io(path))?`.
pub(crate) fn io(path: &std::path::Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
