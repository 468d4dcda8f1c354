//! The library through its public face.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod config;
mod config_issuers;
mod config_mistakes;
mod config_reference;
mod config_strange;
mod config_tokens;
mod config_worker;
mod fleet;
mod follow;
mod http_access;
mod http_answers;
mod http_bad_input;
mod http_events;
mod http_forward;
mod http_gate;
mod http_health;
mod http_oauth2;
mod http_openapi;
mod http_problems;
mod http_world;
mod inbound;
mod inbound_world;
mod issuer;
mod issuer_world;
mod keys;
mod life;
mod material;
mod parsers;
mod redact;
mod remote;
mod requirements;
mod sealing;
mod signatures;
mod signed;
mod support;
