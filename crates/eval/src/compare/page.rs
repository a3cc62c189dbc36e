//! The comparison as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use records::score::SamplingScores;

use super::{Contender, Group, Pair, Question, Questions, mean_tokens};
use crate::error::{Error, Result};
use crate::table::{Rows, aligned, with_interval};

/// Characters of a problem, and of the end of an answer, that are shown.
const PROBLEM: usize = 400;
const ANSWER: usize = 300;

pub(super) fn render(contenders: &[Contender], n_flipped: usize) -> Result<String> {
    let Some((first, others)) = contenders.split_first() else {
        return Ok(String::new());
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    for (contender, letter) in contenders.iter().zip('A'..) {
        let _ = writeln!(out, "{letter}: {} of {}", contender.role, contender.label);
    }
    let mut n_compared = 0;
    for (name, questions) in &first.benchmarks {
        for (other, letter) in others.iter().zip('B'..) {
            if let Some(theirs) = other.benchmarks.get(name) {
                n_compared += 1;
                out.push_str(&benchmark(
                    name,
                    (first, questions),
                    (other, theirs),
                    letter,
                    n_flipped,
                ));
            }
        }
    }
    if n_compared == 0 {
        let names = |contender: &Contender| {
            let names: Vec<&str> = contender.benchmarks.keys().map(String::as_str).collect();
            format!("{}: {}", contender.label, names.join(", "))
        };
        return Err(Error::NothingInCommon {
            benchmarks: contenders.iter().map(names).collect::<Vec<_>>().join("; "),
        });
    }
    let all: BTreeSet<&String> = contenders
        .iter()
        .flat_map(|one| one.benchmarks.keys())
        .collect();
    for name in all {
        let without = contenders
            .iter()
            .zip('A'..)
            .filter(|(one, _)| !one.benchmarks.contains_key(name));
        for (_, letter) in without {
            let _ = writeln!(out, "\n{name}: {letter} was not scored on it");
        }
    }
    Ok(out)
}

type Side<'a> = (&'a Contender, &'a Questions);

fn benchmark(name: &str, a: Side<'_>, b: Side<'_>, letter: char, n_flipped: usize) -> String {
    let pair = Pair::of(a.1, b.1);
    let Some(whole) = pair.whole(name) else {
        return format!("\n{name}: A and {letter} have no question in common\n");
    };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "\n{name}: {} questions of both; in per cent, [95 % interval over questions]\n",
        whole.n_questions
    );
    let apart = (a.1.len() - whole.n_questions, b.1.len() - whole.n_questions);
    let of_a = mean_tokens(pair.questions.iter().map(|(_, a, _)| *a));
    let of_b = mean_tokens(pair.questions.iter().map(|(_, _, b)| *b));
    let row = |side: &str, estimate: &records::score::Estimate, samples: String, tokens: f64| {
        vec![
            side.to_owned(),
            with_interval(estimate.value, estimate.ci95),
            samples,
            format!("{tokens:.0}"),
        ]
    };
    let header = ["", "avg@k", "samples per question", "tokens"].map(str::to_owned);
    out.push_str(&aligned(&vec![
        header.to_vec(),
        row("A", &whole.a, samples(a.1), of_a),
        row(&letter.to_string(), &whole.b, samples(b.1), of_b),
    ]));
    let test = pair.sign_test();
    let _ = writeln!(
        out,
        "\n{letter} − A: {}; {letter} is ahead on {} questions and behind on {}, sign test p = {}",
        difference(&whole),
        test.b_ahead,
        test.a_ahead,
        probability(test.p_value),
    );
    for (side, n) in [('A', apart.0), (letter, apart.1)] {
        if n > 0 {
            let _ = writeln!(out, "{n} questions of {side} alone are left out");
        }
    }
    for line in unlike(a.0.sampling(name), b.0.sampling(name)) {
        let _ = writeln!(out, "A and {letter} differ in {line}");
    }
    for (by, groups) in [
        (
            "subject",
            pair.groups(|question| question.subject.as_deref()),
        ),
        ("level", pair.groups(|question| question.level.as_deref())),
    ] {
        if !groups.is_empty() {
            let _ = write!(out, "\n{}", aligned(&group_rows(by, &groups, letter)));
        }
    }
    out.push_str(&flips(&pair, letter, n_flipped));
    out
}

/// How many samples the questions have, as `8` or `7 to 8`.
fn samples(questions: &Questions) -> String {
    let counts = || questions.values().map(|question| question.answers.len());
    match (counts().min(), counts().max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        (_, most) => most.unwrap_or(0).to_string(),
    }
}

fn difference(group: &Group) -> String {
    let interval = group.ci95.map_or(String::new(), |[low, high]| {
        format!(" [{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high)
    });
    format!("{:+.1}{interval}", 100.0 * group.difference)
}

fn probability(p: f64) -> String {
    match p < 0.001 {
        true => format!("{p:.0e}"),
        false => format!("{p:.3}"),
    }
}

fn group_rows(by: &str, groups: &[Group], letter: char) -> Rows {
    let header = vec![
        by.to_owned(),
        "questions".to_owned(),
        "A".to_owned(),
        letter.to_string(),
        format!("{letter} − A"),
    ];
    let rows = groups.iter().map(|group| {
        vec![
            group.name.clone(),
            group.n_questions.to_string(),
            with_interval(group.a.value, None),
            with_interval(group.b.value, None),
            difference(group),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}

/// The settings that are not the same, each with both values.
fn unlike(a: Option<&SamplingScores>, b: Option<&SamplingScores>) -> Vec<String> {
    let fields =
        |sampling: Option<&SamplingScores>| serde_json::to_value(sampling).unwrap_or_default();
    let (a, b) = (fields(a), fields(b));
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let object = value.as_object();
        object.map_or(Vec::new(), |object| object.keys().cloned().collect())
    };
    let keys: BTreeSet<String> = keys(&a).into_iter().chain(keys(&b)).collect();
    let differing = keys
        .into_iter()
        .filter(|key| key != "departures" && a[key] != b[key]);
    differing
        .map(|key| format!("{key}: {} and {}", a[&key], b[&key]))
        .collect()
}

fn flips(pair: &Pair<'_>, letter: char, n_flipped: usize) -> String {
    let flipped = pair.flipped();
    let mut out = String::new();
    let gained = flipped
        .iter()
        .filter(|(_, a, b)| b.tally().share() > a.tally().share())
        .count();
    let _ = writeln!(
        out,
        "\nFlipped, right in at least half of the samples of one and not of the other: {} gained by {letter}, {} lost",
        gained,
        flipped.len() - gained
    );
    for (id, a, b) in flipped.iter().take(n_flipped) {
        let _ = writeln!(out, "\n{id}: {}", cut(&a.problem, PROBLEM));
        let _ = writeln!(out, "  gold {}", a.gold.trim());
        for (side, question) in [('A', a), (letter, b)] {
            let tally = question.tally();
            let _ = writeln!(
                out,
                "  {side} {} of {} right; {}",
                tally.correct,
                tally.n,
                usual(question)
            );
        }
    }
    let left = flipped.len().saturating_sub(n_flipped);
    if left > 0 {
        let _ = writeln!(out, "\nand {left} more; --flips N shows N of them");
    }
    out
}

/// The answer that a model mostly gives, and the end of the text that it stands in.
fn usual(question: &Question) -> String {
    let Some((n, answer)) = question.usual() else {
        return "no answer in any".to_owned();
    };
    let extracted = answer.extracted.as_deref().unwrap_or_default();
    let text = answer.text.as_deref().unwrap_or_default().trim();
    let skipped = text.chars().count().saturating_sub(ANSWER);
    let end: String = text.chars().skip(skipped).collect();
    let end = end.replace('\n', "\n      ");
    let before = if skipped > 0 { "…" } else { "" };
    format!("mostly ({n}) {extracted}\n      {before}{end}")
}

fn cut(text: &str, n: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > n {
        true => line.chars().take(n).collect::<String>() + "…",
        false => line,
    }
}
