//! Where rows go: through a pager on a terminal, else straight to stdout.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::broken;
use crate::error::Result;

/// The pager that is looked for where `PAGER` says nothing.
const PAGER: &str = "less -R";

pub enum Out {
    Plain(io::BufWriter<io::Stdout>),
    Paged(Child, ChildStdin),
}

impl Out {
    pub fn open() -> Result<Self> {
        let plain = || Self::Plain(io::BufWriter::new(io::stdout()));
        if !io::stdout().is_terminal() {
            return Ok(plain());
        }
        let named = std::env::var("PAGER").ok();
        let command = named.filter(|command| !command.trim().is_empty());
        let started = match &command {
            // With its options, as a shell reads them.
            Some(command) => Command::new("sh")
                .args(["-c", command])
                .stdin(Stdio::piped())
                .spawn(),
            None => {
                let mut words = PAGER.split(' ');
                Command::new(words.next().unwrap_or_default())
                    .args(words)
                    .stdin(Stdio::piped())
                    .spawn()
            }
        };
        match started {
            Ok(mut child) => match child.stdin.take() {
                Some(stdin) => Ok(Self::Paged(child, stdin)),
                None => Ok(plain()),
            },
            // There is no `less` everywhere.
            Err(_) => Ok(plain()),
        }
    }

    /// Writes; false when the reader has gone away.
    pub fn write(&mut self, text: &str) -> Result<bool> {
        let written = match self {
            Self::Plain(out) => out.write_all(text.as_bytes()),
            Self::Paged(_, out) => out.write_all(text.as_bytes()),
        };
        still_read(written)
    }

    /// Writes what waits, and stays until the pager is left.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Plain(mut out) => still_read(out.flush()).map(drop),
            Self::Paged(mut child, stdin) => {
                drop(stdin);
                child.wait().map(drop).map_err(broken)
            }
        }
    }
}

fn still_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(broken(error)),
    }
}
