use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

/// Why a job could not do its work, by what the caller has to do about it. Each kind has its
/// own exit code ([`Error::exit_code`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe, or a `--set` argument, says something that cannot be.
    #[error("{place}: {message}")]
    Recipe {
        /// `FILE:LINE`, or the `--set` argument.
        place: String,
        message: String,
        hint: Option<String>,
    },
    /// The command line asks for something that cannot be.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// Something that the recipe names is missing or unfit, found before work started.
    #[error("{place}: {key}: {message}")]
    Input {
        /// `FILE:LINE`, or the `--set` argument.
        place: String,
        /// `section.key`.
        key: String,
        message: String,
        hint: String,
    },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Records(#[from] records::Error),
    /// A stage started and could not complete.
    #[error("{stage}: {source}")]
    Stage {
        stage: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stage ended before its time, with its state saved; the hint names the command that goes on.
    #[error("{stage}: {source}")]
    Saved {
        stage: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
        hint: String,
    },
    /// Too little of a stage came out for the next one to begin.
    #[error("{stage}: {message}")]
    TooFew {
        stage: &'static str,
        message: String,
        hint: String,
    },
    /// A command that is no stage could not complete.
    #[error("{command}: {source}")]
    Command {
        command: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// SIGINT or SIGTERM arrived; what was done is saved.
    #[error("{stage}: interrupted, state saved")]
    Interrupted { stage: &'static str },
}

impl Error {
    /// 2 for a bad recipe or command line, 3 for a stage that could not complete, 130 for an
    /// interruption.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Recipe { .. } | Error::Usage { .. } | Error::Input { .. } => 2,
            Error::Io { .. }
            | Error::Records(_)
            | Error::Stage { .. }
            | Error::Saved { .. }
            | Error::TooFew { .. }
            | Error::Command { .. } => 3,
            Error::Interrupted { .. } => 130,
        }
    }

    /// What to change, in one sentence.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Recipe { hint, .. } => hint.as_deref(),
            Error::Usage { hint, .. }
            | Error::Input { hint, .. }
            | Error::Saved { hint, .. }
            | Error::TooFew { hint, .. } => Some(hint),
            Error::Interrupted { .. } => Some("the same command continues from here"),
            Error::Io { .. } | Error::Records(_) | Error::Stage { .. } | Error::Command { .. } => {
                None
            }
        }
    }

    pub(crate) fn command(
        command: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Command {
            command,
            source: source.into(),
        }
    }

    pub(crate) fn stage(
        stage: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Stage {
            stage,
            source: source.into(),
        }
    }
}

/// Attaches the path to an IO error.
pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { path, source }
}
