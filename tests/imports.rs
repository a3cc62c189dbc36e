//! A set of traces from elsewhere becomes a run's traces and a dataset, and both can be looked at.
#![allow(clippy::unwrap_used)]

mod world;

use serde_json::{Value, json};
use world::{World, texts};

const RECIPE: &str = r#"
name = "imported"

[traces]
source = "set/*.jsonl"
format = "openr1"

[dataset]
"#;

fn world() -> World {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    std::fs::create_dir(world.path("set")).unwrap();
    let row = |problem: &str, gold: Value, generations: Value| {
        format!(
            "{}\n",
            json!({"problem": problem, "answer": gold, "generations": generations, "source": "olympiads"})
        )
    };
    let first = row(
        "1+1",
        json!("2"),
        json!([
            "<think>one and one</think>\\boxed{2}",
            "<think>no</think>\\boxed{3}\u{1b}[2J",
            "<think>cut"
        ]),
    );
    let second = row(
        "2+2",
        json!(4),
        json!(["<think>two twos</think>\\boxed{4}"]),
    );
    world.write("set/a.jsonl", &format!("{first}{second}"));
    world
}

/// Exit code 2, with a message that has all the words.
fn refused(world: &World, args: &[&str], words: &[&str]) {
    let output = world.stillroom(args);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    for word in words {
        assert!(err.contains(word), "no `{word}` in\n{err}");
    }
}

fn lines(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

#[test]
fn a_set_is_imported_verified_and_shown() {
    let world = world();
    let (out, _) = world.works(&["run", "recipe.toml", "--dry-run"]);
    assert!(
        out.contains("format openr1") && !world.path("runs").exists(),
        "{out}"
    );
    world.works(&["build-dataset", "recipe.toml", "--quiet"]);
    let manifest =
        std::fs::read_to_string(world.path("runs/imported/traces/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["stage"], "traces");
    assert_eq!(manifest["counts"]["traces"], 4);
    let stats = std::fs::read_to_string(world.path("runs/imported/dataset/stats.json")).unwrap();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(
        (&stats["train"], &stats["rejected"]),
        (&json!(2), &json!(2))
    );

    // Nothing changed, and `run` finds both stages complete.
    let (_, err) = world.works(&["run", "recipe.toml"]);
    assert!(err.contains("nothing to do"), "{err}");

    let (out, _) = world.works(&["show", "dataset", "runs/imported"]);
    assert_eq!(lines(&out, "── "), 4, "{out}");
    assert!(
        out.contains("\\boxed{3}␛[2J") && !out.contains('\u{1b}'),
        "{out}"
    );
    assert_eq!(lines(&out, "reasoning: "), 4, "{out}");
    let shown = |args: &[&str]| {
        let (out, _) = world.works(&[&["show", "dataset", "runs/imported"], args].concat());
        lines(&out, "── ")
    };
    assert_eq!(shown(&["--where", "split = 'rejected'"]), 2);
    assert_eq!(shown(&["--where", "truncated AND repetition < 1"]), 1);
    assert_eq!(shown(&["--where", "reject_reason IS NULL"]), 2);
    assert_eq!(shown(&["--limit", "1"]), 1);
    assert_eq!(shown(&["--where", "false"]), 0);
    let (out, _) = world.works(&[
        "show",
        "traces",
        "runs/imported",
        "--columns",
        "problem,finish_reason",
        "--where",
        "finish_reason = 'length'",
    ]);
    assert_eq!(out, "problem: 1+1\nfinish_reason: length\n\n");

    let refused = |args: &[&str], words: &[&str]| refused(&world, args, words);
    let condition = |sql: &str, words: &[&str]| {
        refused(&["show", "traces", "runs/imported", "--where", sql], words);
    };
    condition("verdct = 1", &["--where", "verdct", "finish_reason"]);
    condition("1 IN (SELECT 1)", &["is a query"]);
    condition("problem", &["not a condition"]);
    refused(
        &["show", "traces", "runs/imported", "--columns", "x"],
        &["no column `x`", "trace_id"],
    );
    refused(&["show", "traces", "nowhere"], &["no such folder"]);
}

#[test]
fn sampling_and_importing_do_not_meet() {
    let world = world();
    let refused = |args: &[&str], words: &[&str]| refused(&world, args, words);
    world.write(
        "both.toml",
        &format!("{RECIPE}\n[prompts]\nsource = \"train.jsonl\"\n"),
    );
    refused(
        &["gen-traces", "both.toml"],
        &["both.toml:6: traces.format", "[prompts]", "allowed"],
    );
    refused(
        &["gen-traces", "recipe.toml", "--shard", "0/2"],
        &["--shard"],
    );
    let set = |argument: &str, words: &[&str]| {
        refused(&["run", "recipe.toml", "--set", argument], words);
    };
    set("traces.format=openr2", &["openr2", "prompt_completion"]);
    set(
        "traces.messages=turns",
        &["traces.messages", "openr1", "finish_reason"],
    );
    set("traces.source=set/a.csv", &["traces.source", "set/a.csv"]);
    set("traces.format=s1k", &["a.jsonl", "no column `question`"]);
    // A folder of sampled traces stays what it is.
    std::fs::create_dir_all(world.path("runs/imported/traces")).unwrap();
    world.write("runs/imported/traces/journal.sqlite", "");
    refused(&["run", "recipe.toml"], &["holds traces that were sampled"]);
}

#[test]
fn rows_without_a_completion_are_listed_and_the_rest_is_used() {
    let world = world();
    world.write(
        "set/b.jsonl",
        "{\"problem\": \"3+3\", \"generations\": null}\n",
    );
    let output = world.stillroom(&["run", "recipe.toml"]);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("`generations` is null or empty"), "{err}");
    assert!(world.path("runs/imported/dataset/manifest.json").exists());
}
