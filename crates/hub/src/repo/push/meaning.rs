//! What the Hub's refusals mean to somebody who pushes.

use crate::error::Error;

const TOKENS: &str = "https://huggingface.co/settings/tokens";

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Creating,
    Sending,
    Committing,
    Tagging,
}

impl Doing {
    fn as_str(self) -> &'static str {
        match self {
            Doing::Reading => "read it",
            Doing::Creating => "create a repository there",
            Doing::Sending => "send files to it",
            Doing::Committing => "commit to it",
            Doing::Tagging => "put a tag on it",
        }
    }
}

/// The error of an answer; `sentence` is the Hub's own.
pub(super) fn of(
    url: &str,
    doing: Doing,
    status: u16,
    code: Option<&str>,
    sentence: &str,
    has_token: bool,
) -> Error {
    let said = match sentence {
        "" => String::new(),
        sentence => format!(": {}", sentence.trim_end_matches('.')),
    };
    let url = url.to_owned();
    let refused = |problem: String, hint: &str| Error::Refused {
        url: url.clone(),
        problem,
        hint: hint.to_owned(),
    };
    let about_space = {
        let text = sentence.to_lowercase();
        let limit = ["limit", "quota", "exceed"]
            .iter()
            .any(|word| text.contains(word));
        limit && text.contains("storage")
    };
    if about_space && matches!(status, 400..=403 | 413 | 422 | 507) {
        return refused(
            format!("there is no room left in this account's storage ({status}{said})"),
            "delete what is not needed any more, push to a public repository (hub.private = false), or extend the account at https://huggingface.co/settings/billing; then start again: what has arrived is not sent twice",
        );
    }
    match status {
        401 if !has_token => Error::Denied {
            url,
            problem: format!("the Hub asks for a token (401{said})"),
            hint: "set HF_TOKEN to a token that may write, or run `hf auth login`",
        },
        401 => Error::Denied {
            url,
            problem: format!("the Hub does not take this token (401{said})"),
            hint: "the token was withdrawn, or its login has ended: run `hf auth login` again, or set HF_TOKEN to a token that may write",
        },
        402 => refused(
            format!("the account has to pay for this first (402{said})"),
            "see https://huggingface.co/settings/billing, or push to a public repository (hub.private = false)",
        ),
        403 if code == Some("GatedRepo") => Error::Denied {
            url,
            problem: format!("the repository is gated (403{said})"),
            hint: "accept its terms on its page with the account of the token",
        },
        403 => Error::Denied {
            url,
            problem: format!(
                "this token may not {} (403{said})",
                doing.as_str()
            ),
            hint: "make a token with write access to this user or organisation at https://huggingface.co/settings/tokens, or name a repository of your own in [hub]",
        },
        404 if code == Some("RevisionNotFound") => Error::NotFound {
            url,
            what: "revision",
        },
        404 => Error::NotFound {
            url,
            what: "repository that this token can see",
        },
        409 if doing == Doing::Creating => refused(
            format!("the name is taken (409{said})"),
            "name another repository in [hub]; a private one of somebody else looks as if it were not there",
        ),
        409 => refused(
            format!("another change of this repository is under way (409{said})"),
            "start again in a minute",
        ),
        412 => refused(
            format!("somebody else has committed meanwhile (412{said})"),
            "start again",
        ),
        413 => refused(
            format!("the request is too large for the Hub (413{said})"),
            "write smaller files, with dataset.shard_size for data; files above 10 MB need a Hub with Xet storage",
        ),
        507 => refused(
            format!("the Hub has no room left for it (507{said})"),
            "free storage of this account, then start again: what has arrived is not sent twice",
        ),
        500..=599 => Error::Server {
            url,
            source: format!(
                "the Hub fails with {status}{said}; nothing is wrong here, start again later (https://status.huggingface.co)"
            )
            .into(),
        },
        status => refused(
            format!("the Hub does not {} ({status}{said})", doing.as_str().replace(" it", " this")),
            &format!("change what the sentence is about; rights are given at {TOKENS}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_refusal_says_what_it_means_and_what_to_do() {
        let check = |status, doing, sentence, words: &[&str]| {
            let error = of("hf://o/n", doing, status, None, sentence, true);
            let text = format!("{error} {}", error.hint().unwrap_or_default());
            for word in words {
                assert!(text.contains(word), "{status}: no `{word}` in {text}");
            }
        };
        check(401, Doing::Reading, "Invalid.", &["token", "hf auth login"]);
        check(402, Doing::Creating, "", &["pay", "billing"]);
        check(
            403,
            Doing::Committing,
            "",
            &["may not commit", "write access"],
        );
        check(
            403,
            Doing::Committing,
            "Private repository storage limit reached, please upgrade your plan",
            &["no room left", "hub.private = false"],
        );
        check(404, Doing::Reading, "", &["no such repository"]);
        check(409, Doing::Creating, "", &["name is taken", "another"]);
        check(409, Doing::Committing, "", &["under way", "again"]);
        check(413, Doing::Committing, "", &["too large", "shard_size"]);
        check(500, Doing::Committing, "", &["500", "later"]);
        check(507, Doing::Committing, "", &["no room", "free"]);
        check(422, Doing::Sending, "Bad path.", &["Bad path", "422"]);
    }
}
