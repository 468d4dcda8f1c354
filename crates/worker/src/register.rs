//! The registers in the Durable Objects, for native nodes: each key lies in the object that is named by it.
//!
//! ```text
//! GET  https://object.invalid/register?key=KEY                          200 with the value, and its write id; or 404
//! POST https://object.invalid/register?key=KEY&expected=OP|none&op=OP   200 "done" or "lost"
//!      anything else is no outcome: 409 refused, nothing was written
//! ```
//! Between isolate and object of one deployment; what native nodes speak is [`wire`](keyreeve::engine::wire).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use keyreeve::core::id::WriteId;
use keyreeve::engine::VALUE_BYTES_MAX;
use keyreeve::hex;
use keyreeve::port::{Capabilities, Entry, Key, Register, StoreError, Swap};
use worker::send::SendFuture;
use worker::{HttpRequest, HttpResponse, Response, ResponseBuilder};

use crate::origin::{OBJECT, Objects};

/// Where an object answers.
pub(crate) const PATH: &str = "/register";
/// The write id of a value.
const OP: HeaderName = HeaderName::from_static("keyreeve-op");

/// All registers of a namespace as one.
pub(crate) struct Registers(pub(crate) Arc<Objects>);

#[async_trait]
impl Register for Registers {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        SendFuture::new(async {
            let request = Request::get(format!("{OBJECT}{PATH}?key={key}")).body(Full::default()).map_err(unsent)?;
            let (head, bytes) = self.send(key, request).await?;
            let op = head.headers.get(OP).and_then(|op| op.to_str().ok()).and_then(write_id);
            match (head.status, op) {
                (StatusCode::NOT_FOUND, _) => Ok(None),
                (StatusCode::OK, Some(op)) => Ok(Some(Entry { op, bytes })),
                (status, _) => Err(StoreError::Refused(format!("the Durable Object answered {status}"))),
            }
        })
        .await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        SendFuture::new(async {
            let expected = expected.map_or_else(|| "none".to_owned(), |op| hex::encode(&op.0));
            let url = format!("{OBJECT}{PATH}?key={key}&expected={expected}&op={}", hex::encode(&next.op.0));
            let request = Request::post(url).body(Full::new(next.bytes)).map_err(unsent)?;
            let (head, bytes) = self.send(key, request).await?;
            match (head.status, &*bytes) {
                (StatusCode::OK, b"done") => Ok(Swap::Done),
                (StatusCode::OK, b"lost") => Ok(Swap::Lost),
                (StatusCode::CONFLICT, text) => Err(StoreError::Refused(String::from_utf8_lossy(text).into_owned())),
                (status, _) => Err(StoreError::Unknown(format!("the Durable Object answered {status}"))),
            }
        })
        .await
    }

    async fn list(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Vec<Key>, StoreError> {
        Err(StoreError::Refused("each key lies in an object of its own: there is no list of them".into()))
    }
}

impl Registers {
    async fn send(
        &self,
        key: &Key,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), StoreError> {
        let answer: HttpResponse = self.0.send(key.as_str(), request).await.map_err(StoreError::Unknown)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, VALUE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| StoreError::Unknown(error.to_string()))?;
        Ok((head, body.to_bytes()))
    }
}

/// Answers for the register of the object that this code runs in.
pub(crate) async fn answer(register: &dyn Register, request: HttpRequest) -> worker::Result<Response> {
    let (head, body) = request.into_parts();
    let wrong = || refused("a request of the register that is none");
    let Some(key) = query(&head.uri, "key").and_then(Key::new) else { return wrong() };
    if head.method == Method::GET {
        return match register.read(&key).await {
            Ok(Some(entry)) => {
                let builder = ResponseBuilder::new().with_header(OP.as_str(), &hex::encode(&entry.op.0))?;
                Ok(builder.fixed(entry.bytes.to_vec()))
            }
            Ok(None) => Ok(ResponseBuilder::new().with_status(StatusCode::NOT_FOUND.as_u16()).fixed(Vec::new())),
            Err(error) => refused(&error.to_string()),
        };
    }
    let expected = query(&head.uri, "expected").and_then(|text| match text {
        "none" => Some(None),
        text => write_id(text).map(Some),
    });
    let (Some(expected), Some(op)) = (expected, query(&head.uri, "op").and_then(write_id)) else { return wrong() };
    let Ok(bytes) = Limited::new(body, VALUE_BYTES_MAX).collect().await else {
        return refused("the value did not arrive, or is too large");
    };
    match register.swap(&key, expected, Entry { op, bytes: bytes.to_bytes() }).await {
        Ok(swap) => {
            let text: &[u8] = if swap == Swap::Done { b"done" } else { b"lost" };
            Ok(ResponseBuilder::new().fixed(text.to_vec()))
        }
        Err(StoreError::Refused(text)) => refused(&text),
        Err(error) => Ok(ResponseBuilder::new().with_status(500).fixed(error.to_string().into_bytes())),
    }
}

fn refused(text: &str) -> worker::Result<Response> {
    let status = StatusCode::CONFLICT.as_u16();
    Ok(ResponseBuilder::new().with_status(status).fixed(text.as_bytes().to_vec()))
}

fn unsent(error: http::Error) -> StoreError {
    StoreError::Refused(error.to_string())
}

fn query<'a>(uri: &'a Uri, wanted: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find_map(|(name, value)| (name == wanted).then_some(value))
}

fn write_id(text: &str) -> Option<WriteId> {
    hex::decode(text).map(WriteId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_id_comes_through_its_text() {
        let op = WriteId(*b"\x00\x01\x7f\x80\xff0123456789a");
        assert_eq!(write_id(&hex::encode(&op.0)), Some(op));
        assert!(
            ["", "0", "zz", &"0".repeat(31), &"g".repeat(32), &"é".repeat(16)]
                .iter()
                .all(|bad| write_id(bad).is_none())
        );
        let uri = Uri::from_static("https://object.invalid/register?key=cr/0a&expected=none");
        assert_eq!(
            (query(&uri, "key"), query(&uri, "expected"), query(&uri, "op")),
            (Some("cr/0a"), Some("none"), None)
        );
    }
}
