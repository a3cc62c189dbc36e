//! Grades lines that say their verdict, and prints those whose verdict is another.
//!
//! ```text
//! grade_field FILE.jsonl
//! ```
//!
//! Each line is `{"gold": …, "response": …, "expected": …}`.
#![allow(clippy::unwrap_used)]

use stillroom_verify::{verify, extracted};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let (mut n, mut wrong) = (0, 0);
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| row[name].as_str().unwrap();
        let found = verify(field("gold"), field("response"));
        n += 1;
        if found.as_str() != field("expected") {
            wrong += 1;
            println!("{found}: {:?} {line}", extracted(field("response")));
        }
    }
    println!("{wrong} of {n} lines differ");
}
