use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: no stage of a run has left anything here", dir.display())]
    NoRun { dir: PathBuf },
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The template and what it is given do not fit: a fault of this crate.
    #[error("the page cannot be put together: {0}")]
    Template(#[from] minijinja::Error),
}
