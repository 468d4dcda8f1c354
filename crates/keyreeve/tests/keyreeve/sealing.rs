use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::id::CredentialName;
use keyreeve::core::seal::{KeyRing, SealContext, SealError, SealKey};
use keyreeve::crypto::LocalCrypto;
use proptest::prelude::*;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn hashes_and_macs_are_those_of_the_standards() {
    // FIPS 180-4 example; RFC 4231 test case 2.
    let hash = bytes("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(LocalCrypto.sha256(&[b"abc"]), hash);
    assert_eq!(LocalCrypto.sha256(&[b"a", b"", b"bc"]), hash);
    let mac = bytes("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(LocalCrypto.hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]), mac);
}

#[test]
fn sealing_is_that_of_draft_irtf_cfrg_xchacha_a_3_1() {
    let plain: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let key = bytes("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let nonce = bytes("404142434445464748494a4b4c4d4e4f5051525354555657");
    let context: [u8; 12] = bytes("50515253c0c1c2c3c4c5c6c7");
    let sealed: [u8; 130] = bytes(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49",
    );
    assert_eq!(LocalCrypto.seal(&key, &nonce, &context, plain), sealed);
    assert_eq!(LocalCrypto.open(&key, &nonce, &context, &sealed).unwrap(), plain);
}

proptest! {
    #[test]
    fn whatever_changes_a_sealed_text_is_noticed(
        plain in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let ring = KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new());
        let name = CredentialName::parse("a").unwrap();
        let context = SealContext { name: &name, generation: 1 };
        let mut envelope = ring.seal(&LocalCrypto, &[3; 24], context, &plain).unwrap();
        let opened = ring.open(&LocalCrypto, context, &envelope).unwrap();
        prop_assert_eq!(opened.expose(), &plain);
        let moved = SealContext { name: &name, generation: 2 };
        prop_assert!(matches!(ring.open(&LocalCrypto, moved, &envelope), Err(SealError::Damaged(_))));
        let at = at.index(envelope.len());
        envelope[at] ^= 1 << bit;
        prop_assert!(ring.open(&LocalCrypto, context, &envelope).is_err());
    }

    #[test]
    fn opening_takes_any_bytes_without_falling_over(envelope in prop::collection::vec(any::<u8>(), 0..120)) {
        let ring = KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new());
        let name = CredentialName::parse("a").unwrap();
        let context = SealContext { name: &name, generation: 1 };
        prop_assert!(ring.open(&LocalCrypto, context, &envelope).is_err());
    }
}
