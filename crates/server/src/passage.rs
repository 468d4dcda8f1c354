//! HTTP to the upstreams of gates, as the [`Passage`] port: the client of [`fetch`](crate::fetch), with bodies that stream both ways.
//!
//! Connections are kept: an upstream that drops one at the wrong moment makes an error, never a second request.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::{Body, HttpBody as _};
use http::{Request, Response};
use keyreeve::http::{Answer, Passage};
use keyreeve::port::{Host, Http as _, HttpError, Via};

use crate::fetch::{Fetch, FetchSettings, failed};

/// How many connections are kept for the next request, per upstream.
const KEPT_MAX: usize = 32;

/// An HTTP client for gates. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    fetch: Arc<Fetch>,
    via: Option<Via>,
}

impl Streams {
    /// Makes a client that trusts the system's certificate authorities (or those of `SSL_CERT_FILE`).
    ///
    /// # Errors
    /// A sentence about a client that cannot be made.
    pub fn new(host: Arc<dyn Host>) -> Result<Self, String> {
        let settings = FetchSettings { kept_max: KEPT_MAX, ..FetchSettings::default() };
        Ok(Self { fetch: Arc::new(Fetch::new(host, &settings)?), via: None })
    }

    /// The same, whose requests leave by `via`.
    #[must_use]
    pub fn by(&self, via: Option<Via>) -> Self {
        Self { fetch: Arc::clone(&self.fetch), via }
    }

    /// Finds out whether requests can leave, as far as that can be known without sending one.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub fn check(&self) -> Result<(), String> {
        self.via.as_ref().map_or(Ok(()), |via| self.fetch.check(via))
    }
}

#[async_trait]
impl Passage for Streams {
    async fn send(&self, request: Request<Body>) -> Result<Answer, HttpError> {
        let client = self.fetch.client(self.via.as_ref()).map_err(HttpError::NotSent)?;
        let (head, body) = request.into_parts();
        let url = reqwest::Url::parse(&head.uri.to_string())
            .map_err(|_| HttpError::NotSent("the path of the request is none".into()))?;
        let mut sent = reqwest::Request::new(head.method, url);
        *sent.headers_mut() = head.headers;
        // A stream of nothing would be sent in chunks.
        if !body.is_end_stream() {
            *sent.body_mut() = Some(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = client.execute(sent).await.map_err(|error| failed(&error))?;
        let answer: Response<reqwest::Body> = answer.into();
        Ok(answer.map(Body::new))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::host::OsHost;

    /// How long nothing passes is for the gate to judge: the client has no opinion of its own.
    #[tokio::test]
    async fn a_head_and_a_body_may_take_as_long_as_whoever_asks_waits() {
        const SLOW: Duration = Duration::from_secs(600);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let upstream = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
            }
            // Not before: connecting has a limit, and is real.
            tokio::time::pause();
            for piece in [&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"[..], b"o", b"k"] {
                tokio::time::sleep(SLOW).await;
                stream.write_all(piece).await.unwrap();
            }
        });
        let streams = Streams::new(Arc::new(OsHost::new())).unwrap();
        let answer = streams.send(Request::get(url).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        upstream.await.unwrap();
    }
}
