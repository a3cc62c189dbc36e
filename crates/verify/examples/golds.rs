//! Whether every gold answer of a folder of benchmarks equals itself in each of its spellings.
//!
//! ```text
//! golds FOLDER
//! ```
//!
//! Every line of every `.jsonl` file of the folder is `{"answer": …}` or `{"target": …}`. The
//! spellings are bare, in `$…$`, boxed, without spaces, with `\dfrac`, without `\left` and
//! `\right`, and with `\!` between groups of digits.
#![allow(clippy::unwrap_used)]

use stillroom_verify::{Verdict, extracted, verify};

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    files.sort();
    let (mut all, mut all_wrong) = (0, 0);
    for file in files {
        let (mut n, mut wrong) = (0, 0);
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = row.get("answer").or(row.get("target")).unwrap();
            let gold = field.as_str().map_or(field.to_string(), str::to_owned);
            let answer = match gold.rsplit_once("####") {
                Some((_, answer)) => answer.trim().to_owned(),
                None => gold.clone(),
            };
            for response in spellings(&answer) {
                n += 1;
                if verify(&gold, &response) != Verdict::Correct {
                    wrong += 1;
                    println!("{answer}  as  {response}  is {:?}", extracted(&response));
                }
            }
        }
        println!("{}: {wrong} of {n} wrong", file.display());
        (all, all_wrong) = (all + n, all_wrong + wrong);
    }
    println!("{all_wrong} of {all} wrong");
}

fn spellings(answer: &str) -> Vec<String> {
    let without_spaces: String = answer.chars().filter(|c| !c.is_whitespace()).collect();
    let large = answer
        .replace("\\dfrac", "\\frac")
        .replace("\\frac", "\\dfrac");
    let plain = answer.replace("\\left", "").replace("\\right", "");
    let spaced = in_groups(answer, ",\\!");
    let near = in_groups(answer, "\\!");
    let mut all = Vec::new();
    for text in [
        answer.to_owned(),
        without_spaces,
        large,
        plain,
        spaced,
        near,
    ] {
        all.push(format!("So it is $\\boxed{{{text}}}$."));
        all.push(format!("So it is ${text}$."));
        all.push(text);
    }
    all
}

/// The answer with its long integers in groups of three digits.
fn in_groups(answer: &str, separator: &str) -> String {
    let mut out = String::new();
    let rest = answer.replace(",\\!", "").replace("{,}", "");
    let bytes: Vec<char> = rest.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .count();
        let behind_point = at > 0 && (bytes[at - 1] == '.' || bytes[at - 1] == ',');
        let comma = bytes.get(at + run) == Some(&',');
        if run > 3 && !behind_point && !comma && bytes[at] != '0' {
            for (place, digit) in bytes[at..at + run].iter().enumerate() {
                if place > 0 && (run - place) % 3 == 0 {
                    out.push_str(separator);
                }
                out.push(*digit);
            }
            at += run;
        } else {
            out.extend(&bytes[at..at + run.max(1)]);
            at += run.max(1);
        }
    }
    out
}
