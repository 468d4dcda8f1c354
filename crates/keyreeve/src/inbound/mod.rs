//! Tokens of others: whose are accepted, and what their holders may do.
//!
//! ```text
//! token -> seen lately? -> issuer -> its verifier -> keys (known, or fetched) -> Accepted -> policy -> Decision
//! ```
//! [`Accepted`] is made by verification only, and the policy takes nothing else. A verdict is kept until the token expires
//! or a key of its verifier leaves, whichever comes first; it is found by a keyed hash of the token, never by the token. Where
//! something has been revoked since, the verdict is asked for again first.
//!
//! Tokens that are signed here, for others, are made by [`issuer`] for each [`client`].
//!
//! Nothing here reads a request or writes an answer: see `http::gate` for that.

mod build;
pub mod client;
mod fetched;
pub mod issuer;
mod issuing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue};
use keyreeve_core::jwt::{Claims, Refusal, Shown, Unverified, Verified};
use keyreeve_core::policy::{Decision, Policy, Request, Source, Subject};
use keyreeve_core::time::{Moment, Timestamp};

use crate::config::IDENTITY;
pub use crate::config::{GateConfig, Proxy};
use crate::jwt::{Verifier, VerifyError};
use crate::revocation::{Credentials, JwtId, Revocations, Stale};
use crate::seen::Seen;
pub use build::{Parts, Problem, verifiers};
pub use fetched::{Fetched, FetchedParts};
pub use issuing::Issuing;

/// The most tokens that are remembered.
const TOKENS_MAX: usize = 65_536;
/// The longest value of an identity header, in bytes.
const IDENTITY_BYTES_MAX: usize = 4096;

/// For so long after keys were seen to be there, nobody asks again whether they are, in milliseconds.
const KNOWN_MS: u64 = 1000;

/// Somebody whose tokens are accepted, as the rules call them.
#[derive(Clone)]
pub struct Trusted {
    /// The name in rules.
    pub source: Source,
    /// Judges its tokens.
    pub verifier: Verifier,
    /// Whether a token of it has been taken back, where anybody can say that.
    pub revoked: Option<Revoked>,
}

/// Whether a token with these claims has been taken back. Asked once for each verdict; the epoch of the keys has to change
/// with every token that is taken back later.
pub type Revoked = Arc<dyn Fn(&Claims) -> bool + Send + Sync>;

/// A token that was verified, and by whom. Only [`Inbound::accept`] makes one.
pub struct Accepted {
    source: Source,
    verified: Verified<Claims>,
    /// Its identity headers at the gate that asked first.
    rendered: OnceLock<(Box<str>, Identity)>,
}

/// Headers that say who it is.
pub type Identity = Arc<HeaderMap>;

impl Accepted {
    /// Who vouches for it.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// What it says.
    #[must_use]
    pub const fn verified(&self) -> &Verified<Claims> {
        &self.verified
    }

    /// The headers that `gate` answers with: each of its own, empty where the claim is not there, so that whatever a client
    /// sent under that name is replaced.
    ///
    /// # Errors
    /// The header whose value would be longer than 4096 bytes.
    pub fn identity(&self, name: &str, gate: &Gate) -> Result<Identity, String> {
        if let Some((rendered_for, identity)) = self.rendered.get()
            && **rendered_for == *name
        {
            return Ok(Arc::clone(identity));
        }
        let root = self.verified.claims().json().root();
        // Room for what every answer gets besides.
        let mut headers = HeaderMap::with_capacity(gate.headers.len().saturating_add(5));
        for (header, (_, claim)) in gate.headers.iter().zip(&gate.config.identity) {
            let value = header_value(&claim.texts(root)).ok_or_else(|| header.to_string())?;
            headers.insert(header.clone(), value);
        }
        let identity = Arc::new(headers);
        let _ = self.rendered.set((name.into(), Arc::clone(&identity)));
        Ok(identity)
    }
}

/// Texts as the value of a header, with commas between them. What is no visible ASCII is percent-encoded as UTF-8, and so
/// are `%` and the commas inside of several texts: no value can be read as another one.
fn header_value<T: AsRef<str>>(texts: &[T]) -> Option<HeaderValue> {
    let mut value = String::new();
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            value.push(',');
        }
        let text = text.as_ref();
        let last = text.len().saturating_sub(1);
        for (place, byte) in text.bytes().enumerate() {
            let is_outer_space = byte == b' ' && (place == 0 || place == last);
            let is_plain = matches!(byte, b' '..=b'~') && byte != b'%' && !(byte == b',' && texts.len() > 1);
            if is_plain && !is_outer_space {
                value.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = std::fmt::Write::write_fmt(&mut value, format_args!("%{byte:02X}"));
            }
        }
        if value.len() > IDENTITY_BYTES_MAX {
            return None;
        }
    }
    HeaderValue::try_from(value).ok()
}

/// What a verified token says about itself to whoever knows what is revoked.
fn credentials<'a>(token: &'a str, verified: &'a Verified<Claims>) -> Credentials<'a> {
    let claims = verified.claims();
    let signed = || JwtId::Signed(token.rsplit_once('.').map_or(token, |(message, _)| message));
    Credentials::Jwt {
        issuer: claims.issuer().unwrap_or_default(),
        token: claims.token_id().map_or_else(signed, JwtId::Id),
        subject: claims.subject(),
        kid: verified.key_id(),
        issued_at: claims.issued_at_s().map(|at_s| Timestamp(at_s.saturating_mul(1000))),
    }
}

/// A gate, ready to answer.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Its settings.
    pub config: GateConfig,
    /// Its name in rules: `gate:orders`.
    pub place: String,
    pub(crate) method_header: HeaderName,
    pub(crate) uri_header: HeaderName,
    headers: Vec<HeaderName>,
}

impl Gate {
    /// Takes the settings of the gate `name`. A header that is none, which the configuration refuses, is left out with its
    /// claim.
    fn new(name: &str, mut config: GateConfig) -> Option<Self> {
        let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        config.identity.retain(|(name, _)| header(name).is_some());
        Some(Self {
            place: format!("gate:{name}"),
            method_header: header(&config.method_header)?,
            uri_header: header(&config.uri_header)?,
            headers: config
                .identity
                .iter()
                .filter_map(|(name, _)| usual_header(name).or_else(|| header(name)))
                .collect(),
            config,
        })
    }
}

/// A header that gates answer with unless told otherwise: copied without counting copies, which all threads would do at one
/// place.
fn usual_header(name: &str) -> Option<HeaderName> {
    let usual = IDENTITY.iter().find(|(usual, _)| *usual == name);
    usual.map(|(usual, _)| HeaderName::from_static(usual))
}

/// A verdict, and what it depends on.
#[derive(Clone)]
struct Entry {
    accepted: Arc<Accepted>,
    /// The index of who vouches for it.
    trusted: usize,
    /// The epoch of the keys it was verified with.
    epoch: u64,
    /// The epoch of what was known to be revoked then.
    followed: u64,
}

/// Everybody whose tokens are accepted, the gates, and the rules. Replaced as a whole when the configuration is read again.
pub struct Inbound {
    trusted: Vec<Trusted>,
    /// When the keys of each were last seen to be known, in milliseconds of the wall clock.
    asked_at: Vec<AtomicU64>,
    by_issuer: BTreeMap<String, Vec<usize>>,
    gates: HashMap<Box<str>, Gate>,
    policy: Policy,
    seen: Seen<Entry>,
    revocations: Option<Revocations>,
}

impl Inbound {
    /// Accepts the tokens of `trusted`. `secret` is 32 fresh random bytes: the key of the hash by which tokens are found
    /// again.
    #[must_use]
    pub fn new(
        trusted: Vec<Trusted>,
        gates: &BTreeMap<String, GateConfig>,
        policy: Policy,
        secret: [u8; 32],
    ) -> Arc<Self> {
        Self::revoking(trusted, gates, policy, secret, None)
    }

    /// As [`new`](Self::new), and refuses what `revocations` says, or everything where they have not been heard of for too long.
    #[must_use]
    pub fn revoking(
        trusted: Vec<Trusted>,
        gates: &BTreeMap<String, GateConfig>,
        policy: Policy,
        secret: [u8; 32],
        revocations: Option<Revocations>,
    ) -> Arc<Self> {
        let mut by_issuer: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, one) in trusted.iter().enumerate() {
            for issuer in one.verifier.expected().issuers() {
                by_issuer.entry(issuer.clone()).or_default().push(index);
            }
        }
        let gates =
            gates.iter().filter_map(|(name, gate)| Some((name.as_str().into(), Gate::new(name, gate.clone())?)));
        let asked_at = trusted.iter().map(|_| AtomicU64::new(0)).collect();
        let (gates, seen) = (gates.collect(), Seen::new(&secret, TOKENS_MAX));
        Arc::new(Self { trusted, asked_at, by_issuer, gates, policy, seen, revocations })
    }

    /// Accepts nothing and has no gate.
    #[must_use]
    pub fn closed() -> Arc<Self> {
        Self::new(Vec::new(), &BTreeMap::new(), Policy::default(), [0; 32])
    }

    /// The gate of this name.
    #[must_use]
    pub fn gate(&self, name: &str) -> Option<&Gate> {
        self.gates.get(name)
    }

    /// The rules.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is revoked, where that is known. A Worker's wasm leaves it out.
    #[must_use]
    pub fn revocations(&self) -> Option<&Revocations> {
        if cfg!(target_arch = "wasm32") { None } else { self.revocations.as_ref() }
    }

    /// Whose tokens are accepted: the name in rules, and the `iss` that they say.
    pub fn issuers(&self) -> impl Iterator<Item = (&Source, &[String])> {
        self.trusted.iter().map(|one| (&one.source, one.verifier.expected().issuers()))
    }

    /// Whether a token that was verified has been taken back on this node or another one.
    ///
    /// # Errors
    /// [`Stale`] where nobody can tell.
    pub fn is_revoked(&self, token: &str, verified: &Verified<Claims>) -> Result<bool, Stale> {
        let Some(revocations) = self.revocations() else { return Ok(false) };
        // Not when the request came: keys may have been waited for since.
        revocations.fresh(revocations.now())?;
        Ok(revocations.is_revoked(&credentials(token, verified)).is_some())
    }

    /// The verdict on a token that was accepted before and still is. Costs one keyed hash.
    #[must_use]
    pub fn seen(&self, token: &str, now: Moment) -> Option<Arc<Accepted>> {
        let (moment, now) = (now, now.latest());
        let entry = self.seen.find(&self.seen.digest(&[token]), now)?;
        let keys = self.trusted.get(entry.trusted)?.verifier.keys();
        let is_same = keys.epoch() == entry.epoch && self.are_known(entry.trusted, now);
        if !is_same {
            return None;
        }
        if let Some(revocations) = self.revocations() {
            revocations.fresh(moment).ok()?;
            if revocations.epoch() != entry.followed {
                let verified = &entry.accepted.verified;
                let followed = revocations.again(entry.followed, &credentials(token, verified)).ok()?;
                let entry = Entry { followed, ..entry.clone() };
                self.seen.keep(self.seen.digest(&[token]), entry, verified.expires_at(), now);
            }
        }
        Some(entry.accepted)
    }

    /// Whether there are keys to judge by: those that are too old for that are too old to go on believing by. Asking, which
    /// also has them fetched in time, reads a clock, so it is done once a second.
    fn are_known(&self, trusted: usize, now: Timestamp) -> bool {
        let (Some(one), Some(asked_at)) = (self.trusted.get(trusted), self.asked_at.get(trusted)) else { return false };
        let last = asked_at.load(Ordering::Relaxed);
        if (last..last.saturating_add(KNOWN_MS)).contains(&now.0) {
            return true;
        }
        let are_known = one.verifier.keys().known().is_some();
        if are_known {
            asked_at.store(now.0, Ordering::Relaxed);
        }
        are_known
    }

    /// Verifies a token, or remembers that it was. Dropping the future cancels waiting, never a fetch of keys.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn accept(&self, token: &str, now: Moment) -> Result<Arc<Accepted>, VerifyError> {
        if let Some(accepted) = self.seen(token, now) {
            return Ok(accepted);
        }
        // Before anything is looked at: what is revoked meanwhile makes the verdict an old one.
        let followed = self.revocations().map_or(0, Revocations::epoch);
        let (index, epoch, verified) = self.verified(token, now).await?;
        // RFC 9449 7.1, RFC 8705 3: what is bound to a key or a certificate is worth nothing in other hands, and no proxy
        // forwards a proof.
        let claims = verified.claims();
        claims.check_possession(None).and_then(|()| claims.check_certificate(None))?;
        let one = self.trusted.get(index).ok_or(Refusal::UnknownKey { kid: None })?;
        let is_taken_back = one.revoked.as_ref().is_some_and(|is| is(claims));
        if is_taken_back || self.is_revoked(token, &verified)? {
            return Err(Refusal::Revoked.into());
        }
        Ok(self.keep(token, (index, epoch, followed), one, verified, now.latest()))
    }

    /// Verifies a token, whether or not it has been revoked or is bound to somebody: to find out what it says, not to accept it.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(&self, token: &str, now: Moment) -> Result<Verified<Claims>, VerifyError> {
        self.verified(token, now).await.map(|(_, _, verified)| verified)
    }

    /// A good token, with the index of who vouches for it and the epoch of their keys.
    async fn verified(&self, token: &str, now: Moment) -> Result<(usize, u64, Verified<Claims>), VerifyError> {
        let mut refused = None;
        for index in self.candidates(token)? {
            let Some(one) = self.trusted.get(index) else { continue };
            // Before the keys are looked at: a key that leaves meanwhile makes the verdict an old one.
            let epoch = one.verifier.keys().epoch();
            match one.verifier.verify(token, now.latest()).await {
                Ok(verified) => return Ok((index, epoch, verified)),
                // Another verifier of the same issuer may be for that audience.
                Err(VerifyError::Refused(refusal @ Refusal::WrongAudience { .. })) => refused = Some(refusal),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(Refusal::UnknownKey { kid: None }).into())
    }

    fn keep(
        &self,
        token: &str,
        (trusted, epoch, followed): (usize, u64, u64),
        one: &Trusted,
        verified: Verified<Claims>,
        now: Timestamp,
    ) -> Arc<Accepted> {
        // Not the leeway: that is for clocks, and a verdict that is kept has been checked by this one.
        let ends_at = verified.expires_at();
        let accepted = Arc::new(Accepted { source: one.source.clone(), verified, rendered: OnceLock::new() });
        let entry = Entry { accepted: Arc::clone(&accepted), trusted, epoch, followed };
        self.seen.keep(self.seen.digest(&[token]), entry, ends_at, now);
        accepted
    }

    /// Whose token this says it is. Nothing vouches for that, and nothing more than the choice of keys hangs on it.
    fn candidates(&self, token: &str) -> Result<Vec<usize>, VerifyError> {
        if self.trusted.len() == 1 {
            return Ok(vec![0]);
        }
        let json = Unverified::parse(token)?.unverified_claims()?;
        let issuer = json.root().member("iss").and_then(|node| node.text()).ok_or(Refusal::MissingClaim("iss"))?;
        let unknown = || {
            let known: Vec<String> = self.by_issuer.keys().take(8).map(|issuer| format!("`{issuer}`")).collect();
            let wanted = if known.is_empty() { "none: there is no verifier".into() } else { known.join(" or ") };
            Refusal::WrongIssuer { found: Shown::of(issuer), wanted }
        };
        Ok(self.by_issuer.get(issuer).cloned().ok_or_else(unknown)?)
    }

    /// Whether the holder of an accepted token may do this.
    #[must_use]
    pub fn decide(&self, accepted: &Accepted, request: Request<'_>) -> Decision {
        let claims = accepted.verified.claims().json().root();
        self.policy.decide(Subject { source: &accepted.source, claims }, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identity_can_be_read_as_another_one() {
        let shown = |texts: &[&str]| header_value(texts).unwrap().to_str().unwrap().to_owned();
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&["auth0|7"]), "auth0|7");
        assert_eq!(shown(&["a b", "c,d", "e%2C"]), "a b,c%2Cd,e%252C");
        assert_eq!(shown(&["Ann, Doe"]), "Ann, Doe");
        assert_eq!(shown(&[" ann\r\nx-admin: 1"]), "%20ann%0D%0Ax-admin: 1");
        assert_eq!(shown(&["é\u{7f}"]), "%C3%A9%7F");
        assert!(header_value(&["x".repeat(IDENTITY_BYTES_MAX)]).is_some());
        assert!(header_value(&["x".repeat(IDENTITY_BYTES_MAX + 1)]).is_none());
    }
}
