use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// Why an evaluation cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{key} {problem}; allowed: {allowed}")]
    Config {
        key: &'static str,
        problem: String,
        allowed: &'static str,
    },
    /// About a key of `[eval]` that every section has that samples.
    #[error(transparent)]
    Section(generation::Error),
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("sampling from the {role}: {source}")]
    Sampling {
        role: String,
        source: Box<generation::Error>,
    },
    #[error(
        "{n_exhausted} questions to the {role} met faults until the attempts were used up, and the others are kept; the last fault: {fault}; start again to ask for them"
    )]
    Exhausted {
        role: String,
        n_exhausted: u64,
        fault: String,
    },
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
        "benchmark `{name}` lies at {url} and was not fetched; a file that is here is named as {{ name = \"{name}\", source = \"FILE\" }}"
    )]
    RemoteBenchmark { name: String, url: String },
    #[error("benchmark `{name}`: {source_file} holds no problems")]
    NoQuestions { name: String, source_file: String },
    #[error(
        "benchmark `{name}`: the answer {gold:?} of the problem {problem:?} cannot be read; correct or remove the row, or name another answer column"
    )]
    GoldUnreadable {
        name: String,
        problem: String,
        gold: String,
    },
    #[error(
        "the problem {problem:?} stands in {} and in {}, which are asked in different words; evaluate them apart, or set eval.template",
        benchmarks[0], benchmarks[1]
    )]
    AskedTwice {
        problem: String,
        benchmarks: [String; 2],
    },
    #[error("the {role}'s checkpoint folder {} holds no model files", dir.display())]
    NoModelFiles { role: String, dir: PathBuf },
    #[error("{}: the scores have no model `{role}`; they have {present}", scores.display())]
    NoSuchModel {
        scores: PathBuf,
        role: String,
        present: String,
    },
    #[error("no benchmark is in all of them: {benchmarks}")]
    NothingInCommon { benchmarks: String },
    #[error("{}: unknown verdict `{verdict}`; remove the file and evaluate again", path.display())]
    UnknownVerdict { path: PathBuf, verdict: String },
    #[error("no sample of the {role} on `{benchmark}` could be had: {reason}")]
    NoSamples {
        role: String,
        benchmark: String,
        reason: String,
    },
}

/// Attaches the path to an IO error.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}
