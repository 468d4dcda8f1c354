//! What scripts and services hand back, checked in one place.

use std::collections::BTreeMap;

use keyreeve_core::record::FaultClass;
use keyreeve_core::seal::PLAIN_BYTES_MAX;
use keyreeve_core::secret::Secret;
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::{Fields, Kept, Material, MintError};

/// The most named fields in one credential.
const FIELDS_MAX: usize = 64;
/// The longest name of a field, in bytes.
const FIELD_NAME_BYTES_MAX: usize = 128;

/// Parsed JSON that may hold secrets: its texts are wiped when it is dropped.
pub(super) struct Wiped(pub(super) Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Parses a JSON object. The reason of a failure is a position, never any of the content.
pub(super) fn object(bytes: &[u8]) -> Result<Wiped, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("nothing".into());
    }
    let value = serde_json::from_slice(bytes).map_err(|cause| {
        format!("{} bytes that are not JSON (line {}, column {})", bytes.len(), cause.line(), cause.column())
    })?;
    let value = Wiped(value);
    if value.0.is_object() { Ok(value) } else { Err("JSON that is not an object".into()) }
}

/// Something may have been minted, but the answer is of no use.
pub(super) fn unusable(message: impl Into<String>) -> MintError {
    MintError::in_doubt(FaultClass::Transient, message)
}

/// Something may have been minted, and the same answer would come again.
pub(super) fn wrong(message: impl Into<String>) -> MintError {
    MintError::in_doubt(FaultClass::Misconfigured, message)
}

/// A bearer token: visible ASCII (RFC 9110 5.5), so that it fits into a header.
pub(super) fn token(field: &str, value: Option<&Value>) -> Result<Material, MintError> {
    let token = text(field, value)?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong(format!("`{field}` has characters that no header may carry")));
    }
    bounded(Material::bearer(token.to_owned()))
}

/// Named fields, each of them text.
pub(super) fn fields(field: &str, value: &Map<String, Value>) -> Result<Material, MintError> {
    if value.is_empty() || value.len() > FIELDS_MAX {
        return Err(wrong(format!("`{field}` has {} members, not 1 to {FIELDS_MAX}", value.len())));
    }
    let mut named = BTreeMap::new();
    for (name, value) in value {
        if name.is_empty() || name.len() > FIELD_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(wrong(format!("`{field}` has a member whose name is empty or longer than allowed")));
        }
        named.insert(name.clone(), Secret::new(text(name, Some(value))?.to_owned()));
    }
    bounded(Material { secret: Fields::Named(named), kind: Material::FIELDS.into() })
}

/// Non-empty text.
pub(super) fn text<'a>(field: &str, value: Option<&'a Value>) -> Result<&'a str, MintError> {
    match value {
        None | Some(Value::Null) => Err(unusable(format!("`{field}` is missing"))),
        Some(Value::String(text)) if text.is_empty() => Err(unusable(format!("`{field}` is empty"))),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong(format!("`{field}` is not text"))),
    }
}

/// Refuses what could not be sealed.
pub(super) fn bounded(material: Material) -> Result<Material, MintError> {
    fits(material.to_bytes().expose().len())?;
    Ok(material)
}

/// Refuses what could not be sealed together.
pub(super) fn bounded_with(material: &Material, kept: &Kept) -> Result<(), MintError> {
    fits(material.to_bytes_with(Some(kept)).expose().len())
}

fn fits(found: usize) -> Result<(), MintError> {
    if found > PLAIN_BYTES_MAX {
        return Err(wrong(format!("the credential has {found} bytes, more than the limit of {PLAIN_BYTES_MAX}")));
    }
    Ok(())
}
