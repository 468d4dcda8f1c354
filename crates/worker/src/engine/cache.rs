//! The Cache API as a shared cache: one for all isolates of a data centre.
//!
//! It may forget at any time and compares nothing when it writes, so it can be no register. An entry is kept under a URL
//! that nobody can fetch and that is made from the key, so that nothing from outside ever meets it.

use std::fmt::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use keyreeve::port::{Key, Shared};
use worker::send::SendFuture;
use worker::{Cache, ResponseBuilder};

use super::entry;
use crate::js;

/// A cache of its own: what the zone's other Workers and pages cache is elsewhere.
const NAME: &str = "keyreeve";
/// Nobody owns this host (RFC 2606 2).
const ORIGIN: &str = "https://cache.invalid/";

/// The cache of this data centre.
#[derive(Clone, Copy, Debug, Default)]
pub struct EdgeCache;

#[async_trait]
impl Shared for EdgeCache {
    fn kind(&self) -> &'static str {
        "cache"
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, String> {
        SendFuture::new(async {
            let cache = Cache::open(NAME.to_owned()).await;
            let Some(response) = cache.get(url(key), false).await.map_err(reason)? else { return Ok(None) };
            let Some(stream) = web_sys::Response::from(response).body() else { return Ok(Some(Bytes::new())) };
            entry(&stream).await.map(Some)
        })
        .await
    }

    async fn put(&self, key: &Key, bytes: Bytes, ttl_ms: u64) -> Result<(), String> {
        // Rounded down: a cache that keeps too long is wrong, one that forgets early only costs.
        let age = format!("max-age={}", ttl_ms / 1000);
        SendFuture::new(async {
            let response = ResponseBuilder::new().with_header("cache-control", &age).map_err(reason)?;
            let cache = Cache::open(NAME.to_owned()).await;
            cache.put(url(key), response.fixed(bytes.to_vec())).await.map_err(reason)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), String> {
        SendFuture::new(async {
            let cache = Cache::open(NAME.to_owned()).await;
            cache.delete(url(key), false).await.map(drop).map_err(reason)
        })
        .await
    }
}

/// Keys are printable ASCII, which a URL gives meanings to: the bytes are written out.
fn url(key: &Key) -> String {
    key.as_str().bytes().fold(ORIGIN.to_owned(), |mut url, byte| {
        // Writing to a string does not fail.
        let _written = write!(url, "{byte:02x}");
        url
    })
}

fn reason(error: worker::Error) -> String {
    js::reason(&error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_have_urls_that_differ() {
        let of = |text: &str| url(&Key::new(text).unwrap());
        assert_eq!(of("a/b?c#d"), "https://cache.invalid/612f623f632364");
        assert_ne!(of("a"), of("A"));
    }
}
