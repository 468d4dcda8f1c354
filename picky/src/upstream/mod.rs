//! A plain HTTP issuer that counts its mints and misbehaves on demand.
//!
//! | request | answer |
//! |---|---|
//! | `POST /mint` | 200 `{"token":"t-1","expires_at":"2026-01-01T00:00:00Z"}`; 429 with `retry-after` before `min_interval` is over |
//! | `POST /use` with `authorization: bearer t-1` | 204 while the token is valid; 401 `{"error":"expired"}`, `"replaced"` or `"unknown"` |
//! | `GET /score` | the [`Score`] |
//! | `PUT /faults` | 204; the body is a [`Faults`], `{}` ends all faults |
//! | `GET /livez` | 200 |
//!
//! There is no authentication: it listens on loopback and its tokens are worth nothing.

mod config;
mod ledger;
mod score;
mod server;

pub use config::{Config, ExpiryForm, Fault, Faults, WrongExpiry};
pub use ledger::ROWS_MAX;
pub use score::{Call, Mint, Outcome, Score, Violation, ViolationKind};
pub use server::{Upstream, start};
