//! Writing the world: the problem sets, both models' folders, and what the models learn from.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::curriculum::{Curriculum, STUDENT_CURRICULUM, TEACHER_CURRICULUM};
use crate::problem::{CHAIN, Problem, is_held_out};
use crate::shape::{STUDENT, Shape, TEACHER, generation_config_json};
use crate::tokenizer::{tokenizer_config_json, tokenizer_json};

/// Rows of `train.jsonl`: prompts to sample the teacher on.
pub const N_TRAIN: usize = 8192;
/// Rows of `heldout.jsonl`: problems that no training file contains.
pub const N_HELD_OUT: usize = 256;

/// Each file draws from its own stream of the seed, so that changing one leaves the others.
#[derive(Clone, Copy)]
enum Stream {
    Train,
    HeldOut,
    Teacher,
    Student,
}

fn rng(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream as u64);
    rng
}

/// Writes the whole world into `out`, the same bytes for the same seed.
pub fn write_world(out: &Path, seed: u64) -> Result<()> {
    write_problems(out, "train.jsonl", N_TRAIN, false, rng(seed, Stream::Train))?;
    write_problems(
        out,
        "heldout.jsonl",
        N_HELD_OUT,
        true,
        rng(seed, Stream::HeldOut),
    )?;
    for shape in [TEACHER, STUDENT] {
        write_model_folder(&out.join(shape.name), &shape)?;
    }
    let training = out.join("training");
    write_curriculum(
        &training.join("teacher.jsonl"),
        &TEACHER_CURRICULUM,
        rng(seed, Stream::Teacher),
    )?;
    write_curriculum(
        &training.join("student.jsonl"),
        &STUDENT_CURRICULUM,
        rng(seed, Stream::Student),
    )
}

/// Writes `count` different problems of one side of the split, as rows of `problem` and `answer`.
fn write_problems(
    out: &Path,
    name: &str,
    count: usize,
    held_out: bool,
    mut rng: ChaCha8Rng,
) -> Result<()> {
    let lengths: Vec<usize> = CHAIN.collect();
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    while rows.len() < count {
        let problem = Problem::sample(&mut rng, lengths[seen.len() % lengths.len()]);
        let text = problem.text();
        let Some(answer) = problem.answer() else {
            continue;
        };
        if is_held_out(&text) == held_out && seen.insert(text.clone()) {
            rows.push(json!({ "problem": text, "answer": answer.to_string() }));
        }
    }
    write_rows(&out.join(name), rows.into_iter())
}

/// Writes everything of a model folder but its weights.
fn write_model_folder(folder: &Path, shape: &Shape) -> Result<()> {
    for (name, value) in [
        ("config.json", shape.config_json()),
        ("generation_config.json", generation_config_json()),
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config_json()),
    ] {
        let path = folder.join(name);
        let mut text = serde_json::to_string_pretty(&value)?;
        text.push('\n');
        records::atomic::write(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn write_curriculum(path: &Path, curriculum: &Curriculum, mut rng: ChaCha8Rng) -> Result<()> {
    write_rows(
        path,
        curriculum
            .examples(&mut rng)
            .map(|exchange| exchange.to_json()),
    )
}

fn write_rows(path: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    records::atomic::write_with(path, |file| {
        let mut file = BufWriter::new(file);
        for row in rows {
            serde_json::to_writer(&mut file, &row)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    })
    .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn rows(path: &Path) -> Vec<Value> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn problems(path: &Path) -> HashSet<String> {
        rows(path)
            .iter()
            .map(|row| row["problem"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_world_is_whole_and_its_held_out_problems_are_in_no_training_file() {
        let dir = tempfile::tempdir().unwrap();
        write_world(dir.path(), 7).unwrap();
        let held_out = problems(&dir.path().join("heldout.jsonl"));
        let train = problems(&dir.path().join("train.jsonl"));
        assert_eq!((train.len(), held_out.len()), (N_TRAIN, N_HELD_OUT));
        assert!(train.is_disjoint(&held_out));
        for name in ["teacher", "student"] {
            let rows = rows(&dir.path().join(format!("training/{name}.jsonl")));
            assert!(rows.len() > 10_000, "{name}: {}", rows.len());
            // A list with a different question is still the same problem: compare the lists.
            let lists: HashSet<&str> = held_out.iter().map(|text| list(text)).collect();
            for row in &rows {
                let user = row["messages"][0]["content"].as_str().unwrap();
                assert!(!lists.contains(list(user)), "{user}");
            }
            for file in [
                "config.json",
                "generation_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ] {
                assert!(dir.path().join(name).join(file).is_file(), "{name}/{file}");
            }
        }
    }

    /// The statement without its question.
    fn list(text: &str) -> &str {
        let end = [" What", " Do only", " Write"]
            .iter()
            .filter_map(|question| text.find(question))
            .min();
        &text[..end.unwrap_or(text.len())]
    }

    #[test]
    fn the_same_seed_gives_the_same_problems() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, seed| {
            write_problems(dir.path(), name, 100, false, rng(seed, Stream::Train)).unwrap();
            fs::read(dir.path().join(name)).unwrap()
        };
        assert_eq!(write("a", 1), write("b", 1));
        assert_ne!(write("c", 1), write("d", 2));
    }

    #[test]
    fn answers_are_the_problems_own() {
        let dir = tempfile::tempdir().unwrap();
        write_problems(dir.path(), "x", 300, true, rng(0, Stream::HeldOut)).unwrap();
        for row in rows(&dir.path().join("x")) {
            let answer: u32 = row["answer"].as_str().unwrap().parse().unwrap();
            assert!(answer <= 999);
            assert!(is_held_out(row["problem"].as_str().unwrap()));
        }
    }
}
