//! Grades a file of pairs again and again, and prints pairs per second and the verdicts.
//!
//! ```text
//! grade_pairs PAIRS.jsonl SECONDS
//! ```
//!
//! Each line is `{"gold": …, "response": …}`. The first line of the output is the rate, each
//! other one whether the response is correct.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use stillroom_verify::{Verdict, verify};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&arguments[1]).unwrap();
    let seconds: f64 = arguments[2].parse().unwrap();
    let pairs: Vec<(String, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| {
            let field = |name: &str| row[name].as_str().unwrap().to_owned();
            (field("gold"), field("response"))
        })
        .collect();
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        for (gold, response) in &pairs {
            black_box(verify(gold, response));
        }
        n += pairs.len();
    }
    println!("{}", n as f64 / start.elapsed().as_secs_f64());
    for (gold, response) in &pairs {
        println!("{}", verify(gold, response) == Verdict::Correct);
    }
}
