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
    #[error(
        "{n} of {rows} rows read cannot be trained on, and train.max_bad_rows allows fewer:{}",
        list(first)
    )]
    BadRows {
        n: u64,
        rows: u64,
        /// At most ten, each with its problem.
        first: Vec<(records::Place, String)>,
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
    #[error("{}: this checkpoint cannot be read: {source}. Nothing was changed: start again when the disk gives it, or move its folder away to go on from the one before", path.display())]
    CheckpointUnreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{line}: not a line of metrics ({source}); mend or remove the line, or move the file away, and start again", path.display())]
    Metrics {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
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
    #[error(
        "the GPU has no memory left. Lower `train.micro_batch_tokens`, set \
         `train.activation_checkpointing = true` and `train.precision = \"bf16\"`, or lower `train.max_length`"
    )]
    GpuMemory { source: candle_core::Error },
    #[error("a training thread ended without a result")]
    Thread,
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Model(model::Error),
    #[error(transparent)]
    Tensor(candle_core::Error),
}

fn list(rows: &[(records::Place, String)]) -> String {
    let lines = rows.iter();
    lines
        .map(|(place, problem)| format!("\n  {place}: {problem}"))
        .collect()
}

impl From<candle_core::Error> for Error {
    fn from(source: candle_core::Error) -> Self {
        if ops::device::is_out_of_memory(&source) {
            Error::GpuMemory { source }
        } else {
            Error::Tensor(source)
        }
    }
}

impl From<model::Error> for Error {
    fn from(error: model::Error) -> Self {
        match error {
            model::Error::Candle(source) => source.into(),
            error => Error::Model(error),
        }
    }
}

/// Attaches the path to an IO error: `file.sync_all().map_err(io(path))?`.
pub(crate) fn io(path: &std::path::Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
