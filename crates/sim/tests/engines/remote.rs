//! The register behind a Worker, without a network between: client, messages and server are the shipped ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use keyreeve::engine::memory::Memory;
use keyreeve::engine::remote::Remote;
use keyreeve::engine::wire::{self, SigningKey};
use keyreeve::port::{Host, Http, HttpAnswer, HttpError, HttpRequest, Register};
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_sim::conformance::check;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A clock that stands still, and nonces that count.
struct Still(AtomicU64);

#[async_trait]
impl Host for Still {
    fn now(&self) -> Moment {
        Moment::new(NOW, Mono(0))
    }

    async fn sleep_until(&self, _until: Mono) {
        std::future::pending().await
    }

    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        bytes.iter_mut().zip(count).for_each(|(byte, count)| *byte = count);
    }

    fn spawn(&self, _task: BoxFuture<'static, ()>) {}
}

/// Hands requests to the Worker's half, and lets others go first on both ways.
struct Edge(Arc<dyn Register>);

#[async_trait]
impl Http for Edge {
    async fn send(&self, request: HttpRequest, _deadline: Mono) -> Result<HttpAnswer, HttpError> {
        let mut plain = Request::builder().method(&request.method).uri(&request.url);
        for (name, value) in &request.headers {
            plain = plain.header(name, value.expose());
        }
        let plain = plain.body(Bytes::from(request.body.expose().clone())).unwrap();
        tokio::task::yield_now().await;
        let response = wire::serve(self.0.as_ref(), &[key()], NOW, plain).await;
        tokio::task::yield_now().await;
        let (head, body) = response.into_parts();
        Ok(HttpAnswer { status: head.status.as_u16(), headers: head.headers, body: Secret::new(body.to_vec()) })
    }
}

fn key() -> SigningKey {
    SigningKey::new(Secret::new(vec![7; 32])).unwrap()
}

/// Another node, on the same Worker.
pub(crate) fn node(register: &Arc<dyn Register>) -> Remote {
    let host = Arc::new(Still(AtomicU64::new(0)));
    Remote::new("https://edge.example.org", key(), 2000, host, Arc::new(Edge(Arc::clone(register))))
}

#[tokio::test]
async fn the_register_behind_a_worker_conforms() {
    let register: Arc<dyn Register> = Arc::new(Memory::new());
    for run in 1..=3 {
        check(|| Arc::new(node(&register)), 4, run).await.unwrap();
    }
}

#[tokio::test]
async fn an_engine_that_is_wrong_is_wrong_behind_a_worker_too() {
    for (wrong, expected_case) in crate::broken::ALL {
        let store = Arc::new(crate::broken::Store::default());
        let open = || {
            let register: Arc<dyn Register> = Arc::new(crate::broken::Broken::new(wrong, Arc::clone(&store)));
            Arc::new(node(&register)) as Arc<dyn Register>
        };
        let outcome = check(open, 4, 1).await;
        assert!(outcome.is_err(), "{wrong:?} passed; with nothing between it fails {expected_case}");
    }
}
