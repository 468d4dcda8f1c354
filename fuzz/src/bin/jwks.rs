//! A JWKS: nothing secret is taken from a public one, and every key is used or told of.
#![no_main]

use keyreeve_core::json::Json;
use keyreeve_core::jwt::{JwkSet, KEYS_MAX, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(set) = JwkSet::parse_public(data) else { return };
    assert!(set.keys.iter().all(|jwk| !jwk.is_private && !matches!(jwk.key, PublicKey::Secret(_))));
    let json = Json::parse(data.to_vec()).unwrap();
    let count = json.root().member("keys").unwrap().items().unwrap().count();
    assert!(count <= KEYS_MAX && set.keys.len() + set.skipped.len() == count);
    let own = JwkSet::parse(data).unwrap();
    assert_eq!(own.keys.len() + own.skipped.len(), count);
});
