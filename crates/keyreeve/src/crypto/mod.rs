//! The primitives, by library.
//!
//! - [`local`]: hashing and sealing in pure Rust, for both homes
//! - [`key`]: private keys, read once from PEM or JWK
//! - [`sign`]: signatures that are the same bytes each time
//! - [`jws`]: compact JSON web signatures
//!
//! Nothing here draws a random number: nonces come from the caller, signatures derive theirs.

pub mod jws;
pub mod key;
pub mod local;
#[cfg(feature = "native")]
mod rsa;
pub mod sign;

pub use key::{KeyError, rsa_pkcs8};
pub use local::LocalCrypto;
pub use sign::{MakeSigner, SignError, Signer, signer};
