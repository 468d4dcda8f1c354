//! The register behind a keyreeve Worker, over HTTPS: what native nodes and Workers share.
//!
//! | what came back | outcome |
//! |---|---|
//! | nothing, and the request certainly never left | refused |
//! | nothing, or too much | unknown |
//! | an answer that is not signed, or not to this request | unknown, whatever its status |
//! | a signed refusal | refused |
//! | a signed answer | what it says |
//!
//! One request a call, never a second one. The messages are those of [`wire`](super::wire).

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, header};
use keyreeve_core::id::WriteId;
use keyreeve_core::secret::Secret;

use super::memory::check_value;
use super::wire::{ANSWER_BYTES_MAX, Answer, Ask, PATH, SIGNATURE, Signed, SigningKey};
use crate::port::{
    Capabilities, Entry, Host, Http, HttpAnswer, HttpError, HttpRequest, Key, LIST_MAX, Register, StoreError, Swap,
};

/// Asks a Worker.
pub struct Remote {
    origin: String,
    key: SigningKey,
    answer_ms: u64,
    host: Arc<dyn Host>,
    http: Arc<dyn Http>,
}

impl Remote {
    /// Asks the Worker at `origin` (scheme and host, no slash at the end), and waits for an answer for `answer_ms`
    /// milliseconds of the host's clock.
    #[must_use]
    pub fn new(origin: &str, key: SigningKey, answer_ms: u64, host: Arc<dyn Host>, http: Arc<dyn Http>) -> Self {
        Self { origin: origin.to_owned(), key, answer_ms, host, http }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, StoreError> {
        let now = self.host.now();
        let mut nonce = [0; 16];
        self.host.fill(&mut nonce);
        let signed = Signed::new(&self.key, &ask, now.wall, nonce);
        let request = HttpRequest {
            method: Method::POST,
            url: format!("{}{PATH}", self.origin),
            via: None,
            headers: vec![
                (SIGNATURE, Secret::new(signed.header.clone())),
                (header::CONTENT_TYPE, Secret::new("application/cbor".to_owned())),
            ],
            body: Secret::new(signed.body.clone()),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        match self.http.send(request, now.mono.plus(self.answer_ms)).await {
            Ok(answer) => self.open(&signed, &answer),
            Err(error @ HttpError::NotSent(_)) => {
                Err(StoreError::Refused(format!("the Worker was not reached: {error}")))
            }
            Err(error) => Err(StoreError::Unknown(format!("the Worker: {error}"))),
        }
    }

    fn open(&self, signed: &Signed, answer: &HttpAnswer) -> Result<Answer, StoreError> {
        let signature = answer.headers.get(SIGNATURE).map(http::HeaderValue::as_bytes);
        match signed.open(&self.key, answer.status, signature, answer.body.expose()) {
            // Anybody on the way can say no. What they say proves nothing about what the Worker did.
            None => Err(StoreError::Unknown(unsigned(answer.status))),
            Some(Err(cause)) => Err(StoreError::Unknown(cause)),
            Some(Ok(Answer::Refused(cause))) => Err(StoreError::Refused(cause)),
            Some(Ok(Answer::Unknown(cause))) => Err(StoreError::Unknown(cause)),
            Some(Ok(answer)) => Ok(answer),
        }
    }
}

/// What an answer that nobody signed probably means.
fn unsigned(status: u16) -> String {
    let hint = match status {
        401 | 403 => ": is `store.key` the same on both sides?",
        404 => ": does the Worker have a `store.key`?",
        _ => "",
    };
    format!("the Worker answered {status} without a right signature{hint}")
}

fn other() -> StoreError {
    StoreError::Unknown("the Worker answered something else than it was asked".into())
}

#[async_trait]
impl Register for Remote {
    fn capabilities(&self) -> Capabilities {
        // Those of Durable Objects, and of a bucket.
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        match self.ask(Ask::Read(key.clone())).await? {
            Answer::Found(entry) => Ok(entry),
            _ => Err(other()),
        }
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        match self.ask(Ask::Swap { key: key.clone(), expected, next }).await? {
            Answer::Swapped(swap) => Ok(swap),
            _ => Err(other()),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let ask = Ask::List { prefix: prefix.to_owned(), after: after.cloned(), limit: limit.min(LIST_MAX) };
        match self.ask(ask).await? {
            Answer::Keys(keys) => Ok(keys),
            _ => Err(other()),
        }
    }
}
