use subtle::ConstantTimeEq as _;

use super::base64url;
use super::claims::{Claims, Verified};
use super::refusal::Refusal;
use crate::crypto::Crypto;

/// The claim that binds a token to one request.
pub const BINDING_CLAIM: &str = "req";

/// A request, as far as a token can be bound to it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// Path and query, as on the request line: `/orders?page=2`.
    pub target: &'a str,
    /// The body; empty where there is none.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// base64url(SHA-256(METHOD `\n` path and query `\n` body)).
    #[must_use]
    pub fn digest(&self, crypto: &dyn Crypto) -> String {
        let method = self.method.to_ascii_uppercase();
        base64url::encode(&crypto.sha256(&[method.as_bytes(), b"\n", self.target.as_bytes(), b"\n", self.body]))
    }
}

impl Verified<Claims> {
    /// The same claims without [`BINDING_CLAIM`], if they were bound to this very request.
    ///
    /// # Errors
    /// [`Refusal::Unbound`].
    pub fn bound_to(&self, request: &Request<'_>, crypto: &dyn Crypto) -> Result<Self, Refusal> {
        let bound = self.claims().claim(BINDING_CLAIM).ok_or(Refusal::MissingClaim(BINDING_CLAIM))?;
        let digest = request.digest(crypto);
        let is_it = bound.text().is_some_and(|bound| bound.as_bytes().ct_eq(digest.as_bytes()).into());
        if !is_it {
            return Err(Refusal::Unbound("the token is bound to another request: method, path, query or body differ"));
        }
        self.read(|claims| claims.without(BINDING_CLAIM))
    }
}
