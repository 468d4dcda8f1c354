//! JSON web tokens (RFC 7515, 7517, 7519), verified in three steps with a type each.
//!
//! ```text
//! Unverified --select(keys)--> Selected --verify--> Signed --claims(expected, now)--> Verified<Claims>
//! ```
//!
//! [`Unverified`] is a token that has been taken apart. [`Selected`] knows the one key that must have signed it, chosen by
//! key id; the algorithm is the key's and the header's is only compared. [`Signed`] has a good signature, and nothing
//! has been believed yet. [`Verified`] is for us, from whom we trust, and alive now; nothing else makes one.
//!
//! What computes a signature is a value passed in ([`Verify`]), and may answer later (WebCrypto, a key service): then whoever
//! waited for the answer says so with [`Selected::judged`]. This module fetches no keys, keeps no cache and encrypts nothing.
//!
//! - [`Algorithm`], [`PublicKey`], [`Jwk`], [`JwkSet`], [`Thumbprint`]: keys as they are written down
//! - [`Key`], [`KeySet`]: keys ready to verify
//! - [`Expected`]: what a token has to say; [`Claims`]: what it says
//! - [`Draft`]: claims to be signed; [`Delegation`]: those of somebody who acts for somebody else
//! - [`Request`], [`Proof`]: what a token can be bound to besides, one request or one key
//! - [`Refusal`]: why not, for the operator, and in short for strangers

mod algorithm;
pub mod base64url;
mod binding;
mod claims;
mod delegate;
mod dpop;
mod draft;
mod expected;
mod jwk;
mod key;
mod refusal;
mod token;

pub use algorithm::{Algorithm, Curve, Family};
pub use binding::{BINDING_CLAIM, Request};
pub use claims::{Claims, Verified};
pub use delegate::{ACTORS_MAX, Delegation};
pub use dpop::{Possession, Proof, ProofExpected};
pub use draft::Draft;
pub use expected::{Expected, LEEWAY_S_MAX, TokenType, WrongExpectation};
pub use jwk::{JWK_BYTES_MAX, JWK_SET_BYTES_MAX, Jwk, JwkError, JwkSet, KEYS_MAX, PublicKey, Skipped, Thumbprint};
pub use key::{BadSignature, Key, KeySet, Verify};
pub use refusal::{Part, Refusal, Shown};
pub use token::{Header, Selected, Signed, TOKEN_BYTES_MAX, Unverified};
