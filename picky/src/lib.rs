//! Fake upstreams that enforce the real rules and keep score.
//!
//! * [`apns`]: a fake Apple over TLS and HTTP/2 that really verifies provider tokens and judges how often they change.
//! * [`upstream`]: a plain HTTP issuer that counts its mints and misbehaves on demand.
//! * [`issuers`]: an authorization server, AWS STS, GitHub and Google, each with the rules of its protocol.
//! * [`oidc`]: an OpenID Connect issuer that counts who asks for its keys, rotates them, and misbehaves on demand.
//! * [`clock`]: simulated wall time, so that an hour of rules passes in seconds or under a test's hand.
//! * [`faults`]: which requests are spoiled, shared by all upstreams.
//!
//! This crate does not send anything, knows nothing of keyreeve's own crates and is never part of a served request
//! path: it exists so that demos, tests and scripts have somebody strict to talk to.

pub mod apns;
pub mod clock;
pub mod faults;
pub mod issuers;
pub mod oidc;
pub mod upstream;

mod serve;
mod tls;
