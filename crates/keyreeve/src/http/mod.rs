//! The HTTP API: one axum router, the same natively and on Workers.
//!
//! ```text
//! request -> sizes -> route -> caller -> right -> endpoint -> answer or problem
//! ```
//! [`ROUTES`] is the one list of what there is and who may call it: the router, the OpenAPI document and the test of
//! every refusal are made from it. Sockets, TLS, connection limits and header timeouts belong to whoever serves the
//! router.

mod api;
#[cfg(feature = "objects")]
mod artifacts;
mod auth;
mod change;
mod counts;
mod credentials;
mod events;
mod forward;
mod gate;
mod hand_out;
mod health;
mod inject;
mod input;
mod issuer;
mod oauth2;
mod openapi;
mod problem;
mod revocations;
mod route;
mod routes;
mod sizes;
mod token;
mod tokens;
mod verify;

pub use api::{Api, ArtifactGates, Live, MetricsPage, Parts};
#[cfg(feature = "objects")]
pub use artifacts::ArtifactGate;
pub use auth::{ClientCertificate, Peer};
pub use forward::Forward;
pub use inject::{Inject, Passage};
pub use openapi::openapi;
pub use problem::{Answer, Kind, PROBLEMS};
pub use route::{Site, router};
pub use routes::{Access, ROUTES, Route};
