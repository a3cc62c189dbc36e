//! The Hub's requests that a push makes. hf-hub's own are not taken: they repeat a commit blindly, send what is unchanged,
//! do not read the `RateLimit` header, and put large files into the commit itself where there is no Xet.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK, RETRY_AFTER};
use reqwest::{Client, Method};
use serde_json::Value;

use super::meaning::{self, Doing};
use crate::Access;
use crate::error::{Error, Result};
use crate::network::LONGEST_SILENCE;
use crate::progress::Say;

/// How often a request is sent that the Hub or the network failed.
const TRIES: u32 = 5;
/// How often a pause that the Hub asks for is kept for one request.
const WAITS: u32 = 5;
/// The longest pause that is kept.
const LONGEST_WAIT: u64 = 15 * 60;
/// The pause where the Hub names none.
const WAIT: u64 = 30;

pub(super) struct Api {
    client: Client,
    endpoint: String,
    token: Option<String>,
    /// Doubled from try to try.
    pause: Duration,
    say: Say,
}

/// A request: where and what.
#[derive(Clone)]
pub(super) struct Ask {
    pub method: Method,
    /// Behind the endpoint.
    pub path: String,
    pub body: Option<(&'static str, Vec<u8>)>,
    /// Whether it may be sent again after a failure that leaves open whether it was carried out.
    pub repeat: bool,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            repeat: true,
        }
    }

    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self {
            method: Method::POST,
            body: Some(("application/json", body.to_string().into_bytes())),
            ..Self::get(path)
        }
    }
}

/// An answer that came whole.
pub(super) struct Answer {
    pub status: u16,
    headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json(&self, url: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Server {
            url: url.to_owned(),
            source: format!("the Hub's answer is no JSON: {error}").into(),
        })
    }

    /// The Hub's own sentence, where it has one.
    pub fn sentence(&self) -> String {
        if let Some(text) = self.header("x-error-message") {
            return text.to_owned();
        }
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let error = json.as_ref().map(|json| &json["error"]);
        match error.and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => {
                let text = String::from_utf8_lossy(&self.body);
                let line = text.lines().next().unwrap_or_default().trim();
                // A page for browsers says nothing.
                match line.starts_with('<') {
                    true => String::new(),
                    false => line.chars().take(300).collect(),
                }
            }
        }
    }

    /// The query of the next page.
    pub fn next_page(&self) -> Option<String> {
        let link = self.headers.get(LINK)?.to_str().ok()?;
        let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
        let url = next.split_once('<')?.1.split_once('>')?.0;
        Some(url.split_once('?')?.1.to_owned())
    }

    /// The seconds that a 429 says to wait: of `RateLimit: "api";r=0;t=55`, else of `Retry-After`.
    fn wait(&self) -> u64 {
        let limit = self.header("ratelimit").unwrap_or_default();
        let named = limit
            .split([';', ','])
            .find_map(|part| part.trim().strip_prefix("t="))
            .and_then(|seconds| seconds.parse().ok());
        let after = self.headers.get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        named.or(after).unwrap_or(WAIT)
    }
}

impl Api {
    pub fn new(access: &Access, pause: Duration, say: Say) -> Result<Self> {
        let wrong = |source: Box<dyn std::error::Error + Send + Sync>| Error::Endpoint {
            endpoint: access.endpoint.clone(),
            source,
        };
        reqwest::Url::parse(&access.endpoint).map_err(|error| wrong(error.into()))?;
        let client = Client::builder()
            .user_agent(concat!("stillroom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(30))
            .read_timeout(LONGEST_SILENCE)
            .build()
            .map_err(|error| wrong(error.into()))?;
        Ok(Self {
            client,
            endpoint: access.endpoint.trim_end_matches('/').to_owned(),
            token: access.token.clone(),
            pause,
            say,
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub fn say(&self, line: &str) {
        (self.say)(line);
    }

    pub fn teller(&self) -> Say {
        self.say.clone()
    }

    /// The pause before the next of several tries.
    pub async fn pause(&self, tries: u32) {
        let factor = 1u32 << tries.min(6);
        tokio::time::sleep(self.pause * factor).await;
    }

    /// An answer that means success.
    pub async fn ask(&self, url: &str, doing: Doing, ask: &Ask) -> Result<Answer> {
        let answer = self.send(url, ask).await?;
        match answer.is_success() {
            true => Ok(answer),
            false => Err(self.refusal(url, doing, &answer)),
        }
    }

    /// What an answer that is no success means.
    pub fn refusal(&self, url: &str, doing: Doing, answer: &Answer) -> Error {
        let sentence = self.hidden(&answer.sentence());
        meaning::of(
            url,
            doing,
            answer.status,
            answer.header("x-error-code"),
            &sentence,
            self.token.is_some(),
        )
    }

    /// The text without the token, which no answer should repeat.
    fn hidden(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.as_str(), "***"),
            None => text.to_owned(),
        }
    }

    /// The answer, whatever its status, once the pauses are kept that the Hub asks for.
    pub async fn send(&self, url: &str, ask: &Ask) -> Result<Answer> {
        let (mut tries, mut waits) = (1, 0);
        loop {
            let answer = self.once(url, ask).await;
            let failed = match &answer {
                Ok(answer) if answer.status == 429 => {
                    let seconds = answer.wait();
                    waits += 1;
                    if waits > WAITS || seconds > LONGEST_WAIT {
                        let url = url.to_owned();
                        return Err(Error::RateLimited { url, seconds });
                    }
                    self.say(&format!(
                        "{url}: too many requests (429), waiting {seconds} seconds as the Hub says"
                    ));
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    continue;
                }
                Ok(answer) => matches!(answer.status, 408 | 500..=506 | 508..=599),
                Err(error) => matches!(error, Error::Unreachable { .. }),
            };
            if !failed || !ask.repeat || tries >= TRIES {
                return answer;
            }
            if tries == 1 {
                let problem = match &answer {
                    Ok(answer) => format!("the Hub answered {}", answer.status),
                    Err(error) => error.to_string(),
                };
                self.say(&format!("{url}: {problem}; asking again"));
            }
            self.pause(tries - 1).await;
            tries += 1;
        }
    }

    async fn once(&self, url: &str, ask: &Ask) -> Result<Answer> {
        let broken = |source: reqwest::Error| Error::Unreachable {
            url: url.to_owned(),
            source: source.without_url().into(),
        };
        let address = format!("{}{}", self.endpoint, ask.path);
        let mut request = self.client.request(ask.method.clone(), address);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some((kind, bytes)) = &ask.body {
            request = request.header(CONTENT_TYPE, *kind).body(bytes.clone());
            if *kind == super::large::LFS {
                request = request.header(ACCEPT, *kind);
            }
        }
        let answer = request.send().await.map_err(broken)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.map_err(broken)?.to_vec();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Answer {
            status: 429,
            headers: map,
            body: body.into(),
        }
    }

    #[test]
    fn the_pause_is_the_one_that_the_hub_names() {
        assert_eq!(answer(&[("ratelimit", "\"api\";r=0;t=55")], "").wait(), 55);
        assert_eq!(answer(&[("retry-after", "7")], "").wait(), 7);
        let both = [("retry-after", "7"), ("ratelimit", "\"api\";r=0;t=3")];
        assert_eq!(answer(&both, "").wait(), 3);
        assert_eq!(answer(&[], "").wait(), WAIT);
    }

    #[test]
    fn sentences_come_from_the_header_the_json_or_the_first_line() {
        assert_eq!(answer(&[("x-error-message", "No.")], "x").sentence(), "No.");
        assert_eq!(answer(&[], "{\"error\":\"Not so.\"}").sentence(), "Not so.");
        assert_eq!(answer(&[], "Nothing\nmore").sentence(), "Nothing");
        assert_eq!(answer(&[], "<html>").sentence(), "");
    }

    #[test]
    fn of_the_next_page_only_the_query_is_taken() {
        let link = "<https://other/api/tree/main?cursor=x%3D&limit=1>; rel=\"next\"";
        let answer = answer(&[("link", link)], "");
        assert_eq!(answer.next_page().unwrap(), "cursor=x%3D&limit=1");
    }
}
