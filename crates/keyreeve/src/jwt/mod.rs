//! Tokens for Rust programs, and for keyreeve's own gates and issuers.
//!
//! - [`keys`]: trusted keys ready to verify, and where they come from
//! - [`verifier`]: tokens in, [`Verified`] claims out
//! - [`signing`]: claims in, tokens out
//!
//! What is decided about a token is in [`keyreeve_core::jwt`]; here is what computes and what waits.

pub mod keys;
pub mod signing;
pub mod verifier;

pub use keyreeve_core::jwt::{
    Algorithm, Claims, Draft, Expected, Header, Jwk, JwkSet, PublicKey, Refusal, Thumbprint, TokenType, Unverified,
    Verified,
};
pub use keys::{Fixed, Key, KeySet, Keys, Unavailable, key_of, key_set};
pub use signing::SigningKey;
pub use verifier::{Verifier, VerifyError};
