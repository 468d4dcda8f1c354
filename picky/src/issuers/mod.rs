//! Fakes of the issuers that services really ask, each with the rules of its own protocol, and one way to go wrong.
//!
//! * [`oauth`]: an authorization server (RFC 6749, 7523, 8693) whose refresh tokens are good for one use.
//! * [`sts`]: AWS STS with `AssumeRoleWithWebIdentity`, which verifies the web identity.
//! * [`github`]: GitHub's installation tokens, and a replica that does not know them yet.
//! * [`google`]: Google's workload identity federation, with service accounts to act as.
//!
//! Each answers `GET /score`, `PUT /faults` and `GET /livez` besides its own paths. They listen on loopback, and what they
//! issue is worth nothing.

mod desk;
mod fault;
pub mod github;
pub mod google;
mod jwt;
pub mod oauth;
mod score;
pub mod sts;

pub use fault::{Fault, Faults, WrongExpiry};
pub use jwt::{Key, KeyError};
pub use score::{Call, ROWS_MAX, Score};
