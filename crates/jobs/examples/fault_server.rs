//! The server of faults by itself: `fault_server [SHARE] [TOKENS]` prints its address and serves until it is killed.

#[path = "../../../tests/fault_server/mod.rs"]
#[allow(clippy::unwrap_used, dead_code)]
mod fault_server;

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: f64| {
        let text = arguments.next();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (share, tokens) = (number(0.4), number(24.0));
    let server = fault_server::FaultServer::start(fault_server::Options {
        share,
        refused: 0.01,
        dripping: 0.1,
        tokens: tokens as usize,
        seed: 1,
    });
    println!("{}", server.url);
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
