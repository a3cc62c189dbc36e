use std::borrow::Cow;
use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why traces could not be sampled or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe asks for something that cannot be; found before anything is loaded.
    #[error("{key} {problem}; allowed: {allowed}")]
    Config {
        key: Cow<'static, str>,
        problem: String,
        allowed: String,
    },
    /// A set of traces that is to be imported is not as its format says, or cannot be read.
    #[error("{place}: {problem}")]
    TraceSet {
        /// A file, with its row where one is meant.
        place: String,
        problem: String,
    },
    #[error("prompts.source: {} holds no problem", source_name)]
    NoPrompts { source_name: String },
    /// Something about a file that was fetched, in the words for its copy.
    #[error("{url}: {source}")]
    Fetched { url: String, source: Box<Error> },
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: cannot {doing}: {source}{}", path.display(), remedy(source))]
    Journal {
        path: PathBuf,
        doing: &'static str,
        source: rusqlite::Error,
    },
    #[error("{}: another process is sampling into this folder; wait for it, or choose another --run-dir", path.display())]
    InUse { path: PathBuf },
    #[error("{}: written by another version (format {found}, this build reads {expected}); sample with that version, or choose another --run-dir", path.display())]
    JournalFormat {
        path: PathBuf,
        found: String,
        expected: u32,
    },
    #[error(
        "{}: these traces were sampled with other settings: {}; \
         another experiment needs another `name` or --run-dir",
        dir.display(), differences.join(", ")
    )]
    KeyChanged {
        dir: PathBuf,
        /// `key: old → new`.
        differences: Vec<String>,
    },
    #[error("{}: {problem}; restore it, or remove the folder to sample again", path.display())]
    Parts { path: PathBuf, problem: String },
    #[error("{}: {problem}", path.display())]
    Payload { path: PathBuf, problem: String },
    #[error("mistral.rs: {model}: {problem}")]
    MistralRs { model: String, problem: String },
    #[error(
        "a {backend} teacher of this kind cannot score completions; candle does, and the dialects vllm and sglang"
    )]
    CannotScore { backend: String },
    #[error("{}: has nothing to score: `prompt_token_ids` with `token_ids`, `messages`, or `prompt_messages` with `text`; it has {present}", path.display())]
    NothingToScore { path: PathBuf, present: String },
    #[error("{}: its token ids are of another tokenizer than the teacher's ({found} is not {expected})", path.display())]
    OtherTokenizer {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{url} will not have this key: {words}; nothing was sent to it")]
    Unauthorized { url: String, words: String },
    #[error(
        "{url} serves {served}, and no `{model}`; teacher.model is the name that it is served by"
    )]
    NotServed {
        url: String,
        model: String,
        served: String,
    },
    #[error("the HTTP client: {problem}")]
    Client { problem: String },
    #[error(
        "teacher.spending_limit: {spent:.4} of {limit} is spent; what is sampled is kept, a higher limit goes on from here"
    )]
    SpendingLimit { spent: f64, limit: f64 },
    /// The provider will not be paid.
    #[error("{url}: the account cannot pay for more: {words}; what is sampled is kept")]
    Account { url: String, words: String },
    /// Every endpoint has been given up, each for its own reason.
    #[error("no endpoint is left: {words}; what is sampled is kept")]
    NoEndpoint { words: String },
    /// The thread that keeps completions has ended; its own error says why.
    #[error("completions can no longer be kept")]
    WriterGone,
}

fn remedy(source: &rusqlite::Error) -> &'static str {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure) => {
            "; make room on the disk, then run the same command again: what is kept so far is not lost"
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            "; restore it, or remove the folder to sample again"
        }
        _ => "",
    }
}
