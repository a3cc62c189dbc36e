//! `hf://datasets/ORG/NAME@REVISION/path`: files of the Hub's repositories.
//!
//! A revision is resolved to its commit first; everything after that is about the commit, whose files never change. What
//! lies in the Hub's cache is used without asking, and what a pattern matches is kept too, so that a source that names
//! its commit needs no network once it has been fetched.

mod url;

use std::future::Future;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFRepository, RepoType};
use records::{atomic, hash};

use crate::error::{Error, Result, io};
use crate::network::{self, LONGEST_SILENCE, in_time, unless_stalled};
use crate::pattern::{is_pattern, literal_folder, matches, pattern};
use crate::progress::{Report, Say};
use crate::{Access, Fetched};

pub use self::url::RepoUrl;

const TOKEN: &str =
    "accept the dataset's licence on its page, and set HF_TOKEN to a token that may read it";

/// hf-hub waits ten seconds for another process that fetches the same file; a large file takes longer.
const LOCK_TRIES: usize = 180;

/// The files that a URL names, sorted, each pulled into the Hub's cache unless it is there.
pub fn fetch(url: &RepoUrl, access: &Access, say: Say) -> Result<Vec<Fetched>> {
    let text = url.to_string();
    network::block_on(async {
        let client = client(access)?;
        let dataset = client.dataset(&url.org, &url.name);
        let commit = if is_commit(&url.revision) {
            url.revision.clone()
        } else {
            let info = dataset.info().revision(&url.revision).send();
            let info = ask(&text, "revision", info).await?;
            let commit = info.sha.filter(|sha| is_commit(sha));
            let commit = commit.ok_or_else(|| server(&text, "the Hub names no commit of it"))?;
            say(&format!("{text}: {} is {commit}", url.revision));
            commit
        };
        let pull = Pull {
            repository: &dataset,
            url,
            commit: &commit,
            say,
        };
        let mut fetched = Vec::new();
        for entry in pull.entries(&access.cache).await? {
            fetched.push(Fetched {
                path: pull.file(&entry).await?,
                url: url.at(&commit, &entry.path),
            });
        }
        Ok(fetched)
    })
}

fn client(access: &Access) -> Result<HFClient> {
    let builder = HFClient::builder()
        .endpoint(&access.endpoint)
        .cache_dir(&access.hub_cache);
    let builder = match &access.token {
        Some(token) => builder.token(token),
        None => builder,
    };
    builder.build().map_err(|source| Error::Endpoint {
        endpoint: access.endpoint.clone(),
        source: source.into(),
    })
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: String,
    size: u64,
}

/// A URL at its commit.
struct Pull<'a, T: RepoType> {
    repository: &'a HFRepository<T>,
    url: &'a RepoUrl,
    commit: &'a str,
    say: Say,
}

impl<T: RepoType> Pull<'_, T> {
    /// What the URL names, sorted. A commit's listing is kept: it never changes.
    async fn entries(&self, cache: &Path) -> Result<Vec<Entry>> {
        let kept = cache
            .join("listings")
            .join(format!("datasets--{}--{}", self.url.org, self.url.name))
            .join(self.commit)
            .join(hash::bytes(self.url.path.as_bytes()));
        if let Some(entries) = read_listing(&kept) {
            return Ok(entries);
        }
        let mut entries = if is_pattern(&self.url.path) {
            self.matching().await?
        } else {
            self.single().await?
        };
        entries.sort();
        let lines: String = entries
            .iter()
            .map(|entry| format!("{} {}\n", entry.size, entry.path))
            .collect();
        atomic::write(&kept, lines.as_bytes())?;
        Ok(entries)
    }

    async fn single(&self) -> Result<Vec<Entry>> {
        let request = self
            .repository
            .get_paths_info()
            .paths(vec![self.url.path.clone()])
            .revision(self.commit);
        let text = self.url.to_string();
        let found = ask(&text, "commit", request.send()).await?;
        match found.into_iter().next() {
            Some(RepoTreeEntry::File { path, size, .. }) => Ok(vec![Entry { path, size }]),
            Some(RepoTreeEntry::Directory { .. }) => Err(Error::Source {
                text,
                problem: "is a folder".to_owned(),
                hint: "name a file, or several with a glob such as folder/*.parquet",
            }),
            None => Err(Error::NotFound {
                url: text,
                what: "file",
            }),
        }
    }

    async fn matching(&self) -> Result<Vec<Entry>> {
        let text = self.url.to_string();
        let pattern = pattern(&text, &self.url.path)?;
        let folder = literal_folder(&self.url.path);
        let below = self.url.path[folder.len()..].trim_start_matches('/');
        let listing = self
            .repository
            .list_tree()
            .revision(self.commit)
            .maybe_path_in_repo((!folder.is_empty()).then_some(folder))
            .recursive(below.contains('/'))
            .send()
            .map_err(|error| failed(&text, "folder", error))?;
        let listed: Vec<RepoTreeEntry> = ask(&text, "folder", listing.try_collect()).await?;
        let entries: Vec<Entry> = listed
            .into_iter()
            .filter_map(|entry| match entry {
                RepoTreeEntry::File { path, size, .. } => Some(Entry { path, size }),
                RepoTreeEntry::Directory { .. } => None,
            })
            .filter(|entry| matches(&pattern, &entry.path))
            .collect();
        if entries.is_empty() {
            return Err(Error::NoMatch { url: text });
        }
        Ok(entries)
    }

    /// Where a file lies in the Hub's cache, once it is there whole.
    async fn file(&self, entry: &Entry) -> Result<PathBuf> {
        let url = self.url.at(self.commit, &entry.path);
        let request = || {
            self.repository
                .download_file()
                .filename(&entry.path)
                .revision(self.commit)
        };
        let cached = request().local_files_only(true).send().await;
        let damaged = match cached {
            Ok(path) if size(&path)? == entry.size => return Ok(path),
            Ok(_) => true,
            Err(_) => false,
        };
        let report = Report::start(self.say.clone(), &url, entry.size);
        let mut tries = 0;
        let path = loop {
            let transfer = request()
                .force_download(damaged)
                .progress(report.clone())
                .send();
            match unless_stalled(&url, &report, LONGEST_SILENCE, transfer).await? {
                Ok(path) => break path,
                Err(HFError::CacheLockTimeout { .. }) if tries < LOCK_TRIES => {
                    if tries == 0 {
                        (self.say)(&format!("{url}: another process is fetching it, waiting"));
                    }
                    tries += 1;
                }
                Err(error) => return Err(failed(&url, "file", error)),
            }
        };
        // hf-hub does not look at the status of the answer whose body it keeps.
        let arrived = size(&path)?;
        if arrived != entry.size {
            discard(&path)?;
            return Err(Error::Torn {
                url,
                arrived,
                expected: entry.size,
            });
        }
        Ok(path)
    }
}

fn read_listing(path: &Path) -> Option<Vec<Entry>> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .map(|line| {
            let (size, path) = line.split_once(' ')?;
            Some(Entry {
                path: path.to_owned(),
                size: size.parse().ok()?,
            })
        })
        .collect()
}

fn size(path: &Path) -> Result<u64> {
    std::fs::metadata(path)
        .map(|metadata| metadata.len())
        .map_err(io(path))
}

/// Takes a file out of the Hub's cache: its name, and the bytes that the name points to.
fn discard(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(io(path))?;
    std::fs::remove_file(path).map_err(io(path))?;
    match std::fs::remove_file(&blob) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(blob)(error)),
        _ => Ok(()),
    }
}

/// A request's answer; `what` says what a 404 is about.
async fn ask<T>(
    url: &str,
    what: &'static str,
    request: impl Future<Output = Result<T, HFError>>,
) -> Result<T> {
    in_time(url, request)
        .await?
        .map_err(|error| failed(url, what, error))
}

fn failed(url: &str, what: &'static str, error: HFError) -> Error {
    if let Some(refusal) = refusal(url, what, &error) {
        return refusal;
    }
    let url = url.to_owned();
    match error {
        HFError::Request { source, .. } => Error::Unreachable {
            url,
            source: source.into(),
        },
        error => Error::Server {
            url,
            source: error.into(),
        },
    }
}

/// What the Hub means by a 401, 403 or 404.
fn refusal(url: &str, what: &'static str, error: &HFError) -> Option<Error> {
    let (status, context) = match error {
        HFError::Http { context } => (context.status.as_u16(), Some(context)),
        HFError::AuthRequired { context } => (401, Some(context)),
        HFError::Forbidden { context } => (403, Some(context)),
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => (404, context.as_ref()),
        _ => return None,
    };
    let denied = |problem: &str| Error::Denied {
        url: url.to_owned(),
        problem: problem.to_owned(),
        hint: TOKEN,
    };
    let code = context.and_then(|context| context.error_code.as_deref());
    match (status, code) {
        (404, code) => Some(Error::NotFound {
            url: url.to_owned(),
            what: match code {
                Some("RepoNotFound") => "dataset",
                Some("RevisionNotFound") => "revision",
                Some("EntryNotFound") => "file",
                _ => what,
            },
        }),
        (401 | 403, Some("GatedRepo")) => Some(denied(
            "the dataset is gated, and the Hub does not let this reader in",
        )),
        (401, _) => Some(denied(
            "the Hub asks for a token (401): the dataset is private, gated or not there",
        )),
        (403, _) => Some(denied("the Hub refuses it to this token (403)")),
        _ => None,
    }
}

fn server(url: &str, problem: &str) -> Error {
    Error::Server {
        url: url.to_owned(),
        source: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listings_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listing");
        assert_eq!(read_listing(&path), None);
        std::fs::write(&path, "12 data/a b.parquet\n").unwrap();
        let entry = Entry {
            path: "data/a b.parquet".into(),
            size: 12,
        };
        assert_eq!(read_listing(&path), Some(vec![entry]));
        std::fs::write(&path, "twelve a\n").unwrap();
        assert_eq!(read_listing(&path), None);
    }
}
