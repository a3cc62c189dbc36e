//! Near-duplicates among the texts of trace parts: rows per second, on one thread and on all.
//!
//! ```text
//! cargo bench -p stillroom-dataset --bench minhash -- RUN_DIR/traces
//! ```
//!
//! `scripts/peers/datatrove_minhash.py` does the same work with datatrove. Without a folder,
//! 2,000 made-up texts are compared.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Instant;

use arrow::array::AsArray;
use records::parquet_file::Reader;
use stillroom_dataset::minhash::{Signature, signature};
use stillroom_dataset::near_duplicates::find;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let start = Instant::now();
    let (mut signatures, mut bytes): (Vec<Signature>, usize) = (Vec::new(), 0);
    let mut take = |text: &str| {
        bytes += text.len();
        signatures.extend(signature(text, 5));
    };
    match folder {
        Some(folder) => {
            let entries = std::fs::read_dir(folder).unwrap();
            let mut parts: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            parts.retain(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "parquet")
            });
            parts.sort();
            for part in parts {
                for batch in Reader::open_columns(&part, Some(&["text"])).unwrap() {
                    batch
                        .unwrap()
                        .column(0)
                        .as_string::<i32>()
                        .iter()
                        .flatten()
                        .for_each(&mut take);
                }
            }
        }
        None => (0..2000u64).for_each(|row| {
            let word = |at: u64| format!("w{} ", (row * 7919 + at * 104_729) % 1_000_003);
            take(&(0..900).map(word).collect::<String>());
        }),
    }
    let signed = start.elapsed().as_secs_f64();
    let found = find(&signatures, 0.8).iter().flatten().count();
    let seconds = start.elapsed().as_secs_f64();
    let n = signatures.len() as f64;
    println!(
        "{n} texts, {:.0} MB: read and signed on one thread in {signed:.2} s ({:.0} rows/s), compared in {:.2} s; \
         {:.0} rows/s in all, {found} near-duplicates",
        bytes as f64 / 1e6,
        n / signed,
        seconds - signed,
        n / seconds,
    );
}
