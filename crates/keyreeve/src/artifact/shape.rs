//! What the CDN of GraphQL Hive makes of the bytes of some artifacts: on its old paths an entity tag of its own, and metadata without
//! the brackets that an old version of Hive put around it, which its clients cannot read.

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::hex;

/// What is in metadata whose brackets are too many.
const SCHEMA: &[u8] = b"\"#/definitions/_schema\"";

/// What Hive makes of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The entity tag on the old paths.
    pub etag: Option<HeaderValue>,
    /// Whether it is metadata in brackets that are not handed out.
    pub is_wrapped: bool,
}

/// A shape that is found out piece by piece.
pub struct Shaping {
    hash: Sha256,
    is_metadata: bool,
    first: Option<u8>,
    last: Option<u8>,
    has_schema: bool,
    /// The end of what was seen, in which the beginning of [`SCHEMA`] may be.
    tail: Vec<u8>,
}

impl Shaping {
    /// Of the artifact of this kind, of this target.
    #[must_use]
    pub fn new(target: &str, kind: &str) -> Self {
        let hash = Sha256::new().chain_update(format!("target:{target}:{kind}|"));
        let is_metadata = kind == "metadata";
        Self { hash, is_metadata, first: None, last: None, has_schema: false, tail: Vec::new() }
    }

    /// The next piece of it.
    pub fn take(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.first = self.first.or(piece.first().copied());
        self.last = piece.last().copied().or(self.last);
        if !self.is_metadata || self.has_schema {
            return;
        }
        self.tail.extend_from_slice(piece);
        self.has_schema = self.tail.windows(SCHEMA.len()).any(|window| window == SCHEMA);
        let seen = self.tail.len().saturating_sub(SCHEMA.len() - 1);
        self.tail.drain(..seen);
    }

    /// All of it was seen.
    #[must_use]
    pub fn done(self) -> Shape {
        let etag = HeaderValue::try_from(format!("\"{}\"", hex::encode(&self.hash.finalize()))).ok();
        Shape { etag, is_wrapped: self.has_schema && self.first == Some(b'[') && self.last == Some(b']') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kind: &str, text: &str, piece: usize) -> Shape {
        let mut shaping = Shaping::new("acme", kind);
        text.as_bytes().chunks(piece).for_each(|piece| shaping.take(piece));
        shaping.done()
    }

    #[test]
    fn it_is_the_same_in_whichever_pieces_the_bytes_come() {
        let text = "[{\"x\":\"#/definitions/_schema\"}]";
        let whole = shape("metadata", text, 1000);
        assert!(whole.is_wrapped);
        for piece in 1..text.len() {
            assert_eq!(shape("metadata", text, piece), whole, "{piece}");
        }
    }

    #[test]
    fn only_metadata_in_brackets_with_a_schema_is_wrapped() {
        for (kind, text, is_wrapped) in [
            ("metadata", "[\"#/definitions/_schema\"]", true),
            ("services", "[\"#/definitions/_schema\"]", false),
            ("metadata", "{\"#/definitions/_schema\":[]}", false),
            ("metadata", "[\"#/definitions/_schema\"", false),
            ("metadata", "[\"#/definitions/schema\"]", false),
            ("metadata", "[]", false),
            ("metadata", "", false),
        ] {
            assert_eq!(shape(kind, text, 7).is_wrapped, is_wrapped, "{kind} {text}");
        }
    }
}
