//! Files that the Hub keeps outside of git, sent to its Xet storage.
//!
//! hf-xet cuts them into chunks and sends those that the storage does not have, so that a push that broke goes on where it
//! was: what it learns of the storage is kept below the cache folder.

use std::path::Path;
use std::time::Duration;

use futures::future::{Either, select};
use reqwest::Method;
use serde_json::{Value, json};
use xet::XetError;
use xet::xet_session::{HeaderMap, HeaderValue, Sha256Policy, XetSessionBuilder, header};

use super::api::{Api, Ask};
use super::meaning::Doing;
use crate::error::{Error, Result};
use crate::network::{LONGEST_SILENCE, unless_stalled};
use crate::progress::Report;
use crate::repo::RepoId;
use crate::repo::upload::{Contents, UploadFile};

/// The kind of an LFS request's body.
pub(super) const LFS: &str = "application/vnd.git-lfs+json";

/// Objects in one request.
const BATCH: usize = 100;

/// How often the progress of a transfer is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A file with its SHA-256.
#[derive(Clone)]
pub(super) struct Large<'a> {
    pub file: &'a UploadFile,
    pub sha256: String,
    pub size: u64,
}

/// Whether the Hub takes these files by Xet; its refusal of any one of them is an error.
pub(super) async fn takes_xet(api: &Api, repo: &RepoId, files: &[Large<'_>]) -> Result<bool> {
    let url = repo.to_string();
    let path = format!(
        "/{}{}.git/info/lfs/objects/batch",
        repo.kind.route(),
        repo.id()
    );
    let mut all = true;
    for files in files.chunks(BATCH) {
        let objects: Vec<Value> = files
            .iter()
            .map(|large| json!({"oid": large.sha256, "size": large.size}))
            .collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart", "xet"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": {"name": "main"},
        });
        let ask = Ask {
            method: Method::POST,
            path: path.clone(),
            body: Some((LFS, body.to_string().into_bytes())),
            repeat: true,
        };
        let answer = api.ask(&url, Doing::Sending, &ask).await?.json(&url)?;
        for object in answer["objects"].as_array().into_iter().flatten() {
            if let Some(message) = object["error"]["message"].as_str() {
                let named = files
                    .iter()
                    .find(|large| object["oid"] == large.sha256.as_str());
                let name = named.map_or("a file", |large| large.file.path.as_str());
                return Err(Error::Refused {
                    url,
                    problem: format!("the Hub does not take {name}: {message}"),
                    hint: "change what the sentence is about; files have less than 500 GB each, and the account's storage has a limit".into(),
                });
            }
        }
        all &= answer["transfer"] == "xet";
    }
    Ok(all)
}

/// Sends the files' chunks.
pub(super) async fn send(
    api: &Api,
    repo: &RepoId,
    files: &[Large<'_>],
    cache: &Path,
) -> Result<()> {
    let url = repo.to_string();
    let path = format!(
        "/api/{}/{}/xet-write-token/main",
        repo.kind.plural(),
        repo.id()
    );
    let token = Ask::get(path.clone());
    let access = api.ask(&url, Doing::Sending, &token).await?.json(&url)?;
    let (Some(address), Some(token), Some(expires)) = (
        access["casUrl"].as_str(),
        access["accessToken"].as_str(),
        access["exp"].as_u64(),
    ) else {
        return Err(Error::Server {
            url,
            source: "the Hub names no Xet storage to write to".into(),
        });
    };
    let total = files.iter().map(|large| large.size).sum();
    let report = Report::sending(api.teller(), &url, total);
    let failed = |error| failure(&url, cache, error);
    let session = XetSessionBuilder::new()
        .with_cache_dir(cache)
        .build()
        .map_err(failed)?;
    let commit = session
        .new_upload_commit()
        .map_err(failed)?
        .with_endpoint(address)
        .with_token_info(token, expires)
        .with_token_refresh_url(format!("{}{path}", api.endpoint()), headers(api))
        .build()
        .await
        .map_err(failed)?;
    for large in files {
        let sum = Sha256Policy::from_hex(&large.sha256);
        match &large.file.contents {
            Contents::File { path, .. } => commit.upload_from_path(path.clone(), sum).await,
            Contents::Bytes(bytes) => {
                let name = Some(large.file.path.clone());
                commit.upload_bytes(bytes.clone(), sum, name).await
            }
        }
        .map_err(failed)?;
    }
    let transfer = async {
        let done = std::pin::pin!(commit.commit());
        let mut done = done;
        loop {
            let look = std::pin::pin!(tokio::time::sleep(LOOK));
            match select(done, look).await {
                Either::Left((end, _)) => return end,
                Either::Right((_, rest)) => done = rest,
            }
            // Bytes that are cut up count too: hashing gigabytes is no silence.
            let progress = commit.progress();
            report.set(progress.total_bytes_completed);
        }
    };
    let sent = unless_stalled(&url, &report, LONGEST_SILENCE, transfer).await?;
    sent.map_err(failed)?;
    Ok(())
}

/// What hf-xet asks the Hub with, once its token has run out.
fn headers(api: &Api) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = api
        .token()
        .and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    if let Some(mut value) = value {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers
}

fn failure(url: &str, cache: &Path, error: XetError) -> Error {
    let url = url.to_owned();
    match error {
        XetError::RateLimited(_) => Error::RateLimited { url, seconds: 300 },
        XetError::Authentication(problem) => Error::Denied {
            url,
            problem: format!("the Xet storage does not let this push write: {problem}"),
            hint: "set HF_TOKEN to a token that may write, and start again",
        },
        XetError::Network(problem) | XetError::Timeout(problem) => Error::Unreachable {
            url,
            source: problem.into(),
        },
        XetError::Io(problem) => Error::Refused {
            url,
            problem: format!("a file could not be read, or kept below {}: {problem}", cache.display()),
            hint: "make room on that disk, or set XDG_CACHE_HOME to a folder on another one; then start again".into(),
        },
        XetError::KeyboardInterrupt | XetError::UserCancelled(_) => Error::Interrupted,
        error => Error::Server {
            url,
            source: error.into(),
        },
    }
}

/// The commit's line for a file that the Hub has in its storage.
pub(super) fn line(large: &Large<'_>) -> Value {
    json!({"key": "lfsFile", "value": {
        "path": large.file.path, "algo": "sha256", "oid": large.sha256, "size": large.size,
    }})
}
