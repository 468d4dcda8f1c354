//! Tokens for Rust programs, and for keyreeve's own gates and issuers.
//!
//! - [`kit`]: all a program needs, from explicit values or from its environment ([`environment`])
//! - [`layer`]: verification in front of an axum router, in three lines
//! - [`possession`]: proofs that come with tokens (DPoP)
//! - [`verifier`]: tokens in, [`Verified`] claims out
//! - [`signing`]: claims in, tokens out
//! - [`keys`]: trusted keys ready to verify, and where they come from
//! - [`generate`]: new key pairs
//!
//! What is decided about a token is in [`keyreeve_core::jwt`]; here is what computes and what waits.

pub mod environment;
pub mod generate;
pub mod keys;
pub mod kit;
pub mod layer;
pub mod possession;
pub mod signing;
pub mod verifier;

pub use environment::{KitError, Platform, Remote};
pub use keyreeve_core::jwt::{
    Algorithm, Claims, Delegation, Draft, Expected, Header, Jwk, JwkSet, PublicKey, Refusal, Request, Thumbprint,
    TokenType, Unverified, Verified,
};
pub use keys::{Fixed, Key, KeySet, Keys, Unavailable, key_of, key_set};
pub use kit::{IssueError, Kit, SignOptions};
pub use layer::{Bearer, RequireToken};
pub use signing::SigningKey;
pub use verifier::{Verifier, VerifyError, settled};
