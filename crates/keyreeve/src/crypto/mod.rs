//! The primitives, by library.
//!
//! - [`local`]: hashing and sealing in pure Rust, for both homes
//! - [`key`]: private keys, read once from PEM or JWK
//! - [`sign`]: signatures, and which are the same bytes each time
//! - [`verify`]: keys that check signatures
//! - [`jws`]: compact JSON web signatures
//!
//! Nothing here draws a random number, but for signatures of [`any_signer`]: nonces come from the caller, and the other
//! signatures derive theirs.

#[cfg(feature = "native")]
mod aws;
pub mod jws;
pub mod key;
pub mod local;
pub mod sign;
pub mod verify;

#[cfg(feature = "native")]
pub(crate) use aws::new_rsa_numbers;
pub use key::{KeyError, rsa_pkcs8};
pub use local::LocalCrypto;
pub use sign::{MakeSigner, SignError, Signer, any_signer, signer};
pub use verify::{Check, MakeCheck, VerifyLater, check};
