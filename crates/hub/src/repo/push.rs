//! Pushing: a repository is made to hold a set of files, by one commit.
//!
//! The end of `main` is read, its files are compared with ours by their hashes, what differs is sent, and a commit that
//! names that end as its parent brings all of it about at once. A commit that the Hub refuses because the branch has moved,
//! or whose answer was lost, is followed by another look: either the repository holds our files already, or the push begins
//! anew from the new end. So two pushes never mix, and a push that broke goes on.

mod api;
mod commit;
mod large;
mod meaning;
mod sums;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::api::{Api, Ask};
use self::commit::{Committed, commit, tag};
use self::large::Large;
use self::meaning::Doing;
use self::sums::Sums;
use self::tree::{Changes, View};
use super::upload::{
    Account, CARD, Comparison, Look, MARKER, Marker, Pushed, SCHEMA, Upload, UploadFile,
};
use super::{RepoId, RepoUrl};
use crate::Access;
use crate::error::{Error, Result};
use crate::network;
use crate::progress::Say;

/// Files of which the Hub is asked at once how it wants them.
const PREUPLOAD: usize = 256;
/// The largest file that the Hub takes within a commit.
const LARGEST_INLINE: u64 = 10_000_000;
/// The largest file that the Hub takes at all.
const LARGEST: u64 = 500_000_000_000;
/// How often a push begins anew because the branch has moved, or because an answer to a commit was lost.
const TRIES: u32 = 6;

/// Pushes to one Hub.
pub struct Pusher<'a> {
    access: &'a Access,
    say: Say,
    stop: &'a AtomicBool,
    pause: Duration,
}

impl<'a> Pusher<'a> {
    /// A push ends as soon as `stop` is set; what has arrived by then is not sent again by the next one.
    ///
    /// # Errors
    /// None in a build with the Hub.
    pub fn new(access: &'a Access, say: Say, stop: &'a AtomicBool) -> Result<Self> {
        Ok(Self {
            access,
            say,
            stop,
            pause: Duration::from_millis(500),
        })
    }

    /// With this pause before what failed is tried again, doubled from try to try.
    #[must_use]
    pub fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    fn block_on<T>(&self, work: impl AsyncFnOnce(&Api) -> Result<T>) -> Result<T> {
        if self.access.offline {
            return Err(Error::Refused {
                url: self.access.endpoint.clone(),
                problem: "HF_HUB_OFFLINE is set, so the Hub is not asked, and nothing is pushed"
                    .into(),
                hint: "unset HF_HUB_OFFLINE to push".into(),
            });
        }
        network::block_on(async {
            let api = Api::new(self.access, self.pause, self.say.clone())?;
            network::unless_stopped(self.stop, work(&api)).await
        })
    }

    /// Whose token it is. The Hub wants this to be asked once a run.
    ///
    /// # Errors
    /// [`Error::Denied`] without a token, or with one that the Hub does not take.
    pub fn who(&self) -> Result<Account> {
        self.block_on(async |api| {
            let url = api.endpoint().to_owned();
            let ask = Ask::get("/api/whoami-v2");
            let answer = api.ask(&url, Doing::Reading, &ask).await?.json(&url)?;
            let organisations = answer["orgs"].as_array().into_iter().flatten();
            let names = organisations.filter_map(|org| org["name"].as_str());
            Ok(Account {
                name: answer["name"].as_str().unwrap_or("nobody").to_owned(),
                organisations: names.map(str::to_owned).collect(),
            })
        })
    }

    /// What is there under a repository's name.
    ///
    /// # Errors
    /// Those of the network, and the Hub's refusals.
    pub fn look(&self, repo: &RepoId) -> Result<Look> {
        self.block_on(async |api| {
            let view = View::read(api, repo).await?;
            Ok(view.map_or(Look::Absent, View::look))
        })
    }

    /// The licence that a repository's card declares, where it declares one.
    ///
    /// # Errors
    /// Those of the network, and the Hub's refusals.
    pub fn licence(&self, url: &RepoUrl) -> Result<Option<String>> {
        self.block_on(async |api| {
            let path = format!(
                "/api/{}/{}/{}/revision/{}",
                url.kind.plural(),
                url.org,
                url.name,
                url.revision.replace('/', "%2F")
            );
            let text = url.to_string();
            let answer = api.ask(&text, Doing::Reading, &Ask::get(path)).await?;
            let answer = answer.json(&text)?;
            if let Some(licence) = answer["cardData"]["license"].as_str() {
                return Ok(Some(licence.to_owned()));
            }
            let tags = answer["tags"].as_array().into_iter().flatten();
            let licence = tags
                .filter_map(Value::as_str)
                .find_map(|tag| tag.strip_prefix("license:"));
            Ok(licence.map(str::to_owned))
        })
    }

    /// Has the Hub make a repository; whether it is new. One that is there already is none that this call made.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that is taken by what this token cannot see, [`Error::Denied`] without the right.
    pub fn create(&self, repo: &RepoId, private: bool) -> Result<bool> {
        self.block_on(async |api| create(api, repo, private).await)
    }

    /// That the Hub takes the upload's card, where it does not have that already, and that no file holds the token.
    /// Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Card`] and [`Error::HoldsToken`]; those of the network.
    pub fn check(&self, upload: &Upload) -> Result<()> {
        self.block_on(async |api| {
            check_token(api, &upload.files)?;
            let view = View::read(api, &upload.repo).await?;
            let card = upload.files.iter().find(|file| file.path == CARD);
            let mut sums = Sums::new(&upload.known, api.teller());
            let is_there = match (&view, card) {
                (Some(view), Some(card)) => view.holds(card, &mut sums)?,
                _ => false,
            };
            match is_there {
                true => Ok(()),
                false => check_card(api, upload).await,
            }
        })
    }

    /// What [`push`](Self::push) would do. Nothing is changed; where there is no repository all is new.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn compare(&self, upload: &Upload) -> Result<Comparison> {
        self.block_on(async |api| {
            let Some(view) = View::read(api, &upload.repo).await? else {
                let mut comparison = Comparison::default();
                for file in whole(upload, None)? {
                    let size = sums::state(&file)?.size;
                    comparison.send.push((file.path, size));
                }
                return Ok(comparison);
            };
            allow(upload, &view)?;
            let files = whole(upload, view.marker.as_ref())?;
            let mut sums = Sums::new(&upload.known, api.teller());
            let keep = kept(upload, &files, view.marker.as_ref());
            let changes = view.changes(&files, &keep, &mut sums)?;
            Ok(Comparison {
                send: sizes(&changes)?,
                unchanged: changes.unchanged,
                delete: changes.delete,
            })
        })
    }

    /// Makes the repository, which has to be there, hold the files, and puts the tag on the commit that holds them.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Card`], [`Error::TooLarge`], [`Error::HoldsToken`] before anything is sent;
    /// [`Error::Moved`] when others commit again and again; those of the network, and the Hub's refusals.
    pub fn push(&self, upload: &Upload) -> Result<Pushed> {
        self.block_on(async |api| {
            let mut pushed = Pushed::default();
            let mut sums = Sums::new(&upload.known, api.teller());
            let done = push(api, upload, &mut sums, self.access, &mut pushed).await;
            pushed.known = std::mem::take(&mut sums.used);
            done.map(|()| pushed)
        })
    }
}

async fn create(api: &Api, repo: &RepoId, private: bool) -> Result<bool> {
    let url = repo.to_string();
    let body = json!({
        "name": repo.name, "organization": repo.org, "type": repo.kind.as_str(), "private": private,
    });
    let mut tries = 0;
    loop {
        let answer = api
            .send(&url, &Ask::post("/api/repos/create", &body))
            .await?;
        if answer.is_success() {
            return Ok(true);
        }
        // Also the answer to a request that was sent again because the answer to the first was lost.
        if answer.status == 409 {
            let busy = answer.sentence().to_lowercase().contains("in progress");
            if busy && tries < TRIES {
                api.pause(tries).await;
                tries += 1;
                continue;
            }
            if View::read(api, repo).await?.is_some() {
                return Ok(false);
            }
        }
        return Err(api.refusal(&url, Doing::Creating, &answer));
    }
}

/// That this upload may go into what is there.
fn allow(upload: &Upload, view: &View) -> Result<()> {
    let url = upload.repo.to_string();
    let Some(marker) = &view.marker else {
        let may = upload.into_existing || (upload.made_by_us && view.is_empty());
        if upload.onto.is_some() {
            return Err(Error::Refused {
                url,
                problem: "there is nothing of this run yet that scores could be added to".into(),
                hint: "push the adapter or the merged model first (--what adapter, merged or all)"
                    .into(),
            });
        }
        return match may {
            true => Ok(()),
            false => Err(Error::Foreign { url }),
        };
    };
    match upload.onto {
        Some(stage) if marker.stages.get(stage) != upload.marker.stages.get(stage) => {
            Err(Error::Refused {
                url,
                problem: format!(
                    "the {} there is of another training than these scores",
                    marker.what
                ),
                hint: "push the model with its scores (--what merged, adapter or all)".into(),
            })
        }
        _ if marker.what != upload.marker.what && !upload.into_existing => Err(Error::Refused {
            url,
            problem: format!(
                "an earlier push put a {} there, and this is a {}",
                marker.what, upload.marker.what
            ),
            hint: "name a repository for each in [hub], or push with --into-existing to have it replaced".into(),
        }),
        _ => Ok(()),
    }
}

/// The files with the marker, which names them.
fn whole(upload: &Upload, theirs: Option<&Marker>) -> Result<Vec<UploadFile>> {
    let mut marker = upload.marker.clone();
    marker.schema = SCHEMA;
    let mut paths: BTreeSet<String> = upload.files.iter().map(|file| file.path.clone()).collect();
    if let (Some(_), Some(theirs)) = (upload.onto, theirs) {
        paths.extend(theirs.files.iter().cloned());
        for (stage, sum) in &theirs.stages {
            marker.stages.entry(stage.clone()).or_insert(sum.clone());
        }
    }
    marker.files = paths.into_iter().collect();
    let mut text = serde_json::to_vec_pretty(&marker).map_err(|error| Error::Server {
        url: upload.repo.to_string(),
        source: error.into(),
    })?;
    text.push(b'\n');
    let mut files = upload.files.clone();
    files.push(UploadFile::bytes(MARKER, text));
    Ok(files)
}

/// The paths that stay.
fn kept<'a>(
    upload: &Upload,
    files: &'a [UploadFile],
    theirs: Option<&'a Marker>,
) -> BTreeSet<&'a str> {
    let ours = files.iter().map(|file| file.path.as_str());
    let theirs = theirs.filter(|_| upload.onto.is_some());
    let theirs = theirs.iter().flat_map(|marker| &marker.files);
    ours.chain(theirs.map(String::as_str)).collect()
}

fn sizes(changes: &Changes<'_>) -> Result<Vec<(String, u64)>> {
    let of = |file: &&UploadFile| Ok((file.path.clone(), sums::state(file)?.size));
    changes.send.iter().map(of).collect()
}

async fn push(
    api: &Api,
    upload: &Upload,
    sums: &mut Sums,
    access: &Access,
    pushed: &mut Pushed,
) -> Result<()> {
    let (repo, url) = (&upload.repo, upload.repo.to_string());
    let (mut tries, mut stored) = (0, BTreeSet::new());
    let (mut allowed, mut checked) = (false, false);
    loop {
        let view = View::read(api, repo).await?;
        let view = view.ok_or_else(|| Error::NotFound {
            url: url.clone(),
            what: "repository that this token can see",
        })?;
        // Files that others commit while this push is under way make its repository no foreign one.
        if !allowed || view.marker.is_some() {
            allow(upload, &view)?;
            let private = view.private.filter(|private| *private != upload.private);
            if let Some(private) = private.filter(|_| !allowed) {
                let word = |private| if private { "private" } else { "public" };
                api.say(&format!(
                    "{url}: it is {} and stays so, where hub.private asks for a {} one: its settings on the Hub change that",
                    word(private),
                    word(upload.private)
                ));
            }
            allowed = true;
        }
        let files = whole(upload, view.marker.as_ref())?;
        if !checked {
            check_token(api, &files)?;
        }
        let keep = kept(upload, &files, view.marker.as_ref());
        let changes = view.changes(&files, &keep, sums)?;
        if changes.is_empty() {
            // Of a push whose answer was lost, or of an earlier one.
            pushed.commit = view.commit.unwrap_or_default();
            if pushed.sent.is_empty() {
                pushed.unchanged = changes.unchanged;
            }
            return tag(api, upload, &pushed.commit).await;
        }
        if !checked {
            check_card(api, upload).await?;
            checked = true;
        }
        (pushed.sent, pushed.unchanged) = (sizes(&changes)?, changes.unchanged);
        pushed.deleted.clone_from(&changes.delete);
        let lines = send(api, upload, &changes, sums, access, &mut stored).await?;
        match commit(api, upload, view.commit.as_deref(), &lines).await? {
            Committed::As(commit) => {
                (pushed.commit, pushed.is_new) = (commit, true);
                return tag(api, upload, &pushed.commit).await;
            }
            Committed::Perhaps(problem) => {
                tries += 1;
                if tries >= TRIES {
                    return Err(match problem {
                        Error::Refused { .. } => Error::Moved { url, tries },
                        problem => problem,
                    });
                }
                pushed.is_new = true;
                api.say(&format!("{problem}; looking at the repository again"));
                api.pause(tries - 1).await;
            }
        }
    }
}

/// No file that could go into the commit itself may hold the token; larger ones, which are data and weights, are not searched.
fn check_token(api: &Api, files: &[UploadFile]) -> Result<()> {
    let Some(token) = api.token().filter(|token| token.len() >= 8) else {
        return Ok(());
    };
    for file in files {
        if sums::state(file)?.size > LARGEST_INLINE {
            continue;
        }
        let bytes = sums::whole(file)?;
        if bytes.windows(token.len()).any(|at| at == token.as_bytes()) {
            let path = file.path.clone();
            return Err(Error::HoldsToken { path });
        }
    }
    Ok(())
}

/// Asks the Hub whether it takes the card.
async fn check_card(api: &Api, upload: &Upload) -> Result<()> {
    let Some(card) = upload.files.iter().find(|file| file.path == CARD) else {
        return Ok(());
    };
    let (url, text) = (upload.repo.to_string(), sums::whole(card)?);
    let body = json!({
        "repoType": upload.repo.kind.as_str(), "content": String::from_utf8_lossy(&text),
    });
    let answer = api
        .send(&url, &Ask::post("/api/validate-yaml", &body))
        .await?;
    let messages = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        let messages = list.filter_map(|entry| entry["message"].as_str());
        messages.collect::<Vec<_>>().join("; ")
    };
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        400 => {
            let problem = match messages(&json["errors"]) {
                empty if empty.is_empty() => answer.sentence(),
                messages => messages,
            };
            Err(Error::Card { url, problem })
        }
        404 => {
            api.say(&format!("{url}: this Hub does not check cards"));
            Ok(())
        }
        _ if answer.is_success() => {
            let warnings = messages(&json["warnings"]);
            if !warnings.is_empty() {
                api.say(&format!("{url}: the Hub says of the card: {warnings}"));
            }
            Ok(())
        }
        _ => Err(api.refusal(&url, Doing::Sending, &answer)),
    }
}

/// Brings large files into the Hub's storage; the commit's lines about all files.
async fn send(
    api: &Api,
    upload: &Upload,
    changes: &Changes<'_>,
    sums: &mut Sums,
    access: &Access,
    stored: &mut BTreeSet<String>,
) -> Result<Vec<Value>> {
    let repo = &upload.repo;
    let modes = modes(api, repo, &changes.send).await?;
    let (mut inline, mut large, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for &file in &changes.send {
        let state = sums::state(file)?;
        let is_large = modes.get(&file.path).is_some_and(|mode| mode == "lfs");
        if state.size > LARGEST {
            return Err(too_large(
                file,
                state.size,
                LARGEST,
                "the most that the Hub takes in one file",
            ));
        }
        match is_large && state.size > 0 {
            true => {
                large.push(Large {
                    file,
                    sha256: sums.sha256(file)?,
                    size: state.size,
                });
                before.push(state);
            }
            false if state.size > LARGEST_INLINE => {
                let what =
                    "and the Hub wants this file in the commit itself, where that is the most";
                return Err(too_large(file, state.size, LARGEST_INLINE, what));
            }
            false => inline.push(file),
        }
    }
    let mut lines = Vec::new();
    if !large.is_empty() {
        if large::takes_xet(api, repo, &large).await? {
            let missing: Vec<Large<'_>> = large
                .iter()
                .filter(|large| !stored.contains(&large.sha256))
                .cloned()
                .collect();
            if !missing.is_empty() {
                large::send(api, repo, &missing, &access.cache.join("xet")).await?;
            }
            for (large, state) in large.iter().zip(before) {
                sums::check_unchanged(large.file, state)?;
                stored.insert(large.sha256.clone());
            }
            lines.extend(large.iter().map(large::line));
        } else {
            for large in &large {
                if large.size > LARGEST_INLINE {
                    let what = "the most for a file in the commit itself, and this Hub offers no Xet storage";
                    return Err(too_large(large.file, large.size, LARGEST_INLINE, what));
                }
                inline.push(large.file);
            }
        }
    }
    let total: u64 = changes.send.len() as u64;
    let said = |n: u64| match n {
        1 => "1 file".to_owned(),
        n => format!("{n} files"),
    };
    api.say(&format!("{repo}: committing {}", said(total)));
    for file in inline {
        let content = STANDARD.encode(sums::whole(file)?);
        lines.push(json!({"key": "file", "value": {
            "path": file.path, "encoding": "base64", "content": content,
        }}));
    }
    for path in &changes.delete {
        lines.push(json!({"key": "deletedFile", "value": {"path": path}}));
    }
    Ok(lines)
}

fn too_large(file: &UploadFile, size: u64, limit: u64, what: &'static str) -> Error {
    Error::TooLarge {
        path: file.path.clone(),
        size,
        limit,
        what,
    }
}

/// `lfs` or `regular`, by path.
async fn modes(
    api: &Api,
    repo: &RepoId,
    files: &[&UploadFile],
) -> Result<BTreeMap<String, String>> {
    let url = repo.to_string();
    let path = format!("/api/{}/{}/preupload/main", repo.kind.plural(), repo.id());
    let mut modes = BTreeMap::new();
    for files in files.chunks(PREUPLOAD) {
        let mut asked = Vec::new();
        for file in files {
            asked.push(json!({
                "path": file.path,
                "size": sums::state(file)?.size,
                "sample": STANDARD.encode(sums::sample(file)?),
            }));
        }
        let ask = Ask::post(path.clone(), &json!({"files": asked}));
        let answer = api.ask(&url, Doing::Sending, &ask).await?.json(&url)?;
        for entry in answer["files"].as_array().into_iter().flatten() {
            let Some(path) = entry["path"].as_str() else {
                continue;
            };
            if entry["shouldIgnore"] == true {
                return Err(Error::Refused {
                    url,
                    problem: format!("the repository's .gitignore leaves out {path}"),
                    hint: "take the line out of .gitignore there, or name another repository"
                        .into(),
                });
            }
            let mode = entry["uploadMode"].as_str().unwrap_or("regular");
            modes.insert(path.to_owned(), mode.to_owned());
        }
    }
    Ok(modes)
}
