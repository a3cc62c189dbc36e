//! `--shard i/N`: the part of the prompts that one of N jobs samples, into a folder of its own.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use records::manifest::Manifest;
use records::prompt::Prompt;

use crate::error::{Error, Result, io};

/// One of `of` parts, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub index: u32,
    pub of: u32,
}

/// What `--shard` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardArg {
    One(Shard),
    /// `auto/N`: which one the job's scheduler says.
    Auto {
        of: u32,
    },
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("`{text}` is not i/N with i from 0 to N−1, nor auto/N");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let of: u32 = of.parse().ok().filter(|&of| of > 0).ok_or_else(wrong)?;
        if index == "auto" {
            return Ok(ShardArg::Auto { of });
        }
        match index.parse().ok().filter(|&index| index < of) {
            Some(index) => Ok(ShardArg::One(Shard { index, of })),
            None => Err(wrong()),
        }
    }
}

impl Shard {
    /// From the command line, or from a Slurm array of more than one task; Kubernetes' indexed jobs say their index
    /// alone, so `auto/N` says of how many. `environment` gives variables.
    pub fn resolve(
        argument: Option<ShardArg>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        let number = |name: &str| environment(name).and_then(|text| text.parse::<u32>().ok());
        let slurm = number("SLURM_ARRAY_TASK_ID")
            .map(|id| id.saturating_sub(number("SLURM_ARRAY_TASK_MIN").unwrap_or(0)));
        let of = match argument {
            Some(ShardArg::One(shard)) => return Ok(Some(shard)),
            Some(ShardArg::Auto { of }) => of,
            None => match (slurm, number("SLURM_ARRAY_TASK_COUNT")) {
                (Some(_), Some(count)) if count > 1 => count,
                _ => return Ok(None),
            },
        };
        match slurm.or_else(|| number("JOB_COMPLETION_INDEX")) {
            Some(index) if index < of => Ok(Some(Self { index, of })),
            Some(index) => Err(usage(format!("--shard: the job is number {index} of {of}"))),
            None => Err(usage(
                "--shard auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set".into(),
            )),
        }
    }

    /// The name of its folder.
    pub fn folder(self) -> String {
        format!("shard-{:05}-of-{:05}", self.index, self.of)
    }

    /// Whether a prompt is of this part: by the hash that its id is, so that the order of the prompts, and how many
    /// there are, decide nothing.
    pub fn has(self, prompt: &Prompt) -> bool {
        let hash = blake3::hash(prompt.prompt_id.as_bytes());
        let number = hash.as_bytes()[..8]
            .iter()
            .fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        number % u64::from(self.of) == u64::from(self.index)
    }
}

fn usage(message: String) -> Error {
    Error::Usage {
        message,
        hint: "give --shard i/N, with i from 0 to N−1".into(),
    }
}

/// What keeps a traces folder from being read: it is one job's, with its manifest, or every one of its shards has one.
///
/// # Errors
/// A manifest that cannot be read.
pub fn problem(traces: &Path) -> Result<Option<String>> {
    let mut shards: Vec<(u32, u32, PathBuf)> = Vec::new();
    let entries = match std::fs::read_dir(traces) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // A shard that is not seen would not be missed.
        entries => Some(entries.map_err(io(traces))?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(io(traces))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let numbers = name
            .strip_prefix("shard-")
            .and_then(|rest| rest.split_once("-of-"));
        if let Some((Ok(index), Ok(of))) = numbers.map(|(index, of)| (index.parse(), of.parse())) {
            shards.push((index, of, entry.path()));
        }
    }
    shards.sort();
    let whole = Manifest::read(traces)?.is_some();
    let Some(&(_, of, _)) = shards.first() else {
        return Ok((!whole).then(|| "the traces are not complete".into()));
    };
    if whole || shards.iter().any(|&(_, other, _)| other != of) {
        let message = "traces of several ways to divide the prompts lie together: the same samples would be read twice";
        return Ok(Some(message.into()));
    }
    let mut missing: Vec<u32> = (0..of).collect();
    for (index, _, path) in &shards {
        if Manifest::read(path)?.is_some() {
            missing.retain(|other| other != index);
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let listed: Vec<String> = missing.iter().take(10).map(u32::to_string).collect();
    Ok(Some(format!(
        "{} of {of} shards are not complete: {}{}",
        missing.len(),
        listed.join(", "),
        if missing.len() > 10 { ", …" } else { "" }
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shards_come_from_the_command_line_or_the_scheduler() {
        let check =
            |argument: Option<&str>, variables: &[(&str, &str)], expected: Option<(u32, u32)>| {
                let environment = |name: &str| {
                    let found = variables.iter().find(|(key, _)| *key == name);
                    found.map(|(_, value)| (*value).to_owned())
                };
                let argument = argument.map(|text| text.parse().unwrap());
                let found = Shard::resolve(argument, environment).unwrap();
                assert_eq!(
                    found.map(|shard| (shard.index, shard.of)),
                    expected,
                    "{variables:?}"
                );
            };
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "5"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        check(None, &[], None);
        check(Some("2/3"), &slurm, Some((2, 3)));
        check(None, &slurm, Some((2, 4)));
        check(Some("auto/4"), &slurm, Some((2, 4)));
        check(
            Some("auto/8"),
            &[("JOB_COMPLETION_INDEX", "3")],
            Some((3, 8)),
        );
        // A job that is no array's.
        check(
            None,
            &[
                ("SLURM_ARRAY_TASK_ID", "0"),
                ("SLURM_ARRAY_TASK_COUNT", "1"),
            ],
            None,
        );
        for text in ["3/3", "x/3", "1/0", "1", "auto"] {
            assert!(text.parse::<ShardArg>().is_err(), "{text}");
        }
        assert!(Shard::resolve(Some(ShardArg::Auto { of: 2 }), |_| None).is_err());
    }

    #[test]
    fn every_prompt_is_in_one_shard() {
        let prompt = |n: u32| Prompt {
            prompt_id: records::prompt::prompt_id(&n.to_string()),
            source: String::new(),
            messages: Vec::new(),
            problem: String::new(),
            gold_answer: None,
        };
        let mut counts = [0; 5];
        for n in 0..1000 {
            let prompt = prompt(n);
            let of: Vec<u32> = (0..5)
                .filter(|&index| Shard { index, of: 5 }.has(&prompt))
                .collect();
            assert_eq!(of.len(), 1);
            counts[of[0] as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (150..250).contains(&count)),
            "{counts:?}"
        );
    }
}
