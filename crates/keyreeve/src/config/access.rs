//! Opaque access tokens.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;
use keyreeve_core::token::Format;

use super::problem::shown;
use super::scope::Scope;
use super::sheet::Sheet;

/// One family of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// How new tokens are spelt.
    pub format: Format,
    /// The longest and usual life of a token, in milliseconds; none where tokens end only if that was asked for.
    pub life_ms: Option<u64>,
    /// How long a token goes on after it was rolled, in milliseconds.
    pub grace_ms: u64,
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
        };
        families.insert(named.key, family);
    }
    families
}
