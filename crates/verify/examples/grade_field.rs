//! Grades lines that say their verdict, and prints those whose verdict is another.
//!
//! ```text
//! grade_field FILE.jsonl
//! ```
//!
//! Each line is `{"gold": …, "response": …, "expected": …}`.
#![allow(clippy::unwrap_used)]

use stillroom_verify::Verifier;

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let (mut n, mut wrong) = (0, 0);
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| row[name].as_str().unwrap();
        let last_number = row["answer_from"] == "last_number";
        let verifier = Verifier {
            last_number,
            ..Verifier::default()
        };
        let found = verifier.verify(field("gold"), field("response"));
        n += 1;
        if found.verdict.as_str() != field("expected") {
            wrong += 1;
            println!("{}: {:?} {line}", found.verdict, found.extracted);
        }
    }
    println!("{wrong} of {n} lines differ");
}
