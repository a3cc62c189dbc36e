//! Why one item has no result, where the work goes on without it.

/// Why a request has no completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The prompt leaves no room for a single new token.
    PromptTooLong,
    /// The logits held NaN or an infinity.
    NonFinite,
    /// The server will not answer this request; its words are in the message.
    Refused,
    /// The server's faults outlasted the attempts: asked again at the next start.
    Exhausted,
}

impl FailureKind {
    /// The kinds that a start asks for again: what servers failed at always, what they refused on request.
    pub const fn asked_again(retry_refused: bool) -> &'static [Self] {
        match retry_refused {
            true => &[Self::Exhausted, Self::Refused],
            false => &[Self::Exhausted],
        }
    }

    /// The name under which failures are counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PromptTooLong => "prompt_too_long",
            Self::NonFinite => "non_finite",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
        }
    }
}

/// A request without an answer. It becomes a row with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}
