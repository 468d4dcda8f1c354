//! Clients of issuers, and how they prove who they are: a secret, a signed assertion, a certificate.
//!
//! Whoever is nobody hears one word and waits as long as somebody with a wrong proof: the same hash is compared, the same
//! kind of signature checked, for a client that is not there too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use keyreeve_core::crypto::Crypto;
use keyreeve_core::jwt::{Algorithm, Claims, Expected, JwkSet, PublicKey, Unverified, Verified};
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::config::{ClientConfig, ClientProof, IssuerConfig};
use crate::crypto;
use crate::jwt::{self, KeySet, VerifyError};
use crate::port::Secrets;

/// The longest life of a client's assertion, in seconds, clocks aside.
const ASSERTION_S_MAX: u64 = 300;
/// The most assertions of one client that are remembered at once.
const ASSERTIONS_MAX: usize = 16_384;

/// A client, ready to be recognized.
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// What the configuration says about it.
    pub config: ClientConfig,
    /// Its public keys, where it has some.
    pub(crate) keys: Option<KeySet>,
    /// The assertions it has shown, until they expire.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    known: HashMap<[u8; 32], Timestamp>,
    ends: BTreeSet<(Timestamp, [u8; 32])>,
}

/// Everybody who may ask.
#[derive(Default)]
pub struct Clients {
    all: BTreeMap<String, Arc<Client>>,
}

/// How certificates are told from one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// By a name that an authority vouches for: `tls_client_auth`.
    pub by_name: bool,
    /// By themselves, whoever signed them: `self_signed_tls_client_auth`.
    pub by_itself: bool,
}

/// What somebody shows. Exactly one of them: RFC 6749 2.3.
pub enum Shows<'a> {
    /// `client_id` and secret.
    Secret(&'a str, &'a Secret<String>),
    /// A signed assertion, and the `client_id` beside it, if there is one.
    Assertion(&'a str, Option<&'a str>),
    /// `client_id`, the SHA-256 of the certificate that the connection was made with, and those of its names that are vouched for.
    Certificate(&'a str, [u8; 32], &'a [String]),
}

/// Why somebody is not a client. For the log: strangers hear `invalid_client`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stranger {
    /// No such client, or it proves itself in another way, or to another issuer.
    #[error("`{0}` is no client that proves itself so to this issuer")]
    Unknown(String),
    /// The wrong secret or certificate.
    #[error("`{0}` has another secret or certificate")]
    Wrong(String),
    /// The certificate has other names, or nobody vouches for it.
    #[error("the certificate that `{0}` shows has another name: {1}")]
    OtherName(String, String),
    /// The assertion is refused.
    #[error("the assertion of `{0}` is refused: {1}")]
    Assertion(String, String),
    /// The assertion was shown before.
    #[error("the assertion of `{0}` was shown before")]
    Replayed(String),
    /// More assertions than are remembered.
    #[error("`{0}` shows more than {ASSERTIONS_MAX} assertions at once; tokens can be kept until they expire")]
    TooMany(String),
}

/// A key that nobody has the private half of.
static DECOY: LazyLock<Option<KeySet>> = LazyLock::new(|| {
    let key = PublicKey::Ed25519([
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1,
        0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]);
    let check = crypto::check(&key, Algorithm::EdDsa).ok()?;
    Some(KeySet::new(vec![jwt::Key::new(None, Algorithm::EdDsa, check)]))
});

impl Clients {
    /// Makes clients ready: reads and parses their public keys.
    ///
    /// # Errors
    /// A sentence for each key set that cannot be read.
    pub fn new(configured: &BTreeMap<String, ClientConfig>, secrets: &dyn Secrets) -> Result<Self, Vec<String>> {
        let mut all = BTreeMap::new();
        let mut problems = Vec::new();
        for (id, config) in configured {
            let keys = match &config.proof {
                ClientProof::Jwks(place) => match secrets.read(place).and_then(|text| public_keys(text.expose())) {
                    Ok(keys) => Some(keys),
                    Err(why) => {
                        problems.push(format!("`client.{id}.jwks`: {why}"));
                        continue;
                    }
                },
                ClientProof::SecretSha256(_) | ClientProof::CertificateSha256(_) | ClientProof::CertificateName(_) => {
                    None
                }
            };
            let client = Client { id: id.clone(), config: config.clone(), keys, shown: Mutex::default() };
            all.insert(id.clone(), Arc::new(client));
        }
        if problems.is_empty() { Ok(Self { all }) } else { Err(problems) }
    }

    /// Who shows this to `issuer`. The `audience` of an assertion is one of `audiences`.
    ///
    /// # Errors
    /// [`Stranger`].
    pub async fn identify(
        &self,
        crypto: &dyn Crypto,
        (name, issuer): (&str, &IssuerConfig),
        audiences: &[String],
        shows: Shows<'_>,
        now: Timestamp,
    ) -> Result<Arc<Client>, Stranger> {
        match shows {
            Shows::Secret(id, secret) => {
                let digest = crypto.sha256(&[secret.expose().as_bytes()]);
                self.by_digest(name, id, digest, |proof| match proof {
                    ClientProof::SecretSha256(hash) => Some(*hash),
                    _ => None,
                })
            }
            Shows::Certificate(id, digest, names) => match self.at(name, id) {
                Some(client) if let ClientProof::CertificateName(wanted) = &client.config.proof => {
                    let is_it = names.contains(wanted);
                    if is_it { Ok(Arc::clone(client)) } else { Err(Stranger::OtherName(clipped(id), listed(names))) }
                }
                _ => self.by_digest(name, id, digest, |proof| match proof {
                    ClientProof::CertificateSha256(hash) => Some(*hash),
                    _ => None,
                }),
            },
            Shows::Assertion(assertion, id) => {
                self.by_assertion(crypto, (name, issuer), audiences, assertion, id, now).await
            }
        }
    }

    /// How clients of `issuer` prove themselves by certificates.
    #[must_use]
    pub fn certificates_of(&self, issuer: &str) -> Certificates {
        let mut found = Certificates::default();
        for client in self.all.values().filter(|client| client.config.issuer.as_str() == issuer) {
            found.by_name |= matches!(client.config.proof, ClientProof::CertificateName(_));
            found.by_itself |= matches!(client.config.proof, ClientProof::CertificateSha256(_));
        }
        found
    }

    fn at(&self, issuer: &str, id: &str) -> Option<&Arc<Client>> {
        self.all.get(id).filter(|client| client.config.issuer.as_str() == issuer)
    }

    fn by_digest(
        &self,
        issuer: &str,
        id: &str,
        digest: [u8; 32],
        of: impl Fn(&ClientProof) -> Option<[u8; 32]>,
    ) -> Result<Arc<Client>, Stranger> {
        let client = self.at(issuer, id);
        let wanted = client.and_then(|client| of(&client.config.proof));
        // No text has this digest, so far.
        let is_right: bool = wanted.unwrap_or([0; 32]).ct_eq(&digest).into();
        match (client, wanted) {
            (Some(client), Some(_)) if is_right => Ok(Arc::clone(client)),
            (Some(_), Some(_)) => Err(Stranger::Wrong(clipped(id))),
            _ => Err(Stranger::Unknown(clipped(id))),
        }
    }

    async fn by_assertion(
        &self,
        crypto: &dyn Crypto,
        (name, issuer): (&str, &IssuerConfig),
        audiences: &[String],
        assertion: &str,
        said: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<Client>, Stranger> {
        let id = claimed_issuer(assertion).or(said.map(str::to_owned)).unwrap_or_default();
        let client = self.at(name, &id);
        let keys = client.and_then(|client| client.keys.as_ref());
        let refused = |why: String| Stranger::Assertion(clipped(&id), why);
        let Some(checked_with) = keys.or(DECOY.as_ref()) else { return Err(Stranger::Unknown(clipped(&id))) };
        let expected = Expected::new([if id.is_empty() { "-" } else { id.as_str() }], audiences.iter().cloned());
        let expected = expected.map_err(|error| refused(error.to_string()))?;
        let leeway_s = (issuer.rules.skew_ms / 1000).min(expected.leeway_s());
        let expected = expected.with_leeway_s(leeway_s).map_err(|error| refused(error.to_string()))?;
        let verified = verify(checked_with, &expected, assertion, now).await;
        let (Some(client), Some(_)) = (client, keys) else { return Err(Stranger::Unknown(clipped(&id))) };
        let verified = verified.map_err(|error| refused(error.to_string()))?;
        let claims = verified.claims();
        // RFC 7523 3: issuer and subject are the client.
        if claims.subject() != Some(&id) || said.is_some_and(|said| said != id) {
            return Err(refused("`iss`, `sub` and `client_id` are not the same".into()));
        }
        client.show_once(crypto, &verified, ASSERTION_S_MAX.saturating_add(leeway_s), now)?;
        Ok(Arc::clone(client))
    }
}

impl Client {
    /// Takes an assertion that this client has signed, unless it has shown it before, or could show it for too long.
    pub(crate) fn show_once(
        &self,
        crypto: &dyn Crypto,
        verified: &Verified<Claims>,
        life_s_max: u64,
        now: Timestamp,
    ) -> Result<(), Stranger> {
        let refused = |why: &str| Stranger::Assertion(self.id.clone(), why.to_owned());
        let jti = verified.claims().token_id().ok_or_else(|| refused("it has no `jti`"))?;
        let expires_at = verified.expires_at();
        if expires_at.since(now) > life_s_max.saturating_mul(1000) {
            return Err(refused("its `exp` lies more than 5m ahead"));
        }
        let digest = crypto.sha256(&[jti.as_bytes()]);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        // The leeway has passed as well.
        let over = |end: Timestamp| end.plus(2 * 60_000) < now;
        while let Some((end, digest)) = shown.ends.first().copied().filter(|(end, _)| over(*end)) {
            shown.ends.remove(&(end, digest));
            shown.known.remove(&digest);
        }
        if shown.known.contains_key(&digest) {
            return Err(Stranger::Replayed(self.id.clone()));
        }
        if shown.known.len() >= ASSERTIONS_MAX {
            return Err(Stranger::TooMany(self.id.clone()));
        }
        shown.known.insert(digest, expires_at);
        shown.ends.insert((expires_at, digest));
        Ok(())
    }

    /// Whether it may ask for `subject` with an assertion of its own.
    pub(crate) fn speaks_for(&self, subject: &str) -> bool {
        self.config.subjects.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => subject.starts_with(start),
            None => subject == pattern,
        })
    }
}

/// Verifies a token with keys that never change.
pub(crate) async fn verify(
    keys: &KeySet,
    expected: &Expected,
    token: &str,
    now: Timestamp,
) -> Result<Verified<Claims>, VerifyError> {
    let signed = jwt::verifier::settled(Unverified::parse(token)?.select(keys)?).await?;
    Ok(signed.claims(expected, now)?)
}

/// Who a token says it is from. Nothing vouches for it.
pub(crate) fn claimed_issuer(token: &str) -> Option<String> {
    let claims = Unverified::parse(token).ok()?.unverified_claims().ok()?;
    claims.root().member("iss")?.text().map(str::to_owned)
}

fn public_keys(text: &[u8]) -> Result<KeySet, String> {
    let set = JwkSet::parse_public(text).map_err(|error| error.to_string())?;
    let (keys, skipped) = jwt::key_set(&set, crypto::check);
    if let Some(skipped) = skipped.first() {
        return Err(format!("a key cannot be used: {}", skipped.cause));
    }
    if keys.keys().is_empty() {
        return Err("there is no key in it".to_owned());
    }
    Ok(keys)
}

/// The names of a certificate, for the log.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| format!("`{}`", clipped(name))).collect();
    if shown.is_empty() { "none that an authority under `client_ca` vouches for".into() } else { shown.join(", ") }
}

/// The beginning of what a stranger sent, for the log.
fn clipped(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(64).collect()
}
