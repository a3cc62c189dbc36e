//! What a command leaves: how it ended, and its data on stdout.

use std::io::Write;

use crate::error::{Result, io};

/// How a command that worked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// The work is done, but items failed and were listed.
    FailedItems,
}

/// Puts data on stdout; a reader that has gone away is no error.
pub(crate) fn print_data(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(io("stdout")),
    }
}
