//! A body that comes in: whole JSON or server-sent events, told apart by its first bytes. What a server calls it is not
//! always what it is.

use super::answer::Answers;
use super::dialect::Reading;
use super::ending::ServerError;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    Events,
}

/// What lines of events begin with; llama.cpp once wrote `error:`.
const FIELDS: [&[u8]; 6] = [b"data:", b"event:", b"id:", b"retry:", b"error:", b":"];
/// Bytes that tell a field from anything else.
const ENOUGH: usize = 6;

impl Form {
    /// None as long as too little has come, unless nothing more comes.
    pub fn of(bytes: &[u8], at_end: bool) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let bytes = bytes.trim_ascii_start();
        if FIELDS.iter().any(|field| bytes.starts_with(field)) {
            return Some(Self::Events);
        }
        (bytes.len() >= ENOUGH || at_end || bytes.first() == Some(&b'{')).then_some(Self::Whole)
    }
}

/// Why an event cannot be used; with the data that says so.
pub type Unread = (Vec<u8>, String);

/// Takes events out of bytes as they come.
#[derive(Default)]
pub struct Events {
    /// Of the event that is coming in.
    name: String,
    data: Vec<u8>,
    pub ended: bool,
}

impl Events {
    /// Takes whole lines out of `pending`.
    pub fn take(
        &mut self,
        pending: &mut Vec<u8>,
        reading: &dyn Reading,
        answers: &mut Answers,
    ) -> Result<(), Unread> {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &pending[start..]) {
            let end = start + length;
            if !self.ended {
                self.line(&mut pending[start..end], reading, answers)?;
            }
            start = end + 1;
        }
        pending.drain(..start);
        Ok(())
    }

    /// Takes what is left at the end: the last line may have no end of its own. One that is cut is an event that broke
    /// off, and the answer says itself that it is not whole.
    pub fn finish(&mut self, mut rest: Vec<u8>, reading: &dyn Reading, answers: &mut Answers) {
        if self.ended {
            return;
        }
        let mut whole = answers.clone();
        let read = self
            .line(&mut rest, reading, &mut whole)
            .and_then(|()| self.dispatch(reading, &mut whole));
        if read.is_ok() {
            *answers = whole;
        }
    }

    fn line(
        &mut self,
        line: &mut [u8],
        reading: &dyn Reading,
        answers: &mut Answers,
    ) -> Result<(), Unread> {
        let length = line.strip_suffix(b"\r").unwrap_or(line).len();
        let line = &mut line[..length];
        if line.is_empty() {
            return self.dispatch(reading, answers);
        }
        let colon = memchr::memchr(b':', line).unwrap_or(length);
        let value = (colon + 1).min(length);
        let value = value + usize::from(line.get(value) == Some(&b' '));
        match &line[..colon] {
            b"data" => {
                let data = &mut line[value..];
                // Nearly all: an event is one line, and is read where it lies.
                if self.data.is_empty() && matches!(data.last(), Some(b'}' | b']')) {
                    return self.event(data, reading, answers);
                }
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data);
            }
            b"event" => self.name = String::from_utf8_lossy(line[value..].trim_ascii()).into(),
            b"error" => answers.note_error(words_of(&line[value..])),
            // Comments, `id` and `retry`.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, reading: &dyn Reading, answers: &mut Answers) -> Result<(), Unread> {
        let mut data = std::mem::take(&mut self.data);
        let read = match data.is_empty() {
            true => Ok(()),
            false => self.event(&mut data, reading, answers),
        };
        self.name.clear();
        read
    }

    fn event(
        &mut self,
        data: &mut [u8],
        reading: &dyn Reading,
        answers: &mut Answers,
    ) -> Result<(), Unread> {
        if data.trim_ascii() == b"[DONE]" {
            self.ended = true;
            return Ok(());
        }
        if self.name == "error" {
            answers.note_error(words_of(data));
            return Ok(());
        }
        let named = !matches!(self.name.as_str(), "" | "message");
        let (before, empty) = (answers.skipped, answers.is_empty());
        match reading.read(data, answers) {
            Ok(()) => {
                // What is nothing of an answer may be the server's words for why there is none.
                if answers.skipped > before && empty && !named {
                    answers.note_error(ServerError::of_body(data));
                }
                Ok(())
            }
            Err(_) if named => {
                answers.skip(false);
                Ok(())
            }
            Err(problem) => Err((data.to_vec(), problem)),
        }
    }
}

/// An error that comes as a field or an event of its own, as JSON or as plain words.
fn words_of(data: &[u8]) -> Option<ServerError> {
    ServerError::of_body(data).or_else(|| {
        let words = String::from_utf8_lossy(data).trim().to_owned();
        let words = if words.is_empty() {
            "an error without words".to_owned()
        } else {
            words
        };
        ServerError::of(&words.into())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::chat::Chat;
    use super::*;

    const CHAT: Chat = Chat { logprobs: false };

    fn read(stream: &str) -> Result<Answers, Unread> {
        // Byte by byte and at once give the same.
        let mut all = Vec::new();
        for size in [1, 7, stream.len().max(1)] {
            let (mut events, mut answers) = (Events::default(), Answers::default());
            let mut pending = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                pending.extend_from_slice(piece);
                events.take(&mut pending, &CHAT, &mut answers)?;
            }
            events.finish(pending, &CHAT, &mut answers);
            all.push(answers);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        Ok(all.remove(0))
    }

    fn text(stream: &str) -> String {
        let mut answers = read(stream).unwrap();
        let answer = answers.choice(0).unwrap();
        assert!(answer.end.is_some(), "{answer:?}");
        answer.text.clone()
    }

    const A: &str = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#;
    const B: &str = r#"{"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}"#;

    #[test]
    fn bodies_are_told_apart_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"data: {}"[..], Some(Form::Events)),
            (b"\xef\xbb\xbf\n: ping", Some(Form::Events)),
            (b"event: x", Some(Form::Events)),
            (b"{", Some(Form::Whole)),
            (b" [1, 2, 3]", Some(Form::Whole)),
            (b"<html>", Some(Form::Whole)),
            (b"eve", None),
            (b"", None),
        ] {
            assert_eq!(Form::of(bytes, false), expected, "{bytes:?}");
        }
        assert_eq!(Form::of(b"eve", true), Some(Form::Whole));
    }

    #[test]
    fn events_of_other_names_are_skipped() {
        let progress = "event: prompt_progress\ndata: {\"done\": 0.5}\n\n";
        let ping = "event: ping\ndata: pong\n\n: comment\nid: 7\nretry: 10\n\n";
        let stream =
            format!("{progress}data: {A}\n\n{ping}event: message\ndata: {B}\n\ndata: [DONE]\n\n");
        assert_eq!(text(&stream), "ab");
        assert_eq!(read(&stream).unwrap().skipped, 2);
        let unnamed =
            format!("data: {{\"status\": \"queued\"}}\r\n\r\ndata:{A}\r\n\r\ndata: {B}\r\n\r\n");
        assert_eq!(text(&unnamed), "ab");
    }

    #[test]
    fn events_of_several_lines_and_without_an_end_are_whole() {
        let split = B.replacen(',', ",\ndata: ", 1);
        assert_eq!(text(&format!("data: {A}\n\ndata: {split}\n\n")), "ab");
        assert_eq!(text(&format!("data: {A}\n\ndata: {B}")), "ab");
        let cut = format!("data: {A}\n\ndata: {}", &B[..30]);
        assert!(read(&cut).unwrap().choice(0).unwrap().end.is_none());
        assert!(read("data: {oops}\n\n").is_err());
    }

    #[test]
    fn errors_within_a_stream_keep_their_words() {
        for error in [
            "data: {\"error\": {\"message\": \"engine died\", \"code\": 500}}\n\n",
            "event: error\ndata: {\"message\": \"engine died\"}\n\n",
            "event: error\ndata: engine died\n\n",
            "error: {\"message\": \"engine died\"}\n\n",
        ] {
            let answers = read(&format!("data: {A}\n\n{error}")).unwrap();
            assert_eq!(answers.error.unwrap().words, "engine died", "{error}");
        }
        let beside = r#"{"error":{"code":502,"message":"engine died"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#;
        let answers = read(&format!("data: {A}\n\ndata: {beside}\n\n")).unwrap();
        assert_eq!(answers.error.unwrap().words, "engine died");
        let first =
            read("data: {\"object\": \"error\", \"message\": \"engine died\", \"code\": 400}\n\n");
        assert_eq!(first.unwrap().error.unwrap().words, "engine died");
    }
}
