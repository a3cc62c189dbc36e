//! The commit that brings a push about, and its tag.

use reqwest::Method;
use serde_json::{Value, json};

use super::TRIES;
use super::api::{Api, Ask};
use super::meaning::Doing;
use crate::error::{Error, Result};
use crate::repo::upload::Upload;

/// What is known of a commit after the request for it.
pub(super) enum Committed {
    As(String),
    /// The branch has moved, or the answer was lost: the repository has to be looked at.
    Perhaps(Error),
}

/// Commits these lines onto `parent`. The request is sent once: whether it was carried out shows in the repository.
pub(super) async fn commit(
    api: &Api,
    upload: &Upload,
    parent: Option<&str>,
    lines: &[Value],
) -> Result<Committed> {
    let (repo, url) = (&upload.repo, upload.repo.to_string());
    let mut header = json!({"summary": upload.message, "description": description(upload)});
    if let Some(parent) = parent {
        header["parentCommit"] = parent.into();
    }
    let mut body = json!({"key": "header", "value": header}).to_string();
    body.push('\n');
    for line in lines {
        body += &line.to_string();
        body.push('\n');
    }
    let ask = Ask {
        method: Method::POST,
        path: format!("/api/{}/{}/commit/main", repo.kind.plural(), repo.id()),
        body: Some(("application/x-ndjson", body.into_bytes())),
        repeat: false,
    };
    let answer = match api.send(&url, &ask).await {
        Err(error @ Error::Unreachable { .. }) => return Ok(Committed::Perhaps(error)),
        answer => answer?,
    };
    match answer.status {
        200..=299 => {
            let json = answer.json(&url)?;
            let commit = json["commitOid"].as_str().map(str::to_owned);
            commit.map(Committed::As).ok_or_else(|| Error::Server {
                url,
                source: "the Hub does not name the commit that it made".into(),
            })
        }
        408 | 409 | 412 | 500..=506 | 508..=599 => {
            let error = api.refusal(&url, Doing::Committing, &answer);
            Ok(Committed::Perhaps(error))
        }
        _ => Err(api.refusal(&url, Doing::Committing, &answer)),
    }
}

fn description(upload: &Upload) -> String {
    let marker = &upload.marker;
    format!(
        "Stillroom {}, recipe {} ({})",
        marker.stillroom, marker.recipe, upload.tag
    )
}

/// Puts the upload's tag on a commit. One of that name on another commit is of an earlier push of the same recipe, and moves.
pub(super) async fn tag(api: &Api, upload: &Upload, commit: &str) -> Result<()> {
    let (repo, url) = (&upload.repo, upload.repo.to_string());
    let base = format!("/api/{}/{}", repo.kind.plural(), repo.id());
    for _ in 0..TRIES {
        let refs = Ask::get(format!("{base}/refs"));
        let refs = api.ask(&url, Doing::Reading, &refs).await?.json(&url)?;
        let tags = refs["tags"].as_array().into_iter().flatten();
        let found = tags
            .filter(|entry| entry["name"] == upload.tag.as_str())
            .find_map(|entry| entry["targetCommit"].as_str());
        match found {
            Some(target) if target == commit => return Ok(()),
            Some(_) => {
                api.say(&format!(
                    "{url}: the tag {} moves to the new commit",
                    upload.tag
                ));
                let ask = Ask {
                    method: Method::DELETE,
                    ..Ask::get(format!("{base}/tag/{}", upload.tag))
                };
                let answer = api.send(&url, &ask).await?;
                if !answer.is_success() && answer.status != 404 {
                    return Err(api.refusal(&url, Doing::Tagging, &answer));
                }
            }
            None => {}
        }
        // Without a message: one with a message is an object of its own, and names that as its target.
        let body = json!({"tag": upload.tag});
        let ask = Ask::post(format!("{base}/tag/{commit}"), &body);
        let answer = api.send(&url, &ask).await?;
        match answer.status {
            200..=299 => return Ok(()),
            // Made by the first of two tries, or by somebody else: the next look says.
            409 => {}
            _ => return Err(api.refusal(&url, Doing::Tagging, &answer)),
        }
    }
    Err(Error::Moved { url, tries: TRIES })
}
