//! Results of runs pushed to a Hub on loopback, and pulled back, through the command line.
#![allow(clippy::unwrap_used)]

mod elsewhere;
mod world;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use elsewhere::loopback_hub::{Fault, LoopbackHub, TOKEN};
use serde_json::Value;
use world::{World, texts};

const HUB: &str = r#"
[hub]
dataset_repo = "org/tiny-traces"
model_repo = "org/tiny"
model_license = "apache-2.0"
dataset_license = "cc-by-4.0"
base_license = "mit"
teacher_license = "mit"
data_license = "cc0-1.0"
"#;

struct Run {
    world: World,
    hub: LoopbackHub,
}

impl Run {
    /// A world whose models, problems and benchmark lie on the Hub alone.
    fn new() -> Self {
        let run = Self {
            world: World::new(),
            hub: LoopbackHub::start(),
        };
        for model in ["teacher", "student"] {
            run.add_folder(model, &format!("models/org/{model}"));
            std::fs::remove_dir_all(run.world.path(model)).unwrap();
        }
        for (name, repository) in [
            ("train.jsonl", "datasets/org/math"),
            ("heldout.jsonl", "datasets/org/bench"),
        ] {
            let bytes = std::fs::read(run.world.path(name)).unwrap();
            run.hub.add(repository, &[(name, &bytes)]);
            std::fs::remove_file(run.world.path(name)).unwrap();
        }
        for (old, new) in [
            ("model = \"teacher\"", "model = \"org/teacher@main\""),
            ("model = \"student\"", "model = \"org/student@main\""),
            (
                "\"train.jsonl\"",
                "\"hf://datasets/org/math@main/train.jsonl\"",
            ),
            (
                "\"heldout.jsonl\"",
                "\"hf://datasets/org/bench@main/heldout.jsonl\"",
            ),
        ] {
            run.world.edit_recipe(old, new);
        }
        let recipe = std::fs::read_to_string(run.world.path("recipe.toml")).unwrap();
        run.world.write("recipe.toml", &(recipe + HUB));
        run
    }

    fn add_folder(&self, folder: &str, repository: &str) {
        let files = self.world.files(folder);
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, bytes)| (path.to_str().unwrap(), bytes.as_slice()))
            .collect();
        self.hub.add(repository, &files);
    }

    fn command(&self, args: &[&str], token: bool) -> Command {
        let mut command = self.world.command(args);
        for name in [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HOME", self.world.path("hf"))
            .env("XDG_CACHE_HOME", self.world.path("cache"))
            .env("NO_PROXY", "127.0.0.1");
        if token {
            command.env("HF_TOKEN", TOKEN);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args, true).output().unwrap()
    }

    fn works(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{err}",
            output.status
        );
        assert!(!out.contains(TOKEN) && !err.contains(TOKEN));
        (out, err)
    }

    fn fails(&self, args: &[&str], code: i32, words: &[&str]) {
        let output = self.run(args);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{err}");
        for word in words {
            assert!(err.contains(word), "{args:?}: no `{word}` in\n{err}");
        }
        assert!(!err.contains(TOKEN));
    }

    fn text(&self, key: &str, path: &str) -> String {
        let files = self.hub.files(key).unwrap();
        String::from_utf8(files[path].clone()).unwrap()
    }

    /// That the repositories hold the run's dataset, merged model and adapter, byte for byte.
    fn holds_everything(&self) {
        let made_anew = ["README.md", "manifest.json"];
        self.holds(DATASET, "runs/tiny/dataset", &made_anew);
        self.holds(MERGED, "runs/tiny/student/merged", &[]);
        self.holds(ADAPTER, "runs/tiny/student/adapter", &[]);
    }

    /// That a repository holds the files of a folder of the run, byte for byte, but for those that are named.
    fn holds(&self, key: &str, folder: &str, but: &[&str]) {
        let there = self.hub.files(key).unwrap();
        for (path, bytes) in self.world.files(folder) {
            let path = path.to_str().unwrap();
            if !but.contains(&path) {
                assert!(there.get(path) == Some(&bytes), "{key}: {path}");
            }
        }
    }
}

const DATASET: &str = "datasets/org/tiny-traces";
const MERGED: &str = "models/org/tiny";
const ADAPTER: &str = "models/org/tiny-lora";

#[test]
fn a_run_of_hub_ids_is_pushed_and_another_recipe_starts_from_it() {
    let run = Run::new();
    let (out, err) = run.works(&["run", "recipe.toml", "--push"]);
    let page = |path: &str| format!("{}/{path}\n", run.hub.endpoint());
    let pages = [
        page("datasets/org/tiny-traces"),
        page("org/tiny"),
        page("org/tiny-lora"),
    ];
    assert!(out.ends_with(&pages.concat()), "{out}");
    assert!(err.contains("is created, private"), "{err}");
    run.holds_everything();
    for key in [MERGED, ADAPTER] {
        let files = run.hub.files(key).unwrap();
        for path in [
            "scores/scores.json",
            "scores/samples.parquet",
            "recipe.toml",
            "stillroom.json",
        ] {
            assert!(files.contains_key(path), "{key}: {path}");
        }
        assert_eq!(run.hub.commits(key).len(), 2);
    }
    let card = run.text(ADAPTER, "README.md");
    for part in [
        "license: apache-2.0\nbase_model: org/student\nbase_model_relation: adapter\nlibrary_name: peft\n",
        "datasets:\n- org/tiny-traces\n- org/math\n",
        "type: avg@2",
        "| Teacher | `org/teacher@main` | `mit` |",
        "| Data | `hf://datasets/org/math@main/train.jsonl` | `cc0-1.0` |",
        "LoRA rank",
    ] {
        assert!(card.contains(part), "no {part} in\n{card}");
    }
    let card = run.text(DATASET, "README.md");
    for part in [
        "license: cc-by-4.0\npretty_name: tiny-traces\nsource_datasets:\n- org/math\nsize_categories:",
        "load_dataset(\"org/tiny-traces\")",
        "data/train-*.parquet",
    ] {
        assert!(card.contains(part), "no {part} in\n{card}");
    }
    // The local card is as it was.
    let own = std::fs::read_to_string(run.world.path("runs/tiny/dataset/README.md")).unwrap();
    assert!(own.contains("path/to/this/folder"));

    // Nothing is sent twice.
    run.hub.asked();
    let (again, err) = run.works(&["push-hub", "recipe.toml"]);
    assert_eq!(again, pages.concat());
    assert_eq!(err.matches("nothing to send").count(), 3, "{err}");
    let asked = run.hub.asked();
    assert!(
        !asked.iter().any(|line| line.starts_with("POST")),
        "{asked:#?}"
    );
    let (plan, _) = run.works(&["push-hub", "recipe.toml", "--dry-run"]);
    assert!(
        plan.contains("0 files to send") && plan.contains("license: cc-by-4.0"),
        "{plan}"
    );
    let (_, err) = run.works(&["run", "recipe.toml"]);
    assert_eq!(err.matches("complete, skipped").count(), 4, "{err}");

    // From what was pushed: its rows, its model, and its adapter on the base that it names.
    let tags = run.hub.tags(MERGED);
    let (tag, on_end) = tags.iter().next().unwrap();
    assert!(tag.starts_with("stillroom-") && *on_end);
    let data = format!("train.data=hf://datasets/org/tiny-traces@{tag}/data/train-*.parquet");
    let merged = format!("student.model=org/tiny@{tag}");
    let adapter = format!("train.lora.init_from=hf://models/org/tiny-lora@{tag}");
    let config: Value = serde_json::from_str(&run.text(ADAPTER, "adapter_config.json")).unwrap();
    let base = format!(
        "student.model={}@{}",
        config["base_model_name_or_path"].as_str().unwrap(),
        config["revision"].as_str().unwrap()
    );
    for (name, more) in [
        ("from-merged", &[&merged][..]),
        ("from-adapter", &[&base, &adapter]),
    ] {
        let mut args = vec!["train-student", "recipe.toml", "--quiet", "--run-dir", name];
        args.extend(["--set", &data]);
        more.iter()
            .for_each(|set| args.extend(["--set", set.as_str()]));
        run.works(&args);
    }
    // The adapter says itself which model it is of.
    let recipe = std::fs::read_to_string(run.world.path("recipe.toml")).unwrap();
    let alone = recipe.replace("model = \"org/student@main\"", "");
    run.world.write("alone.toml", &alone);
    let args = ["train-student", "alone.toml", "--run-dir", "alone"];
    let args = [&args[..], &["--set", &data, "--set", &adapter]].concat();
    let (_, err) = run.works(&args);
    assert!(err.contains("which hf://models/org/tiny-lora@"), "{err}");
    assert!(
        run.world.files("alone/student/merged") == run.world.files("from-adapter/student/merged")
    );
    run.hub.asked();
    let (_, err) = run.works(&args);
    assert!(err.contains("complete, skipped"), "{err}");
    assert_eq!(run.hub.asked(), [""; 0]);

    let manifest = std::fs::read_to_string(run.world.path("from-merged/student/manifest.json"));
    let manifest = manifest.unwrap();
    assert!(
        manifest.contains("hf://org/tiny@") && manifest.contains("hf://datasets/org/tiny-traces@")
    );

    // The token is nowhere.
    for (path, bytes) in run.world.files("") {
        let found = bytes.windows(TOKEN.len()).any(|at| at == TOKEN.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[test]
fn a_push_that_is_killed_anywhere_is_taken_up() {
    let run = Run::new();
    run.works(&["run", "recipe.toml", "--quiet"]);
    for of in [
        "POST /api/repos/create",
        "/preupload/",
        "objects/batch",
        "xet-write-token",
        "/commit/",
        "/tag/",
        "org/tiny-lora/commit/",
    ] {
        run.hub.fail(of, 1, Fault::Silence(60));
        let mut child = run
            .command(&["push-hub", "recipe.toml", "--quiet"], true)
            .spawn()
            .unwrap();
        let began = Instant::now();
        while run.hub.is_planned(of) {
            assert!(began.elapsed() < Duration::from_secs(60), "{of}");
            assert!(child.try_wait().unwrap().is_none(), "{of}");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        run.hub.heal();
        run.works(&["push-hub", "recipe.toml", "--quiet"]);
        run.holds_everything();
        for key in [DATASET, MERGED, ADAPTER] {
            assert_eq!(run.hub.commits(key).len(), 2, "{of}: {key}");
            assert_eq!(run.hub.tags(key).len(), 1);
        }
        // The next one begins without them, and without what this one knows.
        run.hub.forget(&[DATASET, MERGED, ADAPTER]);
        std::fs::remove_dir_all(run.world.path("runs/tiny/hub")).unwrap();
    }
}

#[test]
fn what_cannot_be_pushed_is_said_before_anything_is_done() {
    let run = Run::new();
    let dry = |set: &str, code, words: &[&str]| {
        run.fails(
            &["run", "recipe.toml", "--push", "--dry-run", "--set", set],
            code,
            words,
        );
    };
    dry("hub.model_repo=tiny", 2, &["hub.model_repo", "ORG/NAME"]);
    dry("hub.repo=\"a\"", 2, &["unknown key", "dataset_repo"]);
    dry(
        "hub.model_license=other",
        2,
        &["hub.model_license", "model_license_link"],
    );
    let recipe = std::fs::read_to_string(run.world.path("recipe.toml")).unwrap();
    let without = |line: &str| {
        assert!(recipe.contains(line), "{line}");
        run.world.write("other.toml", &recipe.replace(line, ""));
    };
    run.hub.add(
        "models/org/student",
        &[("README.md", b"---\nlicense: gemma\n---\n")],
    );
    without("base_license = \"mit\"\n");
    let push = ["run", "other.toml", "--push", "--dry-run"];
    run.fails(
        &push,
        2,
        &[
            "hub.base_license (of the base model org/student@main)",
            "declares gemma",
        ],
    );
    without(HUB);
    run.fails(&push, 2, &["no such section"]);
    without("dataset_repo = \"org/tiny-traces\"\n");
    let args = ["push-hub", "other.toml", "--what", "dataset"];
    run.fails(&args, 2, &["hub.dataset_repo", "ORG/NAME"]);
    run.fails(
        &["push-hub", "recipe.toml"],
        2,
        &["not complete", "build-dataset"],
    );
    run.hub.add("models/org/tiny", &[("README.md", b"# mine")]);
    run.fails(
        &["run", "recipe.toml", "--push", "--dry-run"],
        2,
        &["org/tiny", "--into-existing"],
    );
    run.works(&[
        "run",
        "recipe.toml",
        "--push",
        "--into-existing",
        "--dry-run",
    ]);
    let output = run
        .command(&["run", "recipe.toml", "--push", "--dry-run"], false)
        .output();
    let (_, err) = texts(&output.unwrap());
    assert!(
        err.contains("needs a token") && err.contains("hf auth login"),
        "{err}"
    );
    assert!(!run.world.path("runs").exists());
}

#[test]
fn parts_are_pushed_by_themselves_and_what_is_not_there_is_said() {
    let run = Run::new();
    for job in ["gen-traces", "build-dataset", "train-student"] {
        run.works(&[job, "recipe.toml", "--quiet"]);
    }
    run.fails(
        &["push-hub", "recipe.toml", "--what", "scores"],
        2,
        &["scores are not complete", "eval-aime"],
    );
    let licence = "hub.model_license=mine";
    run.fails(
        &["push-hub", "recipe.toml", "--set", licence],
        3,
        &[
            "org/tiny: the Hub does not take README.md",
            "must be one of",
        ],
    );
    for key in [DATASET, MERGED, ADAPTER] {
        assert!(run.hub.files(key).is_none());
    }
    let (out, err) = run.works(&["push-hub", "recipe.toml", "--what", "merged"]);
    assert_eq!(out.lines().count(), 1);
    assert!(
        err.contains("scores are not pushed: the student has not been scored"),
        "{err}"
    );
    let card = run.text(MERGED, "README.md");
    assert!(card.contains("has not been scored") && !card.contains("model-index"));
    assert!(run.hub.files(ADAPTER).is_none());
    run.works(&["eval-aime", "recipe.toml", "--quiet"]);
    let scores = ["push-hub", "recipe.toml", "--what", "scores"];
    let (out, err) = run.works(&scores);
    assert!(
        err.contains("org/tiny-lora: it is not there, so the scores are not pushed there"),
        "{err}"
    );
    assert_eq!(out.lines().count(), 1);
    assert!(run.text(MERGED, "README.md").contains("model-index"));
    run.holds(MERGED, "runs/tiny/student/merged", &[]);

    // Another training under the same name is not what the recipe gives.
    let set = ["--set", "train.epochs=1"];
    let args = [&["push-hub", "recipe.toml", "--what", "merged"], &set[..]].concat();
    run.fails(&args, 2, &["train.epochs: 2 → 1", "train-student"]);
}

#[test]
fn an_adapter_of_a_folder_needs_its_base_on_the_hub() {
    let run = Run::new();
    let files = run.hub.files("models/org/student").unwrap();
    std::fs::create_dir(run.world.path("student")).unwrap();
    for (path, bytes) in files {
        std::fs::write(run.world.path("student").join(path), bytes).unwrap();
    }
    let student = ["--set", "student.model=student"];
    let with = |args: &[&'static str]| [args, &student[..]].concat();
    run.fails(
        &with(&["run", "recipe.toml", "--push"]),
        2,
        &[
            "hub.base_model",
            "`student`",
            "ORG/NAME@REVISION",
            "--what merged",
        ],
    );
    run.works(&with(&["run", "recipe.toml", "--quiet"]));
    run.works(&with(&["push-hub", "recipe.toml", "--what", "merged"]));
    assert!(!run.text(MERGED, "README.md").contains("base_model:"));
    let (_, err) = run.works(&with(&[
        "push-hub",
        "recipe.toml",
        "--what",
        "adapter",
        "--set",
        "hub.base_model=org/student@main",
    ]));
    assert!(err.contains("names org/student as its base"), "{err}");
    let config: Value = serde_json::from_str(&run.text(ADAPTER, "adapter_config.json")).unwrap();
    assert_eq!(config["base_model_name_or_path"], "org/student");
    assert_eq!(config["revision"], "main");
    let own = std::fs::read_to_string(
        run.world
            .path("runs/tiny/student/adapter/adapter_config.json"),
    );
    assert!(
        own.unwrap()
            .contains("\"base_model_name_or_path\": \"student\"")
    );
}
