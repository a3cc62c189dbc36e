//! Files of the Hub's repositories, pulled into its cache.
//!
//! A revision is resolved to its commit first; everything after that is about the commit, whose files never change. What
//! lies in the Hub's cache is used without asking, and what a pattern matches is kept too, so that a source that names
//! its commit needs no network once it has been fetched.

mod cache;
mod model;
mod resume;

use std::future::Future;
use std::path::PathBuf;

use futures::TryStreamExt;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFRepository, RepoType};

use self::cache::{Cache, discard, not_cached, size};
use super::{Kind, RepoUrl};
use crate::error::{Error, Result};
use crate::network::{self, LONGEST_SILENCE, in_time, unless_stalled};
use crate::pattern::{is_pattern, literal_folder, matches, pattern};
use crate::progress::{Report, Say};
use crate::{Access, Fetched};

pub use self::model::fetch_model;

/// hf-hub waits ten seconds for another process that fetches the same file; a large file takes longer.
const LOCK_TRIES: usize = 180;

/// The files that a URL names, sorted, each pulled into the Hub's cache unless it is there.
pub fn fetch(url: &RepoUrl, access: &Access, say: Say) -> Result<Vec<Fetched>> {
    network::block_on(async {
        let dataset = client(access)?.dataset(&url.org, &url.name);
        let info = dataset.info().revision(&url.revision).send();
        let pull = begin(&dataset, url, access, say, async { Ok(info.await?.sha) }).await?;
        pull.files(pull.entries().await?).await
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
    cache: Cache<'a>,
    commit: String,
    endpoint: String,
    token: Option<String>,
    /// Whether only the cache is read.
    offline: bool,
    say: Say,
}

/// Resolves the URL's revision; `sha` asks the Hub for its commit.
async fn begin<'a, T: RepoType>(
    repository: &'a HFRepository<T>,
    url: &'a RepoUrl,
    access: &Access,
    say: Say,
    sha: impl Future<Output = Result<Option<String>, HFError>>,
) -> Result<Pull<'a, T>> {
    let (text, cache) = (url.to_string(), Cache::of(url, access));
    let commit = if is_commit(&url.revision) {
        url.revision.clone()
    } else if access.offline {
        let commit = cache.commit();
        commit.ok_or_else(|| not_cached(&text, "revision"))?
    } else {
        let commit = ask(url.kind, &text, "revision", sha).await?;
        let commit = commit.filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| server(&text, "the Hub names no commit of it"))?;
        cache.keep_commit(&commit)?;
        say(&format!("{text}: {} is {commit}", url.revision));
        commit
    };
    Ok(Pull {
        repository,
        url,
        cache,
        commit,
        endpoint: access.endpoint.clone(),
        token: access.token.clone(),
        offline: access.offline,
        say,
    })
}

impl<T: RepoType> Pull<'_, T> {
    fn snapshot(&self) -> PathBuf {
        self.cache.snapshot(&self.commit)
    }

    /// What the URL names, sorted. A commit's listing is kept: it never changes.
    async fn entries(&self) -> Result<Vec<Entry>> {
        let (text, path) = (self.url.to_string(), &self.url.path);
        if !is_pattern(path) {
            return self
                .listed(
                    path,
                    async || self.single().await,
                    |entry| entry.path == *path,
                )
                .await;
        }
        let pattern = pattern(&text, path)?;
        let folder = literal_folder(path);
        let recursive = path[folder.len()..].trim_start_matches('/').contains('/');
        let matching = |entry: &Entry| matches(&pattern, &entry.path);
        let ask = async || {
            let mut entries = self.tree(folder, recursive).await?;
            entries.retain(matching);
            Ok(entries)
        };
        self.listed(path, ask, matching).await
    }

    /// The files directly in the folder that the URL names.
    async fn folder(&self) -> Result<Vec<Entry>> {
        let folder = &self.url.path;
        let ask = async || self.tree(folder, false).await;
        let below = |entry: &Entry| {
            let path = entry.path.strip_prefix(folder.as_str());
            path.is_some_and(|path| !path.trim_start_matches('/').contains('/'))
        };
        self.listed(&format!("{folder}/"), ask, below).await
    }

    /// What `what` names: as it was listed before, or as `ask` has it; offline, without a listing, what `is_meant` is in
    /// the cache.
    async fn listed(
        &self,
        what: &str,
        ask: impl AsyncFnOnce() -> Result<Vec<Entry>>,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>> {
        if let Some(entries) = self.cache.entries(&self.commit, what) {
            return Ok(entries);
        }
        let text = self.url.to_string();
        if self.offline {
            let mut entries = self.cache.present(&self.commit)?;
            entries.retain(is_meant);
            if entries.is_empty() {
                return Err(not_cached(&text, "file"));
            }
            if is_pattern(&self.url.path) {
                (self.say)(&format!(
                    "{text}: offline, so these are the {} files that the cache has; whether there are more is not known",
                    entries.len()
                ));
            }
            return Ok(entries);
        }
        let mut entries = ask().await?;
        if entries.is_empty() {
            return Err(Error::NoMatch { url: text });
        }
        entries.sort();
        self.cache.keep_entries(&self.commit, what, &entries)?;
        Ok(entries)
    }

    async fn single(&self) -> Result<Vec<Entry>> {
        let request = self
            .repository
            .get_paths_info()
            .paths(vec![self.url.path.clone()])
            .revision(&self.commit);
        let text = self.url.to_string();
        let found = ask(self.url.kind, &text, "commit", request.send()).await?;
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

    /// The files of a folder.
    async fn tree(&self, folder: &str, recursive: bool) -> Result<Vec<Entry>> {
        let (text, kind) = (self.url.to_string(), self.url.kind);
        let listing = self
            .repository
            .list_tree()
            .revision(&self.commit)
            .maybe_path_in_repo((!folder.is_empty()).then_some(folder))
            .recursive(recursive)
            .send()
            .map_err(|error| failed(kind, &text, "folder", error))?;
        let listed: Vec<RepoTreeEntry> = ask(kind, &text, "folder", listing.try_collect()).await?;
        let files = listed.into_iter().filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some(Entry { path, size }),
            RepoTreeEntry::Directory { .. } => None,
        });
        Ok(files.collect())
    }

    async fn files(&self, entries: Vec<Entry>) -> Result<Vec<Fetched>> {
        let mut fetched = Vec::with_capacity(entries.len());
        for entry in &entries {
            fetched.push(Fetched {
                path: self.file(entry).await?,
                url: self.url.at(&self.commit, &entry.path),
            });
        }
        Ok(fetched)
    }

    /// Where a file lies in the Hub's cache, once it is there whole.
    async fn file(&self, entry: &Entry) -> Result<PathBuf> {
        let url = self.url.at(&self.commit, &entry.path);
        let request = || {
            self.repository
                .download_file()
                .filename(&entry.path)
                .revision(&self.commit)
        };
        let cached = request().local_files_only(true).send().await;
        let damaged = match cached {
            Ok(path) if size(&path)? == entry.size => return Ok(path),
            Ok(_) => true,
            Err(_) => false,
        };
        if self.offline {
            return Err(not_cached(&url, "file"));
        }
        let report = Report::start(self.say.clone(), &url, entry.size);
        if !damaged && self.cache.has_incomplete() {
            self.take_up(entry, &report).await?;
        }
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
                Err(error) => return Err(failed(self.url.kind, &url, "file", error)),
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

impl ProgressHandler for Report {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        match event {
            DownloadEvent::Progress { files } => {
                if let Some(file) = files.last() {
                    self.set(file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress {
                bytes_completed, ..
            } => self.set(*bytes_completed),
            DownloadEvent::Start { .. } | DownloadEvent::Complete => {}
        }
    }
}

/// A request's answer; `what` says what a 404 is about.
async fn ask<T>(
    kind: Kind,
    url: &str,
    what: &'static str,
    request: impl Future<Output = Result<T, HFError>>,
) -> Result<T> {
    in_time(url, request)
        .await?
        .map_err(|error| failed(kind, url, what, error))
}

fn failed(kind: Kind, url: &str, what: &'static str, error: HFError) -> Error {
    if let Some(refusal) = refusal(kind, url, what, &error) {
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
fn refusal(kind: Kind, url: &str, what: &'static str, error: &HFError) -> Option<Error> {
    let (status, context) = match error {
        HFError::Http { context } => (context.status.as_u16(), Some(context)),
        HFError::AuthRequired { context } => (401, Some(context)),
        HFError::Forbidden { context } => (403, Some(context)),
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => (404, context.as_ref()),
        _ => return None,
    };
    let denied = |problem: String| Error::Denied {
        url: url.to_owned(),
        problem,
        hint: kind.licence(),
    };
    let code = context.and_then(|context| context.error_code.as_deref());
    match (status, code) {
        (404, code) => Some(Error::NotFound {
            url: url.to_owned(),
            what: match code {
                Some("RepoNotFound") => kind.as_str(),
                Some("RevisionNotFound") => "revision",
                Some("EntryNotFound") => "file",
                _ => what,
            },
        }),
        (401 | 403, Some("GatedRepo")) => Some(denied(format!(
            "the {kind} is gated, and the Hub does not let this reader in"
        ))),
        (401, _) => Some(denied(format!(
            "the Hub asks for a token (401): the {kind} is private, gated or not there"
        ))),
        (403, _) => Some(denied("the Hub refuses it to this token (403)".to_owned())),
        _ => None,
    }
}

fn server(url: &str, problem: &str) -> Error {
    Error::Server {
        url: url.to_owned(),
        source: problem.into(),
    }
}
