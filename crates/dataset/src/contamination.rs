//! Which problems share an n-gram of words with a benchmark's.

use std::collections::HashMap;
use std::fmt;

use records::benchmark;

use crate::config::Decontaminate;
use crate::error::Result;
use crate::hash::first_u64;

/// The n-grams of the benchmarks' problems, by hash.
///
/// Words are runs of letters and digits in lower case: punctuation, white space and LaTeX's
/// signs do not tell two copies of a problem apart. A problem of fewer than n words has no
/// n-gram and is compared whole, and then with its signs, so that `x+1=0` is not `x-1=0`.
#[derive(Debug)]
pub struct Index {
    n: usize,
    /// `(benchmark, row id)`.
    rows: Vec<(String, String)>,
    ngrams: HashMap<u64, usize>,
    wholes: HashMap<u64, usize>,
}

/// What a problem was found to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub benchmark: String,
    pub row: String,
    pub ngram: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.benchmark, self.row, self.ngram)
    }
}

impl Index {
    /// An index that finds nothing until problems are added; `n` is at least 1.
    pub fn new(n: usize) -> Self {
        Self {
            n: n.max(1),
            rows: Vec::new(),
            ngrams: HashMap::new(),
            wholes: HashMap::new(),
        }
    }

    /// Reads the benchmarks that the recipe names.
    pub fn load(config: &Decontaminate) -> Result<Self> {
        let mut index = Self::new(config.ngram);
        for benchmark in config.benchmarks()? {
            for problem in benchmark::load(&benchmark)? {
                index.add(&benchmark.name, &problem.id, &problem.problem);
            }
        }
        Ok(index)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds one problem; where two rows share an n-gram the first added is reported.
    pub fn add(&mut self, benchmark: &str, row: &str, problem: &str) {
        let words = words(problem);
        let at = self.rows.len();
        self.rows.push((benchmark.to_owned(), row.to_owned()));
        if words.len() < self.n {
            let whole = whole(problem);
            if !whole.is_empty() {
                self.wholes.entry(first_u64(whole.as_bytes())).or_insert(at);
            }
        }
        for ngram in words.windows(self.n) {
            self.ngrams
                .entry(first_u64(ngram.join(" ").as_bytes()))
                .or_insert(at);
        }
    }

    /// The first n-gram of the problem that stands in a benchmark.
    pub fn find(&self, problem: &str) -> Option<Hit> {
        if self.is_empty() {
            return None;
        }
        let words = words(problem);
        let (at, ngram) = if words.len() < self.n {
            let whole = whole(problem);
            (
                self.wholes.get(&first_u64(whole.as_bytes())),
                words.join(" "),
            )
        } else {
            words
                .windows(self.n)
                .map(|ngram| ngram.join(" "))
                .map(|ngram| (self.ngrams.get(&first_u64(ngram.as_bytes())), ngram))
                .find(|(at, _)| at.is_some())?
        };
        let (benchmark, row) = self.rows.get(*at?)?;
        Some(Hit {
            benchmark: benchmark.clone(),
            row: row.clone(),
            ngram,
        })
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn whole(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !".,;:!?$".contains(*c))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HELD_OUT: &str =
        "Start with 204, subtract 129, subtract 543, multiply by 2. Give the result modulo 1000.";

    #[test]
    fn copies_are_found_and_neighbours_are_not() {
        let mut index = Index::new(13);
        index.add("arithmetic", "r1", HELD_OUT);
        index.add("mine", "r2", "Find x if x+1=0.");
        let check = |problem: &str, expected: Option<&str>| {
            let found = index.find(problem).map(|hit| hit.to_string());
            assert_eq!(found.as_deref(), expected, "{problem}");
        };
        let first =
            "arithmetic r1: start with 204 subtract 129 subtract 543 multiply by 2 give the result";
        check(HELD_OUT, Some(first));
        check(
            "START with $204$; subtract 129 — subtract 543;\nmultiply by 2; give the result, please",
            Some(first),
        );
        check(
            "First add 1. Then start with 204, subtract 129, subtract 543, multiply by 2. Give the result.",
            Some(first),
        );
        check(
            "Start with 204, subtract 128, subtract 543, multiply by 2. Give the result modulo 1000.",
            None,
        );
        check("find $x$ if  x + 1 = 0", Some("mine r2: find x if x 1 0"));
        check("Find x if x-1=0.", None);
        check("Find x if x+1=0. Then name its square.", None);
        check("", None);
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        assert_eq!(Index::new(13).find(HELD_OUT), None);
        assert_eq!(Index::new(13).find(""), None);
    }
}
