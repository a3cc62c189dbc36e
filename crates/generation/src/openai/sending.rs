//! One request from its first attempt to what comes of it.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::asked::{self, Asked, AskedOutcome};
use super::exchange::{Exchange, Fault, FaultKind};
use super::pool::Endpoint;
use super::{Shared, body, tokens};
use crate::teacher::{Failure, FailureKind};

/// Attempts at an endpoint that others do better than are not the request's own; so many of them are.
const UNCOUNTED: u32 = 32;

/// A body as it was sent last; another endpoint may take longer sequences.
type Sent = Option<(u32, Vec<u8>)>;

impl Shared {
    /// Asks until there is an answer, or no point in asking. Nothing comes of it where nobody is asked any more.
    pub(super) async fn answer<A: Asked>(
        &self,
        asked: &A,
    ) -> (Option<AskedOutcome<A>>, Option<OwnedSemaphorePermit>) {
        let failure = |kind, message| (Some(Err(Failure { kind, message })), None);
        let clock = Instant::now();
        let (mut failed, mut uncounted) = (0, 0);
        let (mut at_fault, mut refused) = (BTreeSet::new(), Vec::new());
        let mut sent: Sent = None;
        while self.pool.ended().is_none() {
            let Some((endpoint, place)) = self.pool.place(&at_fault) else {
                break;
            };
            let body = match self.body(asked, &endpoint, &mut sent) {
                Ok(body) => body,
                Err(failed) => return failure(failed.kind, failed.message),
            };
            endpoint.ready().await;
            let begun = AtomicBool::new(false);
            let found = {
                let mut exchange = pin!(self.exchange(asked, &endpoint.url, body, &begun));
                let mut patience = pin!(place.lost_patience(&begun));
                let first = |context: &mut Context<'_>| match exchange.as_mut().poll(context) {
                    Poll::Ready(found) => Poll::Ready(found),
                    Poll::Pending => patience.as_mut().poll(context).map(Err),
                };
                poll_fn(first).await
            };
            let fault = match found {
                Ok((answered, share)) => {
                    place.answered();
                    self.count(answered.tokens);
                    let [input, output] = answered.tokens;
                    endpoint.owe(input.saturating_add(output));
                    let value = A::timed(answered.value, clock.elapsed());
                    return (Some(Ok(value)), share);
                }
                Err(fault) => fault,
            };
            let next = place.fault(&fault, &mut refused);
            at_fault.insert(place.at);
            if next.is_final {
                return failure(FailureKind::Refused, fault.message);
            }
            let mut pause = None;
            let busy = matches!(fault.kind, FaultKind::Busy(_));
            if let FaultKind::Busy(asked) = fault.kind {
                self.pool.slow_down();
                pause = asked;
            }
            // Another endpoint may be asked meanwhile.
            drop(place);
            uncounted += u32::from(!next.counts && !busy);
            failed += u32::from(next.counts || busy || uncounted > UNCOUNTED);
            if failed >= self.timing.attempts && self.pool.ended().is_none() {
                let message = format!("{failed} attempts, the last: {}", fault.message);
                return failure(FailureKind::Exhausted, message);
            }
            if busy || !self.pool.others(&at_fault) {
                tokio::time::sleep(self.timing.pause(failed.max(1), pause)).await;
            }
        }
        (None, None)
    }

    /// The body for an endpoint: new tokens are cut to what it has room for behind the prompt.
    fn body<A: Asked>(
        &self,
        asked: &A,
        endpoint: &Endpoint,
        sent: &mut Sent,
    ) -> Result<Vec<u8>, Failure> {
        let most = self.options.max_new_tokens;
        let limit = match (endpoint.positions(), asked.n_prompt(self)) {
            (Some(positions), Some(prompt)) => {
                let n_prompt = u64::from(prompt.n);
                let longest = self.pool.longest().unwrap_or(u64::MAX);
                if prompt.counted && n_prompt >= positions.max(longest) {
                    return Err(Failure {
                        kind: FailureKind::PromptTooLong,
                        message: format!(
                            "the prompt has {n_prompt} tokens, the model takes 1 to {} and one new token",
                            positions.saturating_sub(1)
                        ),
                    });
                }
                let room = positions.saturating_sub(n_prompt).max(1);
                let limit = u64::from(most).min(room) as u32;
                if limit < most && sent.is_none() {
                    let what = format!(
                        "generate.max_new_tokens = {most} is cut to what the server's {positions} positions leave behind the prompt"
                    );
                    self.notes
                        .count(&what, 1, || format!("{}, {limit} tokens", asked.name()));
                }
                limit
            }
            _ => most,
        };
        if let Some((_, body)) = sent.as_ref().filter(|(known, _)| *known == limit) {
            return Ok(body.clone());
        }
        let body = body::finished(
            asked.body(self, limit),
            self.request.as_ref(),
            self.template_kwargs.as_ref(),
            self.dialect.limit_keys(),
            limit,
        );
        let bytes = body.to_string().into_bytes();
        *sent = Some((limit, bytes.clone()));
        Ok(bytes)
    }

    async fn exchange<A: Asked>(
        &self,
        asked: &A,
        endpoint: &str,
        body: Vec<u8>,
        begun: &AtomicBool,
    ) -> Result<(asked::Answered<A::Value>, Option<OwnedSemaphorePermit>), Fault> {
        let exchange = Exchange {
            room: &self.room,
            buffers: &self.buffers,
            client: &self.client,
            timing: &self.timing,
            access: &self.access,
            reading: A::reading(self),
            keeps: &self.keeps,
            begun,
        };
        let read = exchange.ask(&A::url(self, endpoint), body).await?;
        let answers = read.answers;
        if answers.skipped > 0 {
            let what = "events of an unknown kind are skipped in streams";
            self.notes.count(what, answers.skipped, || asked.name());
        }
        // What comes to nothing is paid for, too.
        let tokenizer = self.tokenizer.as_ref();
        let said = [answers.n_prompt_tokens, answers.n_completion_tokens];
        let written = match said[1] {
            Some(n) => n,
            None => tokens::of_answers(tokenizer, &answers),
        };
        let paid = match (said[0], written) {
            (Some(n), written) => [n, written],
            // An error in the place of an answer costs nothing.
            (None, 0) => [0, 0],
            (None, written) => [asked.n_prompt(self).map_or(0, |count| count.n), written],
        };
        let fault = match (&answers.error, answers.broken()) {
            (Some(error), _) => Some(Fault::reported(error)),
            (None, Some(words)) => Some(Fault::endpoint(words)),
            (None, None) => None,
        };
        let completed = match fault {
            Some(fault) => Err(fault),
            None => asked.complete(answers, self),
        };
        let completed = completed.map_err(|fault| {
            self.count(paid);
            for (counter, tokens) in self.lost.iter().zip(paid) {
                counter.fetch_add(tokens.into(), Ordering::Relaxed);
            }
            let message = self.access.redact(&fault.message);
            let message = message.chars().take(super::exchange::ERROR_CHARS).collect();
            Fault { message, ..fault }
        })?;
        Ok((completed, read.share))
    }

    fn count(&self, tokens: [u32; 2]) {
        for (counter, tokens) in self.tokens.iter().zip(tokens) {
            counter.fetch_add(tokens.into(), Ordering::Relaxed);
        }
    }
}
