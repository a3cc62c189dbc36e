//! What a command leaves: how it ended, and its data on stdout.

/// How a command that worked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// The work is done, but items failed and were listed.
    FailedItems,
}

/// Puts data on stdout; a reader that has gone away is no error.
pub(crate) fn print_data(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
