//! A Hub on loopback, for trying `push-hub` by hand and for `scripts/check_hub.py`:
//!
//! `cargo run --release --example loopback_hub -- STORE_FOLDER PORT [models/ORG/NAME=FOLDER …]`
//!
//! Its token is printed; `HF_ENDPOINT` is `http://127.0.0.1:PORT`. Named folders are there from the start, as public
//! repositories. Port 0 takes any. It ends with its standard input.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/elsewhere/mod.rs"]
mod elsewhere;

use std::io::Read;
use std::path::Path;

use elsewhere::loopback_hub::{LoopbackHub, TOKEN};

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(port)) = (args.next(), args.next()) else {
        eprintln!("loopback_hub STORE_FOLDER PORT [models/ORG/NAME=FOLDER …]");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&store).unwrap();
    let hub = LoopbackHub::start_in(Path::new(&store), port.parse().unwrap());
    for given in args {
        let (key, folder) = given.split_once('=').unwrap();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        hub.add(key, &files);
    }
    println!("{} {TOKEN}", hub.endpoint());
    eprintln!(
        "set HF_ENDPOINT={} and HF_TOKEN={TOKEN}: the user is tester, of the organisation org. The Hub ends when its \
         standard input does, so keep that open: loopback_hub STORE PORT < <(sleep infinity)",
        hub.endpoint()
    );
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
