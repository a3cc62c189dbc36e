use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why something could not be fetched, by what the caller has to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names nothing that could be fetched; found without a network.
    #[error("{text:?} {problem}")]
    Source {
        text: String,
        problem: String,
        /// How to write it.
        hint: &'static str,
    },
    /// This build cannot fetch it; found without a network.
    #[error("{text:?} lies {place}, which this build leaves out")]
    LeftOut {
        text: String,
        place: &'static str,
        /// How to have it in.
        hint: &'static str,
    },
    /// The server says that it is not there.
    #[error("{url}: there is no such {what}")]
    NotFound {
        url: String,
        /// `file`, `revision`, …
        what: &'static str,
    },
    /// A pattern that nothing matches.
    #[error("{url}: no file matches")]
    NoMatch { url: String },
    /// 401, 403, or no credentials to ask with.
    #[error("{url}: {problem}")]
    Denied {
        url: String,
        problem: String,
        /// Which credentials to give.
        hint: &'static str,
    },
    /// The Hub may not be asked, and the cache does not have it.
    #[error("{url}: HF_HUB_OFFLINE is set, and the cache does not have this {what}")]
    Offline { url: String, what: &'static str },
    /// No connection, or one that broke; asked for again already.
    #[error("{url}: cannot be reached: {source}{}", deepest(source.as_ref()))]
    Unreachable { url: String, source: Cause },
    /// An answer that helps no further.
    #[error("{url}: {source}")]
    Server { url: String, source: Cause },
    #[error("{url}: nothing arrived for {seconds} seconds; start again")]
    Stalled { url: String, seconds: u64 },
    /// Nothing of it is kept.
    #[error("{url}: {arrived} bytes arrived of a file of {expected}; start again")]
    Torn {
        url: String,
        arrived: u64,
        expected: u64,
    },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Records(#[from] records::Error),
    /// The Hub's address is none.
    #[error("{endpoint:?} is no address of a Hub: {source}")]
    Endpoint { endpoint: String, source: Cause },
    #[error("no threads to fetch with: {0}")]
    Threads(std::io::Error),
    /// A repository to push to that no push of ours made.
    #[error(
        "{url}: the repository was there before, and it has no stillroom.json, which a push leaves"
    )]
    Foreign { url: String },
    /// The Hub understands a push and will not have it.
    #[error("{url}: {problem}")]
    Refused {
        url: String,
        problem: String,
        /// What to do about it.
        hint: String,
    },
    /// A pause longer than anybody waits.
    #[error(
        "{url}: too many requests (429): the Hub takes none of this account for {seconds} seconds"
    )]
    RateLimited { url: String, seconds: u64 },
    /// The card's front matter, by the Hub's own rules.
    #[error("{url}: the Hub does not take README.md: {problem}")]
    Card { url: String, problem: String },
    #[error("{path}: {size} bytes are more than {limit}, {what}")]
    TooLarge {
        path: String,
        size: u64,
        limit: u64,
        what: &'static str,
    },
    /// Other commits came between, again and again.
    #[error(
        "{url}: the branch main was changed by others {tries} times while this push was under way"
    )]
    Moved { url: String, tries: u32 },
    #[error("{}: the file was changed while it was sent", path.display())]
    Changed { path: PathBuf },
    /// A file to be sent holds the token.
    #[error("{path}: the file holds the Hub's token, so nothing is sent")]
    HoldsToken { path: String },
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What to change, where it is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Source { hint, .. }
            | Error::LeftOut { hint, .. }
            | Error::Denied { hint, .. } => Some(hint),
            Error::Refused { hint, .. } => Some(hint),
            Error::Foreign { .. } => Some(
                "name another repository, or push with --into-existing: files of the same names are replaced, all others stay",
            ),
            Error::RateLimited { .. } => {
                Some("wait as long, and start again: what the Hub has already is not sent again")
            }
            Error::Card { .. } => Some(
                "change the key of [hub] that the sentence is about; licences are named by the Hub's own ids, such as apache-2.0",
            ),
            Error::TooLarge { .. } => Some(
                "write smaller files, with dataset.shard_size for data, or push to a Hub with Xet storage",
            ),
            Error::Moved { .. } => Some("start again when nobody else pushes to this repository"),
            Error::Changed { .. } => Some("start again when nothing writes to the run folder"),
            Error::HoldsToken { .. } => Some(
                "take the token out of the file, and make a new one at https://huggingface.co/settings/tokens",
            ),
            Error::NotFound { .. } => {
                Some("check its name; a private one asks for a token that may read it, in HF_TOKEN")
            }
            Error::Offline { .. } => Some(
                "unset HF_HUB_OFFLINE and start once with a network, or copy the Hub's cache here",
            ),
            Error::Endpoint { .. } => Some("set HF_ENDPOINT to https://host, or to nothing"),
            Error::NoMatch { .. } => Some("`*` stops at a `/`, `**` does not"),
            Error::Unreachable { .. } => Some(
                "start again with a network; what is named by a commit and in the cache needs none",
            ),
            _ => None,
        }
    }

    /// Whether the recipe or the credentials have to be changed, rather than the command repeated.
    pub fn is_mistake(&self) -> bool {
        matches!(
            self,
            Error::Source { .. }
                | Error::LeftOut { .. }
                | Error::NotFound { .. }
                | Error::NoMatch { .. }
                | Error::Denied { .. }
                | Error::Offline { .. }
                | Error::Endpoint { .. }
                | Error::Foreign { .. }
                | Error::Refused { .. }
                | Error::Card { .. }
                | Error::TooLarge { .. }
                | Error::HoldsToken { .. }
        )
    }
}

/// What clients leave out of what they say, such as that a connection was refused.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let (said, cause) = (error.to_string(), cause.to_string());
    match said.contains(&cause) {
        true => String::new(),
        false => format!(": {cause}"),
    }
}

/// That this build has no Hub.
#[cfg(not(feature = "hub"))]
pub(crate) fn no_hub(text: &str) -> Error {
    Error::LeftOut {
        text: shown(text),
        place: "on the Hub",
        hint: "build with --features hub, or download it and name the local copy",
    }
}

/// That this build has no object stores.
#[cfg(not(feature = "clouds"))]
pub(crate) fn no_clouds(text: &str) -> Error {
    Error::LeftOut {
        text: shown(text),
        place: "in an object store or on a web server",
        hint: "build with --features clouds, or download it and name the local copy",
    }
}

/// A URL without what may be a secret: names, passwords, signatures.
pub(crate) fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.split_once("://") {
        Some((scheme, rest))
            if rest
                .split('/')
                .next()
                .is_some_and(|host| host.contains('@')) =>
        {
            format!("{scheme}://…@…")
        }
        _ => text.to_owned(),
    }
}

/// Attaches the path to an IO error.
pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { path, source }
}
