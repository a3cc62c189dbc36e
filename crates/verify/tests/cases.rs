//! The table of cases: in each block answers that mean the same, and answers that do not.
//!
//! ```text
//! = a | b | c    every one accepts every other as gold answer
//! ! d | e        mean something else than each of the line above, both ways
//! > g | a | b    the gold answer g accepts a and b
//! x g | a | b    the gold answer g rejects a and b
//! ```

use stillroom_verify::{Verdict, verify};

struct Tally {
    cases: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn check(&mut self, gold: &str, answer: &str, expected: bool) {
        self.cases += 1;
        let response = format!("<think>\nLet me see.\n</think>\n\nSo it is $\\boxed{{{answer}}}$.");
        let expected = if expected {
            Verdict::Correct
        } else {
            Verdict::Incorrect
        };
        let found = verify(gold, &response);
        if found != expected {
            self.wrong
                .push(format!("gold {gold}  answer {answer}  is {found}"));
        }
    }
}

fn run(name: &str, table: &str) -> usize {
    let mut tally = Tally {
        cases: 0,
        wrong: Vec::new(),
    };
    let mut same: Vec<&str> = Vec::new();
    for line in table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (kind, rest) = line.split_at(1);
        let answers: Vec<&str> = split(rest);
        match kind {
            "=" => {
                for gold in &answers {
                    answers
                        .iter()
                        .for_each(|answer| tally.check(gold, answer, true));
                }
                same = answers;
            }
            "!" => {
                for other in &answers {
                    for answer in &same {
                        tally.check(answer, other, false);
                        tally.check(other, answer, false);
                    }
                }
            }
            ">" | "x" => {
                let accepted = kind == ">";
                answers
                    .iter()
                    .skip(1)
                    .for_each(|answer| tally.check(answers[0], answer, accepted));
            }
            _ => panic!("{name}: a line that begins with {kind}"),
        }
    }
    assert!(
        tally.wrong.is_empty(),
        "{name}: {} of {} cases\n{}",
        tally.wrong.len(),
        tally.cases,
        tally.wrong.join("\n")
    );
    tally.cases
}

/// At bars with white space on both sides: others are absolute values.
fn split(line: &str) -> Vec<&str> {
    line.split(" | ").map(str::trim).collect()
}

macro_rules! tables {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".txt")));
        })*

        #[test]
        fn there_are_enough_cases() {
            let cases: usize = [$(include_str!(concat!("cases/", stringify!($name), ".txt"))),*]
                .into_iter()
                .flat_map(str::lines)
                .filter(|line| !line.starts_with('#'))
                .map(|line| split(line).len())
                .sum();
            assert!(cases >= 600, "{cases} answers");
        }
    };
}

tables! {
    integers fractions decimals surds constants polynomials sets intervals equations matrices
    complex bases percent_and_units text
}
