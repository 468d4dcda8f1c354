//! Opaque access tokens.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;
use keyreeve_core::token::Format;

use super::artifact::ObjectsConfig;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::sheet::Sheet;
use super::types::SecretRef;

/// One family of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// How new tokens are spelt.
    pub format: Format,
    /// The longest and usual life of a token, in milliseconds; none where tokens end only if that was asked for.
    pub life_ms: Option<u64>,
    /// How long a token goes on after it was rolled, in milliseconds.
    pub grace_ms: u64,
    /// The name under `[objects.NAME]` of the bucket in which GraphQL Hive has the hashes of its tokens.
    pub hashes: Option<String>,
    /// The secret that GraphQL Hive's legacy tokens are made with.
    pub legacy_key: Option<SecretRef>,
}

/// Finds families whose hashes are nowhere.
pub(super) fn check(
    sheet: &mut Sheet,
    families: &BTreeMap<String, FamilyConfig>,
    objects: &BTreeMap<String, ObjectsConfig>,
) {
    for (name, family) in families {
        if let Some(hashes) = family.hashes.as_ref().filter(|hashes| !objects.contains_key(*hashes)) {
            let path = format!("token.{name}.hashes");
            let fault = Fault::new(
                format!("names no table of objects: {}", shown(hashes)),
                "it has the name of a bucket: `[objects.hive]`, and `hashes = \"hive\"`",
            );
            sheet.fault(&path, sheet.place(&path), &fault, None);
        }
    }
}

/// Reads all families.
pub(super) fn all(sheet: &mut Sheet) -> BTreeMap<String, FamilyConfig> {
    let mut families = BTreeMap::new();
    for named in sheet.named("token.*") {
        if !CredentialName::parse(&named.key).is_ok_and(|name| name.tenant().is_none()) {
            let message = format!("{} is not a name for a family of tokens", shown(&named.key));
            let hint = "a name has 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, and starts with a letter or digit";
            sheet.report(&named.path, named.origin.clone(), message, hint);
            continue;
        }
        let mut scope = Scope::of(sheet, &named, "token.*");
        let formats = [Format::Native, Format::Hv2].map(|format| (format.as_str(), format));
        let family = FamilyConfig {
            format: scope.choice_or("format", &formats, Format::Native),
            life_ms: scope.maybe_number("life"),
            grace_ms: scope.number("grace"),
            hashes: scope.text("hashes"),
            legacy_key: if scope.is_written("legacy") { scope.inner("legacy").secret("hmac_key") } else { None },
        };
        families.insert(named.key, family);
    }
    families
}
