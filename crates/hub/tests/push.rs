//! Pushes to a Hub on loopback, and what was pushed pulled back.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/elsewhere/mod.rs"]
mod elsewhere;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elsewhere::Answer;
use elsewhere::loopback_hub::{Fault, LoopbackHub, READER, TOKEN, error};
use stillroom_hub::repo::upload::{Contents, Look, MARKER, Marker, Pushed, Upload, UploadFile};
use stillroom_hub::{Access, Error, Kind, Pusher, RepoId, Result, Say, Source};

const CARD: &str = "---\nlicense: mit\n---\n\n# x\n";

struct Here {
    folder: tempfile::TempDir,
    access: Access,
    said: Arc<Mutex<Vec<String>>>,
    stop: AtomicBool,
}

impl Here {
    fn of(hub: &LoopbackHub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let access = Access {
            endpoint: hub.endpoint().to_owned(),
            token: Some(TOKEN.into()),
            hub_cache: folder.path().join("hub"),
            cache: folder.path().join("cache"),
            offline: false,
            options: Vec::new(),
        };
        Self {
            folder,
            access,
            said: Arc::default(),
            stop: AtomicBool::new(false),
        }
    }

    fn say(&self) -> Say {
        let said = self.said.clone();
        Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()))
    }

    fn pusher(&self) -> Pusher<'_> {
        let pusher = Pusher::new(&self.access, self.say(), &self.stop).unwrap();
        pusher.pausing(Duration::from_millis(1))
    }

    fn push(&self, upload: &Upload) -> Result<Pushed> {
        let pusher = self.pusher();
        if pusher.look(&upload.repo)? == Look::Absent {
            pusher.create(&upload.repo, true)?;
        }
        pusher.push(upload)
    }

    /// Whether the last calls said something with these words.
    fn said(&self, words: &str) -> bool {
        let said = self.said.lock().unwrap();
        said.iter().any(|line| line.contains(words))
    }

    fn fails(&self, upload: &Upload, words: &[&str]) -> Error {
        let error = self.push(upload).unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        assert!(
            !format!("{error:?} {text}").contains("hf_loopback"),
            "{text}"
        );
        error
    }
}

/// A model of four files, one of them large.
fn upload(name: &str, weights: &[u8]) -> Upload {
    let files = [
        ("README.md", CARD.as_bytes()),
        ("config.json", b"{}\n"),
        ("empty", b""),
        ("deep/er/model.safetensors", weights),
    ];
    Upload {
        repo: RepoId::parse(Kind::Model, &format!("org/{name}")).unwrap(),
        files: files
            .iter()
            .map(|(path, bytes)| UploadFile::bytes(*path, *bytes))
            .collect(),
        marker: Marker {
            stillroom: "0.1.0".into(),
            recipe: "r".into(),
            identity: "i".into(),
            what: "merged".into(),
            ..Marker::default()
        },
        message: "Merged model".into(),
        tag: "stillroom-0123456789ab".into(),
        made_by_us: true,
        into_existing: false,
        private: true,
        onto: None,
        known: BTreeMap::new(),
    }
}

fn weights(seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..300_000).map(|_| next()).collect()
}

/// That the repository holds these files, and the marker, and what the Hub itself puts there.
fn holds(hub: &LoopbackHub, upload: &Upload, more: &[&str]) {
    let mut found = hub.files(&format!("models/{}", upload.repo.id())).unwrap();
    let marker: Marker = serde_json::from_slice(&found.remove(MARKER).unwrap()).unwrap();
    let mut paths: Vec<String> = upload.files.iter().map(|file| file.path.clone()).collect();
    paths.sort();
    assert_eq!(marker.files, paths);
    for file in &upload.files {
        let bytes = match &file.contents {
            Contents::Bytes(bytes) => bytes.clone(),
            Contents::File { path, .. } => std::fs::read(path).unwrap(),
        };
        assert!(found.remove(&file.path).unwrap() == bytes, "{}", file.path);
    }
    let mut others = vec![".gitattributes"];
    others.extend(more);
    assert_eq!(found.keys().collect::<Vec<_>>(), others);
}

fn commits(asked: &[String]) -> usize {
    let commit = |line: &&String| line.starts_with("POST") && line.contains("/commit/");
    asked.iter().filter(commit).count()
}

#[test]
fn a_push_makes_one_commit_with_its_tag_and_the_next_sends_nothing() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let upload = upload("a", &weights(0));
    let pushed = here.push(&upload).unwrap();
    assert!(pushed.is_new && pushed.sent.len() == 5);
    assert_eq!(commits(&hub.asked()), 1);
    holds(&hub, &upload, &[]);
    assert_eq!(hub.is_private("models/org/a"), Some(true));
    let tags = BTreeMap::from([(upload.tag.clone(), true)]);
    assert_eq!(hub.tags("models/org/a"), tags);
    assert!(here.said("sending hf://org/a (0.3 MB)"));

    let again = here.push(&upload).unwrap();
    assert_eq!(
        (again.sent.len(), again.unchanged, again.is_new),
        (0, 5, false)
    );
    assert_eq!(again.commit, pushed.commit);
    let asked = hub.asked();
    assert!(
        !asked.iter().any(|line| line.starts_with("POST")),
        "{asked:#?}"
    );
}

#[test]
fn what_changed_is_sent_and_what_is_gone_goes_and_the_tag_moves() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let first = upload("a", &weights(0));
    here.push(&first).unwrap();
    hub.add("models/org/a", &[("notes.md", b"by hand")]);
    let mut second = upload("a", &weights(0));
    second.files.retain(|file| file.path != "empty");
    second.files[1] = UploadFile::bytes("config.json", "{\"a\":1}\n");
    let comparison = here.pusher().compare(&second).unwrap();
    assert_eq!(comparison.delete, ["empty"]);
    hub.asked();
    let pushed = here.push(&second).unwrap();
    let sent: Vec<&str> = pushed.sent.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(sent, ["config.json", MARKER]);
    assert_eq!(
        (pushed.deleted.as_slice(), pushed.unchanged),
        (&["empty".to_owned()][..], 2)
    );
    let asked = hub.asked();
    assert!(
        !asked.iter().any(|line| line.contains("xet-write-token")),
        "{asked:#?}"
    );
    holds(&hub, &second, &["notes.md"]);
    assert!(hub.tags("models/org/a")[&second.tag]);
    assert!(here.said("moves to the new commit"));
}

#[test]
fn repositories_that_no_push_made_are_left_alone_unless_told_otherwise() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    hub.add("models/org/a", &[("README.md", b"# mine"), ("x.bin", b"1")]);
    let mut upload = upload("a", &weights(0));
    let error = here.fails(&upload, &["org/a", "--into-existing"]);
    assert!(matches!(error, Error::Foreign { .. }));
    assert_eq!(hub.commits("models/org/a").len(), 2);
    upload.into_existing = true;
    here.push(&upload).unwrap();
    holds(&hub, &upload, &["x.bin"]);
    // From now on it is known.
    upload.into_existing = false;
    upload.made_by_us = false;
    assert_eq!(here.push(&upload).unwrap().sent.len(), 0);
    // A repository of the other kind of model.
    upload.marker.what = "adapter".into();
    here.fails(&upload, &["earlier push put a merged there"]);
}

#[test]
fn a_push_that_was_killed_behind_the_creation_goes_on() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let mut upload = upload("a", &weights(0));
    assert!(here.pusher().create(&upload.repo, true).unwrap());
    assert_eq!(
        here.pusher().look(&upload.repo).unwrap(),
        Look::Foreign { empty: true }
    );
    upload.made_by_us = false;
    here.fails(&upload, &["was there before"]);
    upload.made_by_us = true;
    here.push(&upload).unwrap();
    holds(&hub, &upload, &[]);
    assert!(!here.pusher().create(&upload.repo, true).unwrap());
}

#[test]
fn refusals_say_what_they_mean_and_the_next_push_works() {
    let hub = LoopbackHub::start();
    let mut here = Here::of(&hub);
    let answer = |status, message: &str| Fault::Answer(error(status, None, message));
    let limit = |seconds: u64| {
        let named = format!("\"api\";r=0;t={seconds}");
        Fault::Answer(Answer::new(429, "").with("RateLimit", named))
    };
    let cases: Vec<(&str, Fault, usize, Vec<&str>)> = vec![
        (
            "/commit/",
            answer(403, "No."),
            1,
            vec!["may not commit", "write access"],
        ),
        (
            "/commit/",
            answer(403, "Private repository storage limit reached"),
            1,
            vec!["no room left", "private = false"],
        ),
        (
            "repos/create",
            answer(402, "Payment Required"),
            1,
            vec!["pay", "billing"],
        ),
        (
            "/commit/",
            answer(413, ""),
            1,
            vec!["too large", "shard_size"],
        ),
        (
            "/commit/",
            answer(507, "Disk full"),
            1,
            vec!["no room", "Disk full"],
        ),
        ("/commit/", answer(503, "Down"), 99, vec!["503", "later"]),
        (
            "/preupload/",
            answer(500, "Oops"),
            99,
            vec!["500", "Oops", "later"],
        ),
        ("objects/batch", answer(422, "Bad oid"), 1, vec!["Bad oid"]),
        (
            "/commit/",
            answer(409, "Busy"),
            99,
            vec!["changed by others"],
        ),
        (
            "/commit/",
            answer(412, "Moved"),
            99,
            vec!["changed by others", "again"],
        ),
        ("/commit/", limit(9999), 1, vec!["9999 seconds", "wait"]),
        ("/commit/", Fault::Reset(10), 99, vec!["cannot be reached"]),
        ("/tag/", answer(403, ""), 1, vec!["may not put a tag on it"]),
    ];
    for (n, (of, fault, times, words)) in cases.into_iter().enumerate() {
        let name = format!("case{n}");
        let upload = upload(&name, &weights(n as u8));
        hub.fail(of, times, fault);
        here.fails(&upload, &words);
        hub.heal();
        here.push(&upload).unwrap();
        holds(&hub, &upload, &[]);
        assert!(hub.tags(&format!("models/org/{name}"))[&upload.tag]);
    }
    let upload = upload("tokens", &weights(0));
    let check = |here: &mut Here, token: Option<&str>, words: &[&str]| {
        here.access.token = token.map(str::to_owned);
        here.fails(&upload, words);
    };
    check(
        &mut here,
        Some("hf_wrong"),
        &["does not take this token", "hf auth login"],
    );
    check(
        &mut here,
        Some(READER),
        &["may not create", "rights", "organisation"],
    );
    check(&mut here, None, &["asks for a token", "HF_TOKEN"]);
    here.access.token = Some(TOKEN.into());
    hub.state().taken.insert("models/org/tokens".into());
    here.fails(&upload, &["name is taken", "another repository"]);
    here.access.offline = true;
    here.fails(&upload, &["HF_HUB_OFFLINE"]);
}

#[test]
fn what_passes_by_itself_is_waited_for() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let answer = |status| Fault::Answer(error(status, None, "Wait."));
    let limit = Fault::Answer(Answer::new(429, "").with("RateLimit", "\"api\";r=0;t=1"));
    let cases = [
        ("/preupload/", Fault::Reset(7), 2),
        ("/preupload/", answer(503), 2),
        ("objects/batch", Fault::Lost, 1),
        ("xet-write-token", answer(500), 1),
        ("/commit/", Fault::Reset(50), 1),
        ("/commit/", answer(412), 1),
        ("/commit/", answer(409), 1),
        ("/commit/", answer(504), 2),
        ("/commit/", limit, 1),
        ("repos/create", Fault::Lost, 1),
        ("/tree/", answer(502), 1),
        ("/tag/", Fault::Lost, 1),
    ];
    for (n, (of, fault, times)) in cases.into_iter().enumerate() {
        let name = format!("case{n}");
        let upload = upload(&name, &weights(n as u8));
        hub.fail(of, times, fault.clone());
        here.push(&upload)
            .unwrap_or_else(|error| panic!("{of} {fault:?}: {error}"));
        holds(&hub, &upload, &[]);
        assert!(hub.tags(&format!("models/org/{name}"))[&upload.tag]);
    }
    assert!(here.said("waiting 1 seconds"));
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let upload = upload("a", &weights(0));
    hub.fail("/commit/", 1, Fault::Lost);
    let pushed = here.push(&upload).unwrap();
    assert!(pushed.is_new && pushed.sent.len() == 5);
    assert_eq!(hub.commits("models/org/a").len(), 2);
    assert_eq!(commits(&hub.asked()), 1);
    holds(&hub, &upload, &[]);
}

#[test]
fn somebody_elses_commit_between_stays() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let upload = upload("a", &weights(0));
    hub.fail("/commit/", 1, Fault::Between);
    here.push(&upload).unwrap();
    holds(&hub, &upload, &["note.txt"]);
    assert_eq!(hub.commits("models/org/a").len(), 3);
    assert!(here.said("somebody else has committed"));
    // What is in the storage is not sent a second time.
    let asked = hub.asked();
    let tokens = asked.iter().filter(|line| line.contains("xet-write-token"));
    assert_eq!(tokens.count(), 1);
}

#[test]
fn two_pushes_at_once_do_not_mix() {
    let hub = LoopbackHub::start();
    let (one, other) = (Here::of(&hub), Here::of(&hub));
    let uploads: Vec<Upload> = (1..3)
        .map(|n| {
            let mut upload = upload("a", &weights(n));
            upload
                .files
                .push(UploadFile::bytes(format!("only-{n}"), "x"));
            upload.files[1] = UploadFile::bytes("config.json", format!("{{\"n\": {n}}}\n"));
            upload.tag = format!("stillroom-{n}");
            upload
        })
        .collect();
    one.pusher().create(&uploads[0].repo, true).unwrap();
    std::thread::scope(|scope| {
        let work = |here, upload| scope.spawn(move || Here::push(here, upload).unwrap());
        let ends = [work(&one, &uploads[0]), work(&other, &uploads[1])];
        for end in ends {
            end.join().unwrap();
        }
    });
    let found = hub.files("models/org/a").unwrap();
    let last = uploads
        .iter()
        .find(|upload| found.contains_key(&upload.files[4].path))
        .unwrap();
    holds(&hub, last, &[]);
    assert_eq!(hub.tags("models/org/a").len(), 2);
}

#[test]
fn without_xet_small_files_go_into_the_commit_and_large_ones_are_refused() {
    let hub = LoopbackHub::start();
    hub.state().xet = false;
    let here = Here::of(&hub);
    let small = upload("a", &weights(0));
    here.push(&small).unwrap();
    holds(&hub, &small, &[]);
    let large = upload("b", &vec![7; 10_000_001]);
    let error = here.fails(&large, &["model.safetensors", "10000001", "Xet"]);
    assert!(matches!(error, Error::TooLarge { .. }));
    hub.state().xet = true;
    here.push(&large).unwrap();
    holds(&hub, &large, &[]);
}

#[test]
fn a_card_that_the_hub_refuses_and_a_file_with_the_token_are_not_sent() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let mut upload = upload("a", &weights(0));
    upload.files[0] = UploadFile::bytes("README.md", "---\nlicense: mine\n---\n");
    let error = here.fails(
        &upload,
        &["README.md", "\"license\" must be one of", "[hub]"],
    );
    assert!(matches!(error, Error::Card { .. }));
    upload.files[0] = UploadFile::bytes("README.md", format!("token {TOKEN}"));
    let error = here.fails(&upload, &["README.md", "holds the Hub's token"]);
    assert!(matches!(error, Error::HoldsToken { .. }));
    assert_eq!(hub.commits("models/org/a").len(), 1);
    upload.files[0] = UploadFile::bytes("README.md", CARD);
    hub.fail("validate-yaml", 1, Fault::Answer(error_of(404)));
    here.push(&upload).unwrap();
    assert!(here.said("does not check cards"));
}

fn error_of(status: u16) -> Answer {
    error(status, None, "Not found")
}

#[test]
fn a_push_that_is_stopped_goes_on() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let upload = upload("a", &weights(0));
    here.pusher().create(&upload.repo, true).unwrap();
    hub.fail("/commit/", 1, Fault::Silence(3));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !here.said("committing") {
                std::thread::sleep(Duration::from_millis(5));
            }
            here.stop.store(true, Ordering::Relaxed);
        });
        assert!(matches!(here.push(&upload), Err(Error::Interrupted)));
    });
    here.stop.store(false, Ordering::Relaxed);
    here.push(&upload).unwrap();
    holds(&hub, &upload, &[]);
}

#[test]
fn scores_are_added_to_the_model_they_are_of() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let mut model = upload("a", &weights(0));
    model.marker.stages.insert("student".into(), "s1".into());
    let mut scores = model.clone();
    scores.files = vec![
        UploadFile::bytes("README.md", format!("{CARD}scores")),
        UploadFile::bytes("scores/scores.json", "{}"),
    ];
    scores.onto = Some("student");
    here.fails(&scores, &["nothing of this run", "--what"]);
    here.push(&model).unwrap();
    let mut others = scores.clone();
    others.marker.stages.insert("student".into(), "s2".into());
    here.fails(&others, &["another training"]);
    here.push(&scores).unwrap();
    let found = hub.files("models/org/a").unwrap();
    assert!(found.contains_key("scores/scores.json") && found.contains_key("config.json"));
    let marker: Marker = serde_json::from_slice(&found[MARKER]).unwrap();
    assert_eq!(marker.files.len(), 5);
    // The model without its scores: they were another student's.
    here.push(&model).unwrap();
    holds(&hub, &model, &[]);
}

#[test]
fn files_of_this_disk_are_hashed_once_and_come_back_byte_for_byte() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    let path = here.folder.path().join("rows.parquet");
    std::fs::write(&path, weights(9)).unwrap();
    let mut upload = upload("rows", &weights(0));
    upload.repo.kind = Kind::Dataset;
    upload.files.push(UploadFile {
        path: "data/train-00000-of-00001.parquet".into(),
        contents: Contents::File {
            path: path.clone(),
            blake3: Some("b".into()),
        },
    });
    let pushed = here.push(&upload).unwrap();
    assert_eq!(pushed.known["b"], elsewhere::sha256(&weights(9)));
    // Known from before, it is not read for its hash: a wrong one shows.
    upload.known = BTreeMap::from([("b".to_owned(), "0".repeat(64))]);
    let comparison = here.pusher().compare(&upload).unwrap();
    assert_eq!(comparison.send.len(), 1);
    upload.known = pushed.known;
    assert_eq!(here.push(&upload).unwrap().sent.len(), 0);

    let source = format!("hf://datasets/org/rows@{}/data/*.parquet", upload.tag);
    let source = Source::parse(&source).unwrap().unwrap();
    let fetched = source.fetch(&here.access, here.say()).unwrap();
    assert_eq!(fetched.len(), 1);
    assert!(std::fs::read(&fetched[0].path).unwrap() == weights(9));
    assert!(fetched[0].url.contains(&pushed.commit));
}

#[test]
fn a_repository_says_which_licence_it_has() {
    let hub = LoopbackHub::start();
    let here = Here::of(&hub);
    hub.add("models/org/a", &[("README.md", CARD.as_bytes())]);
    hub.add("models/org/b", &[("README.md", b"# none")]);
    let licence = |name: &str| {
        let url = stillroom_hub::RepoUrl::parse_model(&format!("org/{name}@main"));
        here.pusher().licence(&url.unwrap().unwrap()).unwrap()
    };
    assert_eq!(licence("a").as_deref(), Some("mit"));
    assert_eq!(licence("b"), None);
    assert_eq!(here.pusher().who().unwrap().name, "tester");
}
