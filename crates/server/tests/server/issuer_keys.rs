//! The keys of an outside issuer over real sockets: a picky issuer that counts, and answers as badly as it can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use keyreeve::config::{FetchConfig, KeysUrl};
use keyreeve::crypto::{LocalCrypto, check};
use keyreeve::inbound::{Fetched, FetchedParts};
use keyreeve::jwt::{Algorithm, Expected, Refusal, Verifier, VerifyError};
use keyreeve::port::Host as _;
use keyreeve_picky::oidc::{self, Config, Fault, Faults, Oidc};
use keyreeve_server::fetch::{Fetch, FetchSettings};
use keyreeve_server::host::OsHost;

use crate::support::host;

struct World {
    issuer: Oidc,
    host: Arc<OsHost>,
    verifier: Verifier,
}

impl World {
    async fn new(cooldown_ms: u64, fresh_ms: u64) -> Self {
        let issuer = oidc::start(Config::default()).await.unwrap();
        let host = host();
        let from = KeysUrl::Discovery(format!("{}/.well-known/openid-configuration", issuer.issuer()));
        let parts = FetchedParts {
            name: "picky".into(),
            issuer: issuer.issuer(),
            fetch: FetchConfig { from, via: None, cooldown_ms, fresh_ms, stale_ms: 600_000 },
            algorithms: vec![Algorithm::Es256],
            pins: Vec::new(),
            host: Arc::<OsHost>::clone(&host),
            http: Arc::new(Fetch::new(Arc::<OsHost>::clone(&host), &FetchSettings::default()).unwrap()),
            crypto: Arc::new(LocalCrypto),
            make: check,
        };
        let expected = Expected::new([issuer.issuer()], ["orders"]).unwrap();
        let verifier = Verifier::new(expected, Arc::new(Fetched::new(parts)));
        Self { issuer, host, verifier }
    }

    async fn verify(&self, token: &str) -> Result<(), VerifyError> {
        self.verifier.verify(token, self.host.now().latest()).await.map(drop)
    }

    fn token(&self, kid: Option<&str>) -> String {
        self.issuer.token("orders", kid, &serde_json::Map::new())
    }
}

fn is_unknown(result: &Result<(), VerifyError>) -> bool {
    matches!(result, Err(VerifyError::Refused(Refusal::UnknownKey { .. })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tokens_with_random_key_ids_cause_one_fetch_per_cooldown() {
    let world = World::new(30_000, 300_000).await;
    let began = Instant::now();
    assert_eq!(world.verify(&world.token(None)).await, Ok(()));
    for hundred in 0..100 {
        let tokens: Vec<String> = (0..100)
            .map(|one| world.token(Some(&format!("{:016x}", (hundred * 100 + one) * 0x9e37_79b9_u64))))
            .collect();
        let all = join_all(tokens.iter().map(|token| world.verify(token))).await;
        assert!(all.iter().all(is_unknown));
    }
    // One that brought the keys, and one for each cooldown that has begun since.
    let fetches_max = 1 + began.elapsed().as_secs() / 30;
    let score = world.issuer.score();
    assert_eq!(score.tokens, 10_001);
    assert!(score.jwks_fetches <= fetches_max, "{score:?}");
    assert!(score.discoveries <= fetches_max && score.in_flight_max == 1, "{score:?}");
    // The good ones were good all along.
    assert_eq!(world.verify(&world.token(None)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooldown_later_the_next_stranger_is_looked_up_and_a_rotation_is_found() {
    let world = World::new(1000, 300_000).await;
    assert_eq!(world.verify(&world.token(None)).await, Ok(()));
    world.issuer.publish().unwrap();
    world.issuer.switch();
    // Refused within the cooldown, and good right after it.
    let began = Instant::now();
    while world.verify(&world.token(None)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the new key is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.issuer.score().jwks_fetches, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_issuer_does_is_bounded_and_the_old_keys_go_on() {
    let world = World::new(1000, 300_000).await;
    assert_eq!(world.verify(&world.token(None)).await, Ok(()));
    for fault in [
        Fault::Garbage,
        Fault::TooBig { bytes: 10 * 1024 * 1024 },
        Fault::Redirect,
        Fault::Status { status: 503 },
        Fault::Drop,
        Fault::NoKeys,
        Fault::OtherIssuer,
        Fault::HangBody,
        Fault::Hang,
    ] {
        let name = format!("{fault:?}");
        let before = world.issuer.score();
        world.issuer.set_faults(Faults::always(fault)).unwrap();
        // A stranger, until one has been the cause of a fetch.
        let began = Instant::now();
        let spoiled = || world.issuer.score().faults.values().sum::<u64>() > before.faults.values().sum::<u64>();
        while !spoiled() {
            assert!(is_unknown(&world.verify(&world.token(Some("nobody"))).await), "{name}");
            assert!(began.elapsed() < Duration::from_secs(20), "{name}: nothing was fetched");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Five seconds for the fetch, and the cooldown before it.
        assert!(began.elapsed() < Duration::from_secs(9), "{name} took {:?}", began.elapsed());
        let at = Instant::now();
        assert_eq!(world.verify(&world.token(None)).await, Ok(()), "{name}");
        assert!(at.elapsed() < Duration::from_millis(500), "{name}: a known key waits for nobody");
    }
    // Broken keys beside good ones cost themselves only.
    world.issuer.set_faults(Faults::always(Fault::BadKeys)).unwrap();
    world.issuer.publish().unwrap();
    world.issuer.switch();
    let began = Instant::now();
    while world.verify(&world.token(None)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the good key is not found among broken ones");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The issuer is gone for good: what is known goes on.
    let token = world.token(None);
    world.issuer.shutdown().await;
    let at = world.host.now().latest();
    assert!(world.verifier.verify(&token, at).await.is_ok());
}
