//! A fake Apple Push Notification service that enforces the rules for provider tokens.
//!
//! It speaks TLS with ALPN `h2` and HTTP/2 only, really verifies ES256 signatures, and judges by a simulated clock:
//! no token in the future, none older than `max_age`, no change sooner than `min_interval` after the last one, and one
//! valid token at a time. Notifications go nowhere.
//!
//! | the request has | answer |
//! |---|---|
//! | another method than `POST` | 405 `MethodNotAllowed` |
//! | another path than `/3/device/{device token}` | 404 `BadPath` |
//! | no `authorization: bearer` | 403 `MissingProviderToken` |
//! | a token that is malformed, signed by nobody known, from the future, or of a second team on one connection | 403 `InvalidProviderToken` |
//! | a token older than `max_age`, or replaced longer than `overlap` ago | 403 `ExpiredProviderToken` with `timestamp` |
//! | a new token before `min_interval` is over | 429 `TooManyProviderTokenUpdates` |
//! | a bad `apns-id` | 400 `BadMessageId` |
//! | a device token that is not 64 to 200 hex digits | 400 `BadDeviceToken` |
//! | no `apns-topic` | 400 `MissingTopic` |
//! | an empty body, or more than 4096 bytes | 400 `PayloadEmpty`, 413 `PayloadTooLarge` |
//! | nothing of this | 200 |
//!
//! Checks run in this order, and the token is judged and counted even when a later check fails: it was presented. Every
//! answer carries `apns-id`. The `timestamp` of an expired token is the simulated time in milliseconds (Apple itself
//! sends that field with 410 only).
//!
//! Sources: Apple's "Establishing a token-based connection to APNs" and "Handling notification responses from APNs".

mod answer;
mod control;
mod ledger;
mod rules;
mod score;
mod server;
mod token;

pub use ledger::ROWS_MAX;
pub use rules::Scope;
pub use score::{Change, Score, TokenRow};
pub use server::{Apns, Config, Fault, Faults, start};
pub use token::{Key, KeyError, TOKEN_BYTES_MAX};
