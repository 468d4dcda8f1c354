//! HTTP to the upstreams of gates, as the [`Passage`] port: reqwest over rustls, bodies that stream both ways.
//!
//! Connections are kept: an upstream that drops one at the wrong moment makes an error, never a second request.

use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, HttpBody as _};
use http::{Request, Response};
use keyreeve::http::{Answer, Passage};
use keyreeve::port::HttpError;

use crate::fetch::{FetchSettings, builder, failed, reason};

/// Between two pieces of an answer this long may pass.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection is kept for the next request.
const KEPT: Duration = Duration::from_secs(30);
/// How many of them, per upstream.
const KEPT_MAX: usize = 32;

/// An HTTP client for gates. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    client: reqwest::Client,
}

impl Streams {
    /// Makes a client that trusts the system's certificate authorities (or those of `SSL_CERT_FILE`); where there are none, it
    /// reaches upstreams on loopback only.
    ///
    /// # Errors
    /// A sentence about a client that cannot be made.
    pub fn new(settings: &FetchSettings) -> Result<Self, String> {
        // For the whole process, and at most once: whoever was first chose the same library.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let kept = || {
            let builder = builder(settings)?;
            Ok::<_, String>(builder.pool_max_idle_per_host(KEPT_MAX).pool_idle_timeout(KEPT).read_timeout(IDLE))
        };
        let client = match kept()?.build() {
            Ok(client) => client,
            Err(_) => kept()?.tls_certs_only([]).build().map_err(|error| reason(&error))?,
        };
        Ok(Self { client })
    }
}

#[async_trait]
impl Passage for Streams {
    async fn send(&self, request: Request<Body>) -> Result<Answer, HttpError> {
        let (head, body) = request.into_parts();
        let url = reqwest::Url::parse(&head.uri.to_string())
            .map_err(|_| HttpError::NotSent("the path of the request is none".into()))?;
        let mut sent = reqwest::Request::new(head.method, url);
        *sent.headers_mut() = head.headers;
        // A stream of nothing would be sent in chunks.
        if !body.is_end_stream() {
            *sent.body_mut() = Some(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = self.client.execute(sent).await.map_err(|error| failed(&error))?;
        let answer: Response<reqwest::Body> = answer.into();
        Ok(answer.map(Body::new))
    }
}
