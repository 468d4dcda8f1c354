//! The keys of an outside issuer: fetched when they are needed, and again in time.
//!
//! ```text
//! nothing known      -> fetch; after a failure again in 1 s, 2 s, 4 s .. up to the cooldown
//! known and fresh    -> serve; an unknown key id fetches once per cooldown, and that is all that strangers can cause
//! known, not fresh   -> serve, and fetch in the background
//! known, too old     -> nothing is known
//! ```
//! What the last fetch did not bring is not there until the next one: that is the whole negative cache, and no number of
//! made-up key ids makes it larger.
//!
//! A fetch belongs to no caller, and no caller waits on another one's promise: on Workers the runtime ends a request that
//! does. Who finds a fetch under way looks now and then, by a timer of its own, whether it is over.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use futures::channel::oneshot;
use futures::future::select;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, Method};
use keyreeve_core::crypto::Crypto;
use keyreeve_core::json::{Json, Node};
use keyreeve_core::jwt::{Algorithm, JWK_SET_BYTES_MAX, Jwk, JwkSet, Shown, Thumbprint};
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Mono, Span};

use crate::config::{FetchConfig, KeysUrl};
use crate::crypto::{LocalCrypto, MakeCheck};
use crate::jwt::{KeySet, Keys, Remote, Unavailable, key_of};
use crate::port::{Host, Http, HttpAnswer, HttpError, HttpRequest};

/// One fetch takes at most this long, discovery included, in milliseconds.
const FETCH_MS: u64 = 5000;
/// The first pause after a failure while nothing is known, in milliseconds; it doubles.
const PAUSE_MS: u64 = 1000;
/// How often a caller looks whether a fetch under way is over, in milliseconds: twice as long each time.
const LOOK_MS_MIN: u64 = 5;
const LOOK_MS_MAX: u64 = 160;
/// The largest discovery document, in bytes.
const DISCOVERY_BYTES_MAX: usize = 64 * 1024;
/// How long a discovery document is believed, in milliseconds, while what it names works.
const DISCOVERY_MS: u64 = 3_600_000;
/// The longest `max-age` that is followed, in milliseconds.
const MAX_AGE_MS: u64 = 86_400_000;
/// The least time between two fetches for a program that says nothing about it, and how long it goes on with the keys it
/// knows while nobody answers; in milliseconds.
const COOLDOWN_MS: u64 = 30_000;
const STALE_MS: u64 = 86_400_000;

/// What a [`Fetched`] is made of.
#[derive(Clone)]
pub struct FetchedParts {
    /// The verifier's name, for logs and metrics.
    pub name: String,
    /// The `iss` that a discovery document has to name.
    pub issuer: String,
    /// From where, and how often.
    pub fetch: FetchConfig,
    /// The algorithms that keys may be for.
    pub algorithms: Vec<Algorithm>,
    /// The only keys that are taken; empty for all.
    pub pins: Vec<Thumbprint>,
    /// Time and tasks.
    pub host: Arc<dyn Host>,
    /// The way out.
    pub http: Arc<dyn Http>,
    /// Hashes thumbprints.
    pub crypto: Arc<dyn Crypto>,
    /// Makes keys ready.
    pub make: MakeCheck,
}

/// The keys of one outside issuer. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Fetched(Arc<Inner>);

struct Inner {
    parts: FetchedParts,
    held: ArcSwapOption<Held>,
    /// Counts fetches that brought fewer keys than were held.
    epoch: AtomicU64,
    /// Until when the fetch under way may last; 0 where none is.
    fetching_until: AtomicU64,
    /// When the last one began; 0 before the first.
    asked_at: AtomicU64,
    /// Failures in a row.
    failures: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the last failure was.
    error: String,
    /// What discovery named, and when.
    discovered: Option<(String, Mono)>,
}

struct Held {
    keys: Arc<KeySet>,
    /// The keys by what makes them the same ones.
    prints: Vec<(Option<String>, Algorithm, Thumbprint)>,
    fresh_until: Mono,
    good_until: Mono,
}

impl Fetched {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(parts: FetchedParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            held: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            fetching_until: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            state: Mutex::default(),
        }))
    }

    /// Keys as the environment of a program names them: by every algorithm with key pairs, for as long as it says, and no
    /// longer than a day after that while nobody answers.
    #[must_use]
    pub fn remote(remote: &Remote, host: Arc<dyn Host>, http: Arc<dyn Http>, make: MakeCheck) -> Self {
        let (name, url, ttl_s) = match remote {
            Remote::Url { url, ttl_s } => ("JWT_JWKS_URL", url.clone(), *ttl_s),
            Remote::Service { binding, ttl_s } => {
                ("JWT_JWKS_SERVICE", format!("service:{binding}/.well-known/jwks.json"), *ttl_s)
            }
        };
        let fresh_ms = ttl_s.saturating_mul(1000);
        let fetch = FetchConfig {
            from: KeysUrl::Jwks(url),
            via: None,
            cooldown_ms: COOLDOWN_MS.min(fresh_ms),
            fresh_ms,
            stale_ms: STALE_MS,
        };
        let algorithms = Algorithm::ALL.iter().copied().filter(|algorithm| !algorithm.is_symmetric()).collect();
        let (issuer, pins, crypto) = (String::new(), Vec::new(), Arc::new(LocalCrypto));
        Self::new(FetchedParts { name: name.to_owned(), issuer, fetch, algorithms, pins, host, http, crypto, make })
    }

    /// Whether another one would fetch the same in the same way.
    #[must_use]
    pub fn is_for(&self, parts: &FetchedParts) -> bool {
        let own = &self.0.parts;
        own.issuer == parts.issuer
            && own.fetch == parts.fetch
            && own.algorithms == parts.algorithms
            && own.pins == parts.pins
    }

    fn held(&self, now: Mono) -> Option<Arc<KeySet>> {
        let held = self.0.held.load();
        let held = held.as_ref().filter(|held| now < held.good_until)?;
        if now >= held.fresh_until && self.begin(now) {
            drop(self.spawn());
        }
        Some(Arc::clone(&held.keys))
    }

    fn is_under_way(&self, now: Mono) -> bool {
        self.0.fetching_until.load(Ordering::Acquire) > now.0
    }

    /// True for one caller per cooldown: who fetches.
    fn begin(&self, now: Mono) -> bool {
        let inner = &self.0;
        let asked_at = inner.asked_at.load(Ordering::Acquire);
        let failures = inner.failures.load(Ordering::Relaxed);
        let cooldown_ms = inner.parts.fetch.cooldown_ms;
        let is_holding = inner.held.load().as_ref().is_some_and(|held| now < held.good_until);
        // With nothing to serve, an issuer that comes back should not have to wait out a whole cooldown.
        let pause_ms = match failures {
            1.. if !is_holding => PAUSE_MS.saturating_mul(1 << failures.min(16).saturating_sub(1)).min(cooldown_ms),
            _ => cooldown_ms,
        };
        let is_time = asked_at == 0 || now.0.saturating_sub(asked_at) >= pause_ms;
        // The exchange makes it one caller, also where several come in one millisecond.
        let mark = now.0.max(1);
        let is_mine = is_time
            && !self.is_under_way(now)
            && mark != asked_at
            && inner.asked_at.compare_exchange(asked_at, mark, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_mine {
            inner.fetching_until.store(now.plus(FETCH_MS).0, Ordering::Release);
        }
        is_mine
    }

    /// Fetches, in a task that goes on should its caller leave. What comes back says that it is over.
    fn spawn(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let own = self.clone();
        self.0.parts.host.spawn(Box::pin(async move {
            own.fetch().await;
            own.0.fetching_until.store(0, Ordering::Release);
            // The caller may be gone.
            let _ = tell.send(());
        }));
        told
    }

    async fn fetch(&self) {
        let inner = &self.0;
        let name = &inner.parts.name;
        let outcome = self.try_fetch().await;
        let word = if outcome.is_ok() { "ok" } else { "failed" };
        metrics::counter!("keyreeve_keys_fetches_total", "verifier" => name.clone(), "outcome" => word).increment(1);
        match outcome {
            Ok(held) => {
                let had = inner.held.swap(Some(Arc::new(held)));
                let now_held = inner.held.load();
                let has_left = had
                    .zip(now_held.as_ref())
                    .is_some_and(|(had, has)| had.prints.iter().any(|print| !has.prints.contains(print)));
                if has_left {
                    tracing::info!(
                        verifier = name,
                        "a key of the issuer is gone: what it signed is no longer accepted"
                    );
                    inner.epoch.fetch_add(1, Ordering::AcqRel);
                }
                inner.failures.store(0, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(verifier = name, "the keys of the issuer could not be fetched: {error}");
                inner.failures.fetch_add(1, Ordering::Relaxed);
                let mut state = self.state();
                state.error = error;
                // What discovery named may have moved.
                state.discovered = None;
            }
        }
    }

    async fn try_fetch(&self) -> Result<Held, String> {
        let parts = &self.0.parts;
        let deadline = parts.host.now().mono.plus(FETCH_MS);
        let url = match &parts.fetch.from {
            KeysUrl::Jwks(url) => url.clone(),
            KeysUrl::Discovery(url) => self.discovered(url, deadline).await?,
        };
        let answer = self.request(&url, JWK_SET_BYTES_MAX, deadline).await?;
        let set =
            JwkSet::parse_public(answer.body.expose()).map_err(|error| format!("the answer is no JWKS: {error}"))?;
        for skipped in &set.skipped {
            let id = skipped.id.as_ref().map_or("-", Shown::as_str);
            tracing::warn!(verifier = parts.name, key = id, "a key is left out: {}", skipped.cause);
        }
        let (keys, prints) = usable(&set, parts)?;
        let now = parts.host.now().mono;
        let fresh_ms = max_age_ms(&answer.headers).unwrap_or(parts.fetch.fresh_ms);
        let fresh_until = now.plus(fresh_ms.clamp(parts.fetch.cooldown_ms, MAX_AGE_MS.max(parts.fetch.cooldown_ms)));
        Ok(Held { keys, prints, fresh_until, good_until: fresh_until.plus(parts.fetch.stale_ms) })
    }

    /// Where the discovery document says that the keys are.
    async fn discovered(&self, url: &str, deadline: Mono) -> Result<String, String> {
        let now = self.0.parts.host.now().mono;
        let believed = self.state().discovered.clone().filter(|(_, at)| now.since(*at) < DISCOVERY_MS);
        if let Some((url, _)) = believed {
            return Ok(url);
        }
        let answer = self.request(url, DISCOVERY_BYTES_MAX, deadline).await?;
        let document = Json::parse(answer.body.expose().clone())
            .map_err(|error| format!("the discovery document is not good JSON: {error}"))?;
        let member = |name: &str| document.root().member(name).and_then(Node::text);
        let issuer = member("issuer").unwrap_or_default();
        // OpenID Connect Discovery 1.0, 4.3: it must be the very issuer that was asked for.
        if issuer != self.0.parts.issuer {
            return Err(format!("the discovery document is that of `{}`", Shown::of(issuer)));
        }
        let jwks_url = member("jwks_uri").ok_or("the discovery document names no `jwks_uri`")?;
        if !may_follow(url, jwks_url) {
            return Err(format!(
                "the discovery document names `{}` for its keys, which is not `https`",
                Shown::of(jwks_url)
            ));
        }
        self.state().discovered = Some((jwks_url.to_owned(), now));
        Ok(jwks_url.to_owned())
    }

    async fn request(&self, url: &str, answer_bytes_max: usize, deadline: Mono) -> Result<HttpAnswer, String> {
        let parts = &self.0.parts;
        let request = HttpRequest {
            method: Method::GET,
            url: url.to_owned(),
            via: parts.fetch.via.clone(),
            headers: vec![(ACCEPT, Secret::new("application/json".to_owned()))],
            body: Secret::new(Vec::new()),
            answer_bytes_max,
        };
        let answer = parts.http.send(request, deadline).await.map_err(|error| match error {
            HttpError::NotSent(cause) => format!("it was not reached: {cause}"),
            HttpError::NoAnswer(cause) => format!("it did not answer: {cause}"),
            HttpError::TooLarge(limit) => format!("its answer has more than {limit} bytes"),
        })?;
        match answer.status {
            200 => Ok(answer),
            300..=399 => Err(format!("it answered {}, and redirects are not followed", answer.status)),
            status => Err(format!("it answered {status}")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self) -> Unavailable {
        let error = self.state().error.clone();
        let error = if error.is_empty() { "the issuer did not answer in time".into() } else { error };
        Unavailable(format!("verifier `{}`: {error}", self.0.parts.name))
    }
}

#[async_trait]
impl Keys for Fetched {
    fn known(&self) -> Option<Arc<KeySet>> {
        self.held(self.0.parts.host.now().mono)
    }

    fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    async fn look(&self, missing: Option<&str>) -> Result<Arc<KeySet>, Unavailable> {
        let host = &self.0.parts.host;
        let until = host.now().mono.plus(FETCH_MS);
        let mut pause_ms = LOOK_MS_MIN;
        loop {
            let now = host.now().mono;
            let held = self.held(now);
            if let Some(keys) = &held
                && missing.is_none_or(|id| keys.has(id))
            {
                return Ok(Arc::clone(keys));
            }
            if self.begin(now) {
                let told = self.spawn();
                let _ = select(told, host.sleep_until(now.plus(FETCH_MS))).await;
                return self.held(host.now().mono).ok_or_else(|| self.unavailable());
            }
            if !self.is_under_way(now) || now >= until {
                return held.ok_or_else(|| self.unavailable());
            }
            // By a timer of one's own, never by a waker of somebody else's.
            host.sleep_until(now.plus(pause_ms)).await;
            pause_ms = pause_ms.saturating_mul(2).min(LOOK_MS_MAX);
        }
    }
}

/// The keys that may be used, ready; and what makes them the same ones.
type Usable = (Arc<KeySet>, Vec<(Option<String>, Algorithm, Thumbprint)>);

/// The keys of a set that are for these algorithms and among those that are pinned.
///
/// # Errors
/// A sentence where there is none: whoever answers so has said nothing that could replace what is known.
fn usable(set: &JwkSet, parts: &FetchedParts) -> Result<Usable, String> {
    let (mut keys, mut prints) = (Vec::new(), Vec::new());
    for jwk in &set.keys {
        let print = jwk.key.thumbprint(parts.crypto.as_ref());
        let shown = jwk.id.as_deref().map(Shown::of);
        let id = shown.as_ref().map_or("-", Shown::as_str);
        match make(jwk, &print, parts) {
            Ok(key) => {
                keys.push(key);
                prints.push((jwk.id.clone(), jwk.algorithm, print));
            }
            Err(cause) => tracing::warn!(verifier = parts.name, key = id, "a key is left out: {cause}"),
        }
    }
    if keys.is_empty() {
        return Err("the answer has no key that can be used here".into());
    }
    Ok((Arc::new(KeySet::new(keys)), prints))
}

fn make(jwk: &Jwk, print: &Thumbprint, parts: &FetchedParts) -> Result<crate::jwt::Key, String> {
    if !parts.algorithms.contains(&jwk.algorithm) {
        return Err(format!("it is for {}, which is not among `algorithms`", jwk.algorithm));
    }
    if !parts.pins.is_empty() && !parts.pins.contains(print) {
        return Err(format!("its thumbprint `{print}` is not among `pins`"));
    }
    key_of(jwk, parts.make).map_err(|error| error.to_string())
}

/// `https`, or where the document itself came over `http` from this machine, there again.
fn may_follow(document: &str, url: &str) -> bool {
    let loopback = |url: &str| {
        let host = url.parse::<http::Uri>().ok().and_then(|uri| Some(uri.authority()?.host().to_owned()))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        is_own.then_some(())
    };
    let is_url = url.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_some_and(|it| !it.as_str().contains('@')));
    let is_local = url.starts_with("http://") && document.starts_with("http://");
    is_url && (url.starts_with("https://") || is_local && loopback(url).is_some() && loopback(document).is_some())
}

/// `max-age` of an answer (RFC 9111 5.2.2.1), in milliseconds; 0 where it says that it must not be kept.
fn max_age_ms(headers: &HeaderMap) -> Option<u64> {
    let mut age_ms = None;
    for line in headers.get_all(CACHE_CONTROL) {
        for directive in line.to_str().ok()?.split(',').map(str::trim) {
            if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
                return Some(0);
            }
            let Some((name, value)) = directive.split_once('=') else { continue };
            if name.eq_ignore_ascii_case("max-age") {
                age_ms = value.trim_matches('"').parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1000));
            }
        }
    }
    age_ms
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the keys of {} (cooldown {})", self.0.parts.name, Span(self.0.parts.fetch.cooldown_ms))
    }
}
