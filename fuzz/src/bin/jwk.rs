//! A JWK: whatever is taken can be written and read again, and has a thumbprint.
#![no_main]

use keyreeve_core::jwt::{Algorithm, Jwk};
use keyreeve_fuzz::NoCrypto;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for usual in [None, Some(Algorithm::Ps512), Some(Algorithm::Hs256)] {
        let Ok(jwk) = Jwk::parse(data, usual) else { continue };
        assert!(jwk.key.goes_with(jwk.algorithm));
        let thumbprint = jwk.key.thumbprint(&NoCrypto);
        let Some(text) = jwk.key.to_jwk(jwk.id.as_deref(), jwk.algorithm) else { continue };
        let again = Jwk::parse(text.as_bytes(), None).unwrap();
        assert_eq!((&again.key, again.algorithm, &again.id), (&jwk.key, jwk.algorithm, &jwk.id));
        assert!(again.key.thumbprint(&NoCrypto) == thumbprint);
    }
});
