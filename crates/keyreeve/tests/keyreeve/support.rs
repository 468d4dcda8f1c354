//! Keys and orders that several tests use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyreeve::core::lifecycle::Order;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::{Mono, Timestamp};
use serde_json::Value;

/// The key of RFC 6979 A.2.5.
pub(crate) const P256: &str = include_str!("keys/p256-pkcs8.pem");
/// 2026-11-21T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_262_400_000);

pub(crate) fn secret(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

/// An order of generation 7 issued a minute before [`NOW`], for 55 minutes.
pub(crate) fn order() -> Order {
    let issued_at = NOW.minus(60_000).plus(789);
    Order {
        generation: 7,
        epoch: 9,
        issued_at,
        expires_at: issued_at.plus(55 * 60_000),
        is_replay: false,
        send_by: Mono(10_000),
        answer_by: Mono(20_000),
    }
}

pub(crate) fn base64url(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Header text, claims text, signing input and signature of a compact token.
pub(crate) fn taken_apart(token: &str) -> (String, String, Vec<u8>, Vec<u8>) {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    let text = |part| String::from_utf8(base64url(part)).unwrap();
    (text(header), text(claims), input.as_bytes().to_vec(), base64url(signature))
}

pub(crate) fn json(text: &str) -> serde_json::Map<String, Value> {
    serde_json::from_str(text).unwrap()
}
