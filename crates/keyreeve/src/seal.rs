//! The seal keys of a node, from where the configuration says they are.

use keyreeve_core::seal::{KeyRing, SealKey};
use keyreeve_core::secret::Secret;

use crate::config::SecretRef;
use crate::crypto::LocalCrypto;
use crate::port::Secrets;

/// Reads the seal keys; `None` where there are none.
///
/// # Errors
/// A sentence for each key that cannot be read or is none.
pub fn seal_keys(references: &[SecretRef], secrets: &dyn Secrets) -> Result<Option<KeyRing>, Vec<String>> {
    let mut keys = Vec::new();
    let mut problems = Vec::new();
    for (place, reference) in references.iter().enumerate() {
        let read = secrets.read(reference).and_then(|text| seal_key(&text));
        match read {
            Ok(key) => keys.push(key),
            Err(cause) => problems.push(format!("`seal.keys` number {}: {cause}", place.saturating_add(1))),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut keys = keys.into_iter();
    Ok(keys.next().map(|first| KeyRing::new(first, keys.collect())))
}

/// A seal key from its text: 64 hexadecimal digits.
fn seal_key(text: &Secret<Vec<u8>>) -> Result<SealKey, String> {
    let wrong = || String::from("a seal key is 64 hexadecimal digits\nhint: `keyreeve config new-seal-key` makes one");
    let digits = text.expose().trim_ascii();
    let mut key = Secret::new([0u8; 32]);
    let mut bytes = *key.expose();
    if digits.len() != bytes.len() * 2 {
        return Err(wrong());
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    key = Secret::new(bytes);
    Ok(SealKey::new(&LocalCrypto, *key.expose()))
}
