//! What a repository holds, and how that differs from what it is to hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::api::{Api, Ask};
use super::meaning::Doing;
use super::sums::{self, Sums};
use crate::error::{Error, Result};
use crate::repo::RepoId;
use crate::repo::upload::{Look, MARKER, Marker, UploadFile};

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// git's.
    oid: String,
    size: u64,
    /// SHA-256 of what lies outside of git.
    lfs: Option<(String, u64)>,
}

/// A repository at the end of `main`.
pub(super) struct View {
    /// None before the first commit.
    pub commit: Option<String>,
    pub private: Option<bool>,
    files: BTreeMap<String, Remote>,
    pub marker: Option<Marker>,
}

/// What one commit has to change.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    pub send: Vec<&'a UploadFile>,
    pub unchanged: usize,
    pub delete: Vec<String>,
}

impl Changes<'_> {
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.delete.is_empty()
    }
}

impl View {
    /// `None` where there is no repository that this token can see.
    pub async fn read(api: &Api, repo: &RepoId) -> Result<Option<Self>> {
        let url = repo.to_string();
        let ask = Ask::get(format!("/api/{}/{}", repo.kind.plural(), repo.id()));
        let answer = api.send(&url, &ask).await?;
        let code = answer.header("x-error-code");
        // A stranger is answered 401 for what is private and for what is not there.
        let absent = match answer.status {
            404 => true,
            401 => code == Some("RepoNotFound"),
            _ => false,
        };
        if absent {
            return Ok(None);
        }
        if !answer.is_success() {
            return Err(api.refusal(&url, Doing::Reading, &answer));
        }
        let private = answer.json(&url)?["private"].as_bool();
        let ask = Ask::get(format!(
            "/api/{}/{}/revision/main",
            repo.kind.plural(),
            repo.id()
        ));
        let head = api.send(&url, &ask).await?;
        let commit = match head.status {
            // Nothing was ever committed.
            404 => None,
            _ if head.is_success() => head.json(&url)?["sha"].as_str().map(str::to_owned),
            _ => return Err(api.refusal(&url, Doing::Reading, &head)),
        };
        let mut view = Self {
            commit,
            private,
            files: BTreeMap::new(),
            marker: None,
        };
        if let Some(commit) = view.commit.clone() {
            view.files = files(api, repo, &commit).await?;
            if view.files.contains_key(MARKER) {
                view.marker = Some(marker(api, repo, &commit).await?);
            }
        }
        Ok(Some(view))
    }

    pub fn look(self) -> Look {
        let empty = self.is_empty();
        match self.marker {
            Some(marker) => Look::Ours(Box::new(marker)),
            None => Look::Foreign { empty },
        }
    }

    /// Whether it holds nothing but what the Hub itself puts into a new repository.
    pub fn is_empty(&self) -> bool {
        self.files.keys().all(|path| path == ".gitattributes")
    }

    /// How it differs from these files. What an earlier push wrote and is not among `keep` goes.
    pub fn changes<'a>(
        &self,
        files: &'a [UploadFile],
        keep: &BTreeSet<&str>,
        sums: &mut Sums,
    ) -> Result<Changes<'a>> {
        let mut changes = Changes::default();
        for file in files {
            match self.holds(file, sums)? {
                true => changes.unchanged += 1,
                false => changes.send.push(file),
            }
        }
        let written = self.marker.iter().flat_map(|marker| &marker.files);
        changes.delete = written
            .filter(|path| self.files.contains_key(*path) && !keep.contains(path.as_str()))
            .cloned()
            .collect();
        Ok(changes)
    }

    /// Whether it has this very file.
    pub fn holds(&self, file: &UploadFile, sums: &mut Sums) -> Result<bool> {
        let Some(remote) = self.files.get(&file.path) else {
            return Ok(false);
        };
        let size = sums::state(file)?.size;
        match &remote.lfs {
            Some((oid, theirs)) => Ok(*theirs == size && *oid == sums.sha256(file)?),
            None => Ok(remote.size == size && remote.oid == sums::git_oid(file)?),
        }
    }
}

/// All files of a commit.
async fn files(api: &Api, repo: &RepoId, commit: &str) -> Result<BTreeMap<String, Remote>> {
    let url = repo.to_string();
    let path = format!("/api/{}/{}/tree/{commit}", repo.kind.plural(), repo.id());
    let (mut files, mut query) = (BTreeMap::new(), "recursive=true".to_owned());
    loop {
        let ask = Ask::get(format!("{path}?{query}"));
        let answer = api.send(&url, &ask).await?;
        // A folder without files is not there for the Hub.
        if answer.status == 404 && answer.header("x-error-code") == Some("EntryNotFound") {
            return Ok(files);
        }
        if !answer.is_success() {
            return Err(api.refusal(&url, Doing::Reading, &answer));
        }
        let page = answer.json(&url)?;
        for entry in page.as_array().into_iter().flatten() {
            if let Some((path, remote)) = file(entry) {
                files.insert(path, remote);
            }
        }
        match answer.next_page() {
            Some(next) if next != query => query = next,
            _ => return Ok(files),
        }
    }
}

fn file(entry: &Value) -> Option<(String, Remote)> {
    if entry["type"] != "file" {
        return None;
    }
    let lfs = entry["lfs"]["oid"].as_str().map(str::to_owned);
    let remote = Remote {
        oid: entry["oid"].as_str()?.to_owned(),
        size: entry["size"].as_u64()?,
        lfs: lfs.zip(entry["lfs"]["size"].as_u64()),
    };
    Some((entry["path"].as_str()?.to_owned(), remote))
}

async fn marker(api: &Api, repo: &RepoId, commit: &str) -> Result<Marker> {
    let url = repo.to_string();
    let prefix = repo.kind.route();
    let ask = Ask::get(format!("/{prefix}{}/resolve/{commit}/{MARKER}", repo.id()));
    let answer = api.ask(&url, Doing::Reading, &ask).await?;
    serde_json::from_slice(&answer.body).map_err(|error| Error::Refused {
        url: format!("{url}/{MARKER}"),
        problem: format!("the file is not one that a push wrote: {error}"),
        hint: "remove it from the repository, and push with --into-existing".into(),
    })
}
