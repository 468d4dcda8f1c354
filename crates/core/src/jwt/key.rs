use std::collections::BTreeMap;
use std::sync::Arc;

use super::algorithm::Algorithm;
use super::base64url;
use super::refusal::{Refusal, Shown};
use super::token::Header;
use crate::json::write_text;

/// The signature does not belong to message and key. Nothing more is said, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// One key that can check signatures, in this process and at once. It knows its algorithm and no other.
pub trait Verify: Send + Sync {
    /// Whether `signature`, in the form of RFC 7518 section 3, is one of `message`.
    ///
    /// # Errors
    /// [`BadSignature`].
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        (**self).verify(message, signature)
    }
}

impl<V: Verify + ?Sized> Verify for Box<V> {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        (**self).verify(message, signature)
    }
}

/// A key ready to verify: its id, its algorithm, and `K`, which computes.
#[derive(Clone, Debug)]
pub struct Key<K> {
    id: Option<Arc<str>>,
    algorithm: Algorithm,
    check: K,
}

impl<K> Key<K> {
    /// A key. One without an id is for tokens whose key id no other key has, so it should be alone in its set.
    pub fn new(id: Option<&str>, algorithm: Algorithm, check: K) -> Self {
        Self { id: id.map(Arc::from), algorithm, check }
    }

    /// Its id.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn shared_id(&self) -> Option<Arc<str>> {
        self.id.clone()
    }

    pub(super) fn shown_id(&self) -> Option<Shown> {
        self.id().map(Shown::of)
    }

    /// The one algorithm it is for.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What computes.
    pub const fn check(&self) -> &K {
        &self.check
    }
}

/// The keys that a verifier trusts. Immutable: rotation makes a new set.
///
/// The headers that signers write for these keys are known beforehand, so that most tokens need no look inside theirs.
#[derive(Clone, Debug)]
pub struct KeySet<K> {
    keys: Vec<Key<K>>,
    /// Encoded header to key and meaning.
    known: BTreeMap<Box<str>, (usize, Arc<Header>)>,
}

impl<K> KeySet<K> {
    /// Takes the keys. Two of one id and one algorithm make each other unusable ([`Refusal::AmbiguousKey`]).
    pub fn new(keys: Vec<Key<K>>) -> Self {
        let mut set = Self { keys, known: BTreeMap::new() };
        let mut known = BTreeMap::new();
        for key in &set.keys {
            for (text, header) in known_headers(key) {
                if let Ok(found) = set.choose(&header) {
                    known.insert(base64url::encode(text.as_bytes()).into_boxed_str(), (found, Arc::new(header)));
                }
            }
        }
        set.known = known;
        set
    }

    /// The keys, in the order given.
    pub fn keys(&self) -> &[Key<K>] {
        &self.keys
    }

    /// Whether a key has this id.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id() == Some(id))
    }

    /// The key for a header that was written like one of ours.
    pub(super) fn known(&self, encoded: &str) -> Option<(&Key<K>, Arc<Header>)> {
        let (index, header) = self.known.get(encoded)?;
        Some((self.keys.get(*index)?, Arc::clone(header)))
    }

    /// The one key that must have signed a token with this header.
    ///
    /// # Errors
    /// [`Refusal::UnknownKey`], [`Refusal::WrongAlgorithm`], [`Refusal::AmbiguousKey`].
    pub fn select(&self, header: &Header) -> Result<&Key<K>, Refusal> {
        let index = self.choose(header)?;
        self.keys.get(index).ok_or(Refusal::UnknownKey { kid: None })
    }

    fn choose(&self, header: &Header) -> Result<usize, Refusal> {
        let all = || self.keys.iter().enumerate();
        let unknown = || Refusal::UnknownKey { kid: header.key_id.as_deref().map(Shown::of) };
        let mut fitting: Vec<_> = match header.key_id.as_deref() {
            None => all().collect(),
            Some(id) => {
                let named: Vec<_> = all().filter(|(_, key)| key.id() == Some(id)).collect();
                if named.is_empty() { all().filter(|(_, key)| key.id.is_none()).collect() } else { named }
            }
        };
        let first = fitting.first().map(|(_, key)| *key);
        let is_one = fitting.len() == 1;
        fitting.retain(|(_, key)| key.algorithm == header.algorithm);
        match (fitting.as_slice(), first) {
            ([(index, _)], _) => Ok(*index),
            // RFC 8725 3.1: the key says which algorithm.
            ([], Some(key)) if is_one || header.key_id.is_some() => {
                Err(Refusal::WrongAlgorithm { key: key.shown_id(), found: header.algorithm, wanted: key.algorithm })
            }
            ([], _) => Err(unknown()),
            (several, _) => Err(Refusal::AmbiguousKey { count: several.len() }),
        }
    }
}

/// The headers that signers write for a key: `alg`, `typ` and `kid` in the orders in use.
fn known_headers<K>(key: &Key<K>) -> Vec<(String, Header)> {
    let mut headers = Vec::new();
    let kids: &[Option<&str>] = if key.id.is_some() { &[None, key.id()] } else { &[None] };
    for kid in kids {
        for typ in [None, Some("JWT"), Some("at+jwt")] {
            let members = [("alg", Some(key.algorithm.as_str())), ("typ", typ), ("kid", *kid)];
            for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [2, 0, 1], [1, 2, 0]] {
                let mut text = String::from("{");
                for (name, value) in order.iter().filter_map(|index| members.get(*index)) {
                    let Some(value) = value else { continue };
                    if text.len() > 1 {
                        text.push(',');
                    }
                    write_text(&mut text, name);
                    text.push(':');
                    write_text(&mut text, value);
                }
                text.push('}');
                let header =
                    Header { algorithm: key.algorithm, key_id: kid.map(str::to_owned), typ: typ.map(str::to_owned) };
                headers.push((text, header));
            }
        }
    }
    headers
}
