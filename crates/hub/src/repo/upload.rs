//! A push as a value: the files that a repository is to hold, and what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RepoId;

/// The file at the root of a repository by which later pushes know it as theirs.
pub const MARKER: &str = "stillroom.json";

/// The card's file.
pub const CARD: &str = "README.md";

/// Version of the format of [`Marker`].
pub const SCHEMA: u32 = 1;

/// Whose token a push has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub organisations: Vec<String>,
}

/// What `stillroom.json` says. The same run gives the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marker {
    pub schema: u32,
    /// The version of the program that pushed.
    pub stillroom: String,
    /// The recipe's name.
    pub recipe: String,
    /// blake3 of what of the recipe decides the results.
    pub identity: String,
    /// `dataset`, `adapter` or `merged`.
    pub what: String,
    /// blake3 of the manifest of each stage that the files are of.
    pub stages: BTreeMap<String, String>,
    /// The files that pushes have put here, this one left out.
    pub files: Vec<String>,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    File {
        path: PathBuf,
        /// By which its SHA-256 may be known already.
        blake3: Option<String>,
    },
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFile {
    /// In the repository.
    pub path: String,
    pub contents: Contents,
}

impl UploadFile {
    pub fn bytes(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            contents: Contents::Bytes(bytes.into()),
        }
    }
}

/// Everything that one commit is to bring about.
#[derive(Debug, Clone)]
pub struct Upload {
    pub repo: RepoId,
    /// All files that are ours, the marker left out.
    pub files: Vec<UploadFile>,
    /// Its `files` are filled in here.
    pub marker: Marker,
    /// The commit's first line.
    pub message: String,
    /// Put on the commit.
    pub tag: String,
    /// Whether our own records say that this run had the repository made.
    pub made_by_us: bool,
    /// Whether a repository that nobody's push made may be pushed to.
    pub into_existing: bool,
    /// Who may see it: asked for where it is created, and compared with what is there.
    pub private: bool,
    /// The stage whose files in the repository stay as they are, and have to be of this run: the upload adds to them.
    pub onto: Option<&'static str>,
    /// SHA-256 by blake3, of files that were hashed before.
    pub known: BTreeMap<String, String>,
}

/// What there is under a repository's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing, as far as this token sees.
    Absent,
    /// One that an earlier push made.
    Ours(Box<Marker>),
    /// One without a marker; `empty` where it holds nothing but what the Hub itself puts there.
    Foreign { empty: bool },
}

/// What a push would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Paths and sizes.
    pub send: Vec<(String, u64)>,
    pub unchanged: usize,
    pub delete: Vec<String>,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The commit that holds the files.
    pub commit: String,
    /// Whether this push made it.
    pub is_new: bool,
    /// Paths and sizes.
    pub sent: Vec<(String, u64)>,
    pub unchanged: usize,
    pub deleted: Vec<String>,
    /// SHA-256 by blake3, of files that were hashed for it.
    pub known: BTreeMap<String, String>,
}
