//! Tokens for one program: what signs, what verifies, and for whom.

use std::sync::Arc;

use keyreeve_core::jwt::{BINDING_CLAIM, Claims, Delegation, Draft, Expected, Request, Verified};
use keyreeve_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::environment::{KitError, Platform, Settings};
use super::keys::{Keys, Unavailable};
use super::signing::SigningKey;
use super::verifier::{Verifier, VerifyError};
use crate::crypto::{LocalCrypto, SignError};

/// Tells the time.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Signs and verifies for one program. Each has its own: two kits share nothing.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use keyreeve::jwt::Kit;
///
/// let kit = Kit::from_environment()?; // JWT_ISS, JWT_AUD, JWT_SECRET_NAME ...
/// let token = kit.sign(&serde_json::json!({ "sub": "u1", "permissions": ["orders:read"] })).await?;
/// let verified = kit.verify(&token).await?;
/// assert_eq!(verified.claims().subject(), Some("u1"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kit {
    issuer: Arc<str>,
    audience: Arc<[String]>,
    ttl_s: u64,
    signing: Option<SigningKey>,
    verifier: Option<Verifier>,
    now: Now,
}

/// What a token says besides its claims, where it is not what the kit says.
#[derive(Clone, Debug, Default)]
pub struct SignOptions {
    /// Another issuer.
    pub issuer: Option<String>,
    /// Another audience; empty for the kit's.
    pub audience: Vec<String>,
    /// Another life, in seconds.
    pub ttl_s: Option<u64>,
    /// Another `typ`, such as `at+jwt`.
    pub typ: Option<String>,
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The kit has no signing key.
    #[error("this kit has no key to sign with: set `JWT_PRIVATE_JWK` or `JWT_SECRET`")]
    NoKey,
    /// The claims are not a JSON object.
    #[error("claims must be a JSON object: {0}")]
    Claims(String),
    /// The original does not allow it.
    #[error(transparent)]
    Refused(#[from] super::Refusal),
    /// The signer failed, or the token is too large.
    #[error(transparent)]
    Signer(#[from] SignError),
}

impl Kit {
    /// A kit that signs as `issuer` for `audience` and expects the same of others' tokens.
    #[must_use]
    pub fn new(
        expected: Expected,
        ttl_s: u64,
        signing: Option<SigningKey>,
        keys: Option<Arc<dyn Keys>>,
        now: Now,
    ) -> Self {
        Self {
            issuer: expected.issuers().first().map(String::as_str).unwrap_or_default().into(),
            audience: expected.audiences().into(),
            ttl_s,
            signing,
            verifier: keys.map(|keys| Verifier::new(expected, keys)),
            now,
        }
    }

    /// A kit from variables, as [`super::environment`] says.
    ///
    /// # Errors
    /// [`KitError`] with every problem.
    pub fn from_platform(platform: &Platform<'_>, now: Now) -> Result<Self, KitError> {
        let Settings { ttl_s, expected, signing, keys, .. } = Settings::read(platform)?;
        Ok(Self::new(expected, ttl_s, signing, keys, now))
    }

    /// A kit from the variables of this process and its clock. Keys at a URL (`JWT_JWKS_URL`) need the feature `system`, which
    /// brings a client, and tokio to run it on; [`from_platform`](Self::from_platform) takes any other.
    ///
    /// # Errors
    /// [`KitError`] with every problem.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_environment() -> Result<Self, KitError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// A kit from variables and the clock of this process.
    ///
    /// # Errors
    /// [`KitError`] with every problem.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, KitError> {
        let platform = Platform {
            variable: &variable,
            file: &|path| std::fs::read_to_string(path).map_err(|cause| format!("cannot read `{path}`: {cause}")),
            #[cfg(feature = "system")]
            remote: &crate::system::keys,
            #[cfg(not(feature = "system"))]
            remote: &|_| {
                let hint = "turn on the feature `system` of the crate `keyreeve`, or give one to `Kit::from_platform`";
                Err(format!("keys at a URL need an HTTP client: {hint}"))
            },
            signer: crate::crypto::any_signer,
            check: crate::crypto::check,
        };
        Self::from_platform(&platform, Arc::new(system_time))
    }

    /// What verifies, if anything does.
    #[must_use]
    pub const fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// What signs, if anything does.
    #[must_use]
    pub const fn signing_key(&self) -> Option<&SigningKey> {
        self.signing.as_ref()
    }

    /// What time it is for this kit.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Signs claims for the kit's audience and life. Adds `iss`, `aud`, `iat` and `exp`, whatever the claims say of these.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign<C: Serialize + ?Sized>(&self, claims: &C) -> Result<String, IssueError> {
        self.sign_with(claims, &SignOptions::default()).await
    }

    /// Signs claims otherwise than the kit usually does.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_with<C: Serialize + ?Sized>(
        &self,
        claims: &C,
        options: &SignOptions,
    ) -> Result<String, IssueError> {
        self.finish(self.filled(claims, options)?, options).await
    }

    /// The same as [`sign`](Self::sign), by the name it has in the Flarelette kit.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn create_token<C: Serialize + ?Sized>(
        &self,
        claims: &C,
        options: &SignOptions,
    ) -> Result<String, IssueError> {
        self.sign_with(claims, options).await
    }

    /// Signs a token with which `actor` acts for the subject of `original` (RFC 8693). It may what the original may and ends no
    /// later; [`Delegation`] can make it less.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn create_delegated_token(
        &self,
        original: &Verified<Claims>,
        actor: &str,
        options: &SignOptions,
    ) -> Result<String, IssueError> {
        let audience = if options.audience.is_empty() { &*self.audience } else { &options.audience };
        let mut delegation = Delegation::new(actor, options.issuer.as_deref().unwrap_or(&self.issuer), audience);
        delegation.life_s = options.ttl_s.unwrap_or(self.ttl_s);
        self.sign_delegation(&delegation, original).await
    }

    /// Signs what a [`Delegation`] asks for.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_delegation(
        &self,
        delegation: &Delegation<'_>,
        original: &Verified<Claims>,
    ) -> Result<String, IssueError> {
        let draft: Draft = delegation.draft(original, self.now())?;
        let key = self.signing.as_ref().ok_or(IssueError::NoKey)?;
        Ok(key.sign(&draft.json()).await?)
    }

    /// Signs claims for one request only: method, path, query and body.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_with_request_binding<C: Serialize + ?Sized>(
        &self,
        claims: &C,
        request: &Request<'_>,
        options: &SignOptions,
    ) -> Result<String, IssueError> {
        let mut claims = self.filled(claims, options)?;
        claims.insert(BINDING_CLAIM.to_owned(), request.digest(&LocalCrypto).into());
        self.finish(claims, options).await
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// [`VerifyError`] says why, for the operator; [`Refusal::public`](super::Refusal::public) is for strangers.
    pub async fn verify(&self, token: &str) -> Result<Verified<Claims>, VerifyError> {
        let verifier = self.verifier.as_ref().ok_or_else(|| {
            Unavailable(
                "this kit has no key to verify with: set `JWT_SECRET`, `JWT_PUBLIC_JWK` or `JWT_JWKS_URL`".into(),
            )
        })?;
        verifier.verify(token, self.now()).await
    }

    /// Verifies a token and reads its claims as a type of the caller's.
    ///
    /// # Errors
    /// [`VerifyError`]; claims that do not fit the type are a refusal.
    pub async fn verify_as<T: DeserializeOwned>(&self, token: &str) -> Result<Verified<T>, VerifyError> {
        let verified = self.verify(token).await?;
        let read = verified.read(|claims| serde_json::from_str(claims.json().text()));
        Ok(read.map_err(|_| super::Refusal::BadClaim { name: "claims", why: "do not fit the type they are read as" })?)
    }

    /// The claims of a good token; `None` for every other, without a reason. [`verify`](Self::verify) says why.
    pub async fn claims(&self, token: &str) -> Option<Verified<Claims>> {
        self.verify(token).await.ok()
    }

    /// Verifies a token that is bound to one request, and takes the binding off its claims.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify_with_request_binding(
        &self,
        token: &str,
        request: &Request<'_>,
    ) -> Result<Verified<Claims>, VerifyError> {
        Ok(self.verify(token).await?.bound_to(request, &LocalCrypto)?)
    }

    fn filled<C: Serialize + ?Sized>(
        &self,
        claims: &C,
        options: &SignOptions,
    ) -> Result<Map<String, Value>, IssueError> {
        let mut claims = match serde_json::to_value(claims) {
            Ok(Value::Object(claims)) => claims,
            Ok(other) => return Err(IssueError::Claims(format!("found {}", kind(&other)))),
            Err(cause) => return Err(IssueError::Claims(cause.to_string())),
        };
        let audience = if options.audience.is_empty() { &*self.audience } else { &options.audience };
        let audience = match audience {
            [one] => Value::from(one.as_str()),
            several => Value::from(several),
        };
        let issued_s = self.now().seconds();
        let ends_s = issued_s.saturating_add(options.ttl_s.unwrap_or(self.ttl_s));
        let issuer = options.issuer.as_deref().unwrap_or(&self.issuer);
        claims.insert("iss".to_owned(), issuer.into());
        claims.insert("aud".to_owned(), audience);
        claims.insert("iat".to_owned(), issued_s.into());
        claims.insert("exp".to_owned(), ends_s.into());
        Ok(claims)
    }

    async fn finish(&self, claims: Map<String, Value>, options: &SignOptions) -> Result<String, IssueError> {
        let key = self.signing.as_ref().ok_or(IssueError::NoKey)?;
        let claims = Value::Object(claims).to_string();
        Ok(match &options.typ {
            None => key.sign(&claims).await?,
            Some(typ) => key.sign_as(typ, &claims).await?,
        })
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn system_time() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
