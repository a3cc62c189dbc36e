use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint, a tokenizer or an adapter could not be read, used or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list of an architecture's modules that lacks one which its blocks have.
    #[error("the modules of a decoder layer lack `{path}`")]
    NoModule { path: String },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: key `{key}`: {problem}", path.display())]
    Config {
        path: PathBuf,
        key: String,
        problem: String,
    },
    #[error("{}: holds no model.safetensors and no model.safetensors.index.json", dir.display())]
    NoWeights { dir: PathBuf },
    #[error("{}: should hold {expected} bytes by its own header, but holds {actual}; copy or download it again", path.display())]
    WeightsSize {
        path: PathBuf,
        expected: u64,
        actual: u64,
    },
    #[error("{}: not a safetensors file: {problem}", path.display())]
    WeightsHeader { path: PathBuf, problem: String },
    #[error("{}: tensor `{name}` is missing", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error("{}: tensor `lm_head.weight` is missing; set `tie_word_embeddings` to true in config.json if the head is the embedding, or get the file with the head", path.display())]
    NoHead { path: PathBuf },
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        path: PathBuf,
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    #[error("{}: tensor `{name}` holds {found}; readable are F64, F32, F16 and BF16", path.display())]
    TensorDtype {
        path: PathBuf,
        name: String,
        found: String,
    },
    #[error("{}: {problem}", path.display())]
    Tokenizer { path: PathBuf, problem: String },
    #[error("{}: no chat template; add chat_template.jinja to the folder, or a `chat_template` to its tokenizer_config.json", dir.display())]
    NoChatTemplate { dir: PathBuf },
    #[error("{}: chat template: {problem}", path.display())]
    ChatTemplate { path: PathBuf, problem: String },
    #[error("token id {id} is {left} in {}, but {right} in {}", left_dir.display(), right_dir.display())]
    TokenizersDiffer {
        id: u32,
        left: String,
        right: String,
        left_dir: PathBuf,
        right_dir: PathBuf,
    },
    #[error("messages must have a turn of role `assistant` to be trained on, but end with {0}")]
    NoCompletion(String),
    #[error("the answer has no thought; train.missing_thought = \"empty\" gives it an empty one")]
    NoThought,
    #[error(
        "the thought never ends, and the turn is not marked as cut off (finish_reason \"length\")"
    )]
    UnclosedThought,
    #[error("the turn calls `{0}`, and the chat template does not write calls")]
    CallNotRendered(String),
    #[error(
        "the answer has a thought, and the prompt ends with a thought that is over; take enable_thinking out of chat_template_kwargs"
    )]
    ClosedThought,
    #[error("`{key}` = {value}: {allowed}")]
    Setting {
        key: &'static str,
        value: String,
        allowed: String,
    },
    #[error("{}: adapter: {problem}", path.display())]
    Adapter { path: PathBuf, problem: String },
    #[error("`{module}`: {problem}")]
    Magnitude {
        module: String,
        problem: &'static str,
    },
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Attaches the path to an IO error: `File::open(path).map_err(io(path))?`.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// Reads a JSON file whole.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let bytes = std::fs::read(path).map_err(io(path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        source,
    })
}

/// Like [`read_json`], but a file that is not there is `None`.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<serde_json::Value>> {
    match read_json(path) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
