//! The whole way on a world of a few kilobytes: run, run again, change a key, kill and resume.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use records::files;
use records::parquet_file::Reader;
use records::trace;
use serde_json::Value;
use world::{World, texts};

const RUN: [&str; 2] = ["run", "recipe.toml"];

fn modified(world: &World) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    world
        .files("runs/tiny")
        .into_iter()
        .map(|(name, bytes)| {
            let path = world.path("runs/tiny").join(&name);
            let time = std::fs::metadata(path).unwrap().modified().unwrap();
            (name, (bytes, time))
        })
        .collect()
}

/// The files whose bytes must not depend on when, how fast or after how many interruptions they
/// were written. Of the traces only the rows are compared: they hold latencies.
fn lasting(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let kept = [
        "dataset/data",
        "dataset/rejected",
        "dataset/README.md",
        "dataset/stats.json",
        "student/adapter",
        "student/merged",
        "scores/scores.json",
        "scores/scores.md",
        "recipe.toml",
    ];
    world
        .files("runs/tiny")
        .into_iter()
        .filter(|(name, _)| kept.iter().any(|kept| name.starts_with(kept)))
        .collect()
}

fn assert_same(a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in a {
        assert!(*bytes == b[name], "{} differs", name.display());
    }
}

fn assert_tidy(world: &World) {
    for name in world.files("runs/tiny").keys() {
        let name = name.to_string_lossy();
        let left = ["-wal", "-shm", ".tmp"]
            .iter()
            .any(|end| name.ends_with(end));
        assert!(!left, "{name} was left behind");
    }
}

#[test]
fn a_run_goes_the_whole_way_and_a_second_one_changes_nothing() {
    let world = World::new();
    let (table, _) = world.works(&RUN);
    for role in ["base", "student", "teacher"] {
        assert!(table.contains(role), "{table}");
    }
    let scores: Value =
        serde_json::from_slice(&world.files("runs/tiny/scores")[&PathBuf::from("scores.json")])
            .unwrap();
    assert_eq!(scores["schema"], 1);
    assert_eq!(scores["benchmarks"][0]["n_questions"], 4);
    assert_eq!(
        scores["benchmarks"][0]["models"].as_array().unwrap().len(),
        3
    );
    for stage in ["traces", "dataset", "student", "scores"] {
        assert!(
            world
                .path("runs/tiny")
                .join(stage)
                .join("manifest.json")
                .exists()
        );
    }
    assert_tidy(&world);

    let before = modified(&world);
    let (again, said) = world.works(&RUN);
    assert_eq!(again, table);
    for stage in ["traces", "dataset", "student", "scores"] {
        assert!(
            said.contains(&format!("{stage}: complete, skipped")),
            "{said}"
        );
    }
    assert!(said.contains("nothing to do"), "{said}");
    assert!(
        before == modified(&world),
        "the second run touched the run folder"
    );
}

#[test]
fn a_changed_training_key_runs_training_and_scores_again_and_nothing_else() {
    let world = World::new();
    world.works(&RUN);
    let before = modified(&world);
    let (_, said) = world.works(&["run", "recipe.toml", "--set", "train.epochs=1"]);
    assert!(said.contains("traces: complete, skipped"), "{said}");
    assert!(said.contains("dataset: complete, skipped"), "{said}");
    assert!(
        said.contains("student: running again: train.epochs: 2 → 1"),
        "{said}"
    );
    assert!(said.contains("scores: running again"), "{said}");
    let after = modified(&world);
    let stage = |files: &BTreeMap<PathBuf, _>, stage: &str| -> Vec<PathBuf> {
        files
            .keys()
            .filter(|name| name.starts_with(stage))
            .cloned()
            .collect()
    };
    for untouched in ["traces", "dataset"] {
        for name in stage(&before, untouched) {
            assert!(
                before[&name] == after[&name],
                "{} was touched",
                name.display()
            );
        }
    }
    let adapter = PathBuf::from("student/adapter/adapter_model.safetensors");
    assert!(before[&adapter].0 != after[&adapter].0);
}

#[test]
fn a_key_that_changes_no_result_runs_nothing_again() {
    let world = World::new();
    world.works(&RUN);
    let args = [
        "run",
        "recipe.toml",
        "--set",
        "generate.concurrency=1",
        "--set",
        "train.keep=1",
    ];
    let (_, said) = world.works(&args);
    assert!(said.contains("nothing to do"), "{said}");
}

#[test]
fn more_prompts_extend_the_traces_and_rebuild_what_follows() {
    let world = World::new();
    world.works(&["run", "recipe.toml", "--set", "prompts.limit=8"]);
    world.works(&RUN);
    let extended = lasting(&world);
    let other = World::new();
    other.works(&RUN);
    assert_same(&extended, &lasting(&other));
}

#[test]
fn batch_size_of_sampling_changes_no_row_and_no_weight() {
    let (one, many) = (World::new(), World::new());
    one.edit_recipe("concurrency = 3", "concurrency = 1");
    many.edit_recipe("concurrency = 3", "concurrency = 64");
    one.works(&RUN);
    many.works(&RUN);
    let (mut one, mut many) = (lasting(&one), lasting(&many));
    one.remove(&PathBuf::from("recipe.toml"));
    many.remove(&PathBuf::from("recipe.toml"));
    assert_same(&one, &many);
}

/// A stage, a file or folder that it writes, and how many lines of it are there when the stage is under way.
const MOMENTS: [(&str, &str, usize); 5] = [
    ("traces", "journal.sqlite", 0),
    ("dataset", ".building", 0),
    ("student", "metrics.jsonl", 1),
    ("student", "metrics.jsonl", 4),
    ("scores", "parts", 0),
];

/// Starts a run and waits until it is in the middle of a stage, which has no manifest yet.
fn started(world: &World, (stage, file, n_lines): (&str, &str, usize)) -> Child {
    let child = world
        .command(&RUN)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = world.path("runs/tiny").join(stage);
    let (file, manifest) = (folder.join(file), folder.join("manifest.json"));
    let is_there = || match n_lines {
        0 => file.exists(),
        n => std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() >= n),
    };
    let begun = Instant::now();
    while !is_there() || manifest.exists() {
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "{} never came",
            file.display()
        );
        std::thread::sleep(Duration::from_micros(100));
    }
    child
}

#[test]
fn killed_in_every_stage_and_started_again_the_outcome_is_the_same() {
    let reference = World::new();
    reference.works(&RUN);
    let world = World::new();
    for moment in MOMENTS {
        let mut child = started(&world, moment);
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        let stage = world.path("runs/tiny").join(moment.0);
        assert!(
            !stage.join("manifest.json").exists(),
            "{moment:?} came too late"
        );
    }
    world.works(&RUN);
    assert_same(&lasting(&reference), &lasting(&world));
    assert_tidy(&world);
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_says_so_and_goes_on_to_the_same_outcome() {
    let reference = World::new();
    reference.works(&RUN);
    let world = World::new();
    let mut interruptions = 0;
    for moment in MOMENTS {
        let child = started(&world, moment);
        let pid = child.id().to_string();
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(130) => {
                interruptions += 1;
                let (_, err) = world::texts(&output);
                assert!(err.contains("interrupted, state saved"), "{err}");
                assert_tidy(&world);
            }
            // The last of the work was done when the signal came.
            Some(0) => break,
            // Before the handler stands, the signal ends the process.
            None => {}
            other => panic!("{other:?}: {}", world::texts(&output).1),
        }
    }
    assert!(interruptions > 2, "{interruptions} stages were interrupted");
    world.works(&RUN);
    assert_same(&lasting(&reference), &lasting(&world));
}

/// The prompts of a run's traces; the world's tokenizer has a token for each byte.
fn prompts(world: &World) -> Vec<String> {
    let parts = files::trace_parts(&world.path("runs/tiny/traces")).unwrap();
    let batches = parts.iter().flat_map(|part| Reader::open(part).unwrap());
    batches
        .flat_map(|batch| trace::from_batch(&batch.unwrap()).unwrap())
        .map(|trace| {
            let ids = trace.prompt_token_ids.unwrap();
            let letters = ids.into_iter().filter_map(|id| u8::try_from(id).ok());
            letters.map(char::from).collect()
        })
        .collect()
}

#[test]
fn t14_a_run_that_goes_on_a_day_later_keeps_its_date() {
    let world = World::new();
    let template = "{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n\
        {{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    for model in ["teacher", "student"] {
        world.write(&format!("{model}/chat_template.jinja"), template);
    }
    let first = ["gen-traces", "recipe.toml", "--set", "prompts.limit=2"];
    world.works(&first);
    let recipe = || std::fs::read_to_string(world.path("runs/tiny/recipe.toml")).unwrap();
    let begun = recipe();
    let line = begun
        .lines()
        .find(|line| line.contains("seconds since 1970"))
        .unwrap();
    let seconds = line.rsplit(' ').next().unwrap();

    // As if the run had been begun in November 2023, and went on today.
    let earlier = begun.replace(seconds, "1700000000");
    world.write("runs/tiny/recipe.toml", &earlier);
    let before = prompts(&world);
    world.works(&["gen-traces", "recipe.toml", "--set", "prompts.limit=4"]);
    let after = prompts(&world);
    assert_eq!((before.len(), after.len()), (4, 8));
    let dated = |date: &str| {
        after
            .iter()
            .filter(|prompt| prompt.starts_with(date))
            .count()
    };
    assert_eq!(dated("2023-11-14"), 4, "{after:?}");
    assert!(recipe().contains("1970): 1700000000\n"));
}

/// The run on a disk that is full: no file may grow beyond so many blocks of 512 bytes.
fn run_within(world: &World, blocks: u32) -> Output {
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let stillroom = world.command(&RUN);
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited, "sh"]);
    shell
        .arg(stillroom.get_program())
        .args(stillroom.get_args())
        .current_dir(world.path(""));
    for (name, value) in stillroom.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.output().unwrap()
}

#[test]
fn a_full_disk_ends_the_run_by_name_and_loses_nothing() {
    let whole = World::new();
    whole.works(&RUN);
    let world = World::new();
    let mut stages = BTreeSet::new();
    for blocks in (0..).map(|step| 16 + 48 * step) {
        let output = run_within(&world, blocks);
        if output.status.success() {
            break;
        }
        let (_, err) = texts(&output);
        let error = err.lines().find(|line| line.starts_with("error: "));
        let error = error.unwrap_or_else(|| panic!("{blocks}: {:?}\n{err}", output.status));
        assert!(error.contains("tiny"), "{blocks}: {err}");
        assert!(!err.contains("panicked"), "{blocks}: {err}");
        stages.extend(error.split(": ").nth(1).map(str::to_owned));
    }
    assert!(stages.len() >= 2, "{stages:?}");
    world.works(&RUN);
    assert_eq!(lasting(&world), lasting(&whole));
    let left = world.files("runs/tiny").into_keys();
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
