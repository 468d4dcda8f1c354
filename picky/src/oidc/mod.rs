//! An OpenID Connect issuer that counts who asks for its keys, and misbehaves on demand.
//!
//! | request | answer |
//! |---|---|
//! | `GET /.well-known/openid-configuration` | the discovery document |
//! | `GET /jwks` | the published keys (ES256) |
//! | `POST /token` with `{"aud":"orders","sub":"ann","ttl_s":600,"claims":{..},"kid":"k1"}` | 200 `{"token":"..","kid":"k1"}` |
//! | `POST /keys` with `{"do":"publish"}`, `{"do":"switch"}`, `{"do":"withdraw","kid":"k1"}` | 200 with the key ids: a new key is published; the newest signs from now on; one is published no more |
//! | `GET /score` | the [`Score`] |
//! | `PUT /faults` | 204; the body is a [`Faults`] for the first two, `{}` ends all faults |
//! | `GET /livez` | 200 |
//!
//! A token's header takes whatever `kid` is asked for; the key that signs is the one of that id, or else the present one.
//! There is no authentication: it listens on loopback, and its tokens are worth nothing.

mod config;
mod keys;
mod server;

pub use config::{Config, Fault, Faults, Score};
pub use server::{Oidc, start};
