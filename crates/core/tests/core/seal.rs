//! Secrets at rest: what opens, what does not, and what the refusal says.

use keyreeve_core::id::{CredentialName, IssuerName};
use keyreeve_core::seal::{KeyRing, PLAIN_BYTES_MAX, SealContext, SealError, SealKey, SealedCopy, SealedKey, key_of};
use keyreeve_core::secret::Secret;

use crate::crypto::RustCrypto;
use crate::given::{bytes_of, hex_of};

const NONCE: [u8; 24] = *b"24 bytes, never used 2x.";
const PLAIN: &[u8] = b"not a real token, but sealed like one";

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn key(byte: u8) -> SealKey {
    SealKey::new(&RustCrypto, [byte; 32])
}

fn ring(byte: u8) -> KeyRing {
    KeyRing::new(key(byte), vec![])
}

fn sealed(ring: &KeyRing, name: &CredentialName, generation: u64) -> Vec<u8> {
    ring.seal(&RustCrypto, &NONCE, SealContext { name, generation }, PLAIN).unwrap()
}

fn open(ring: &KeyRing, name: &CredentialName, generation: u64, envelope: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
    ring.open(&RustCrypto, SealContext { name, generation }, envelope)
}

fn damaged(what: &str) -> Result<Secret<Vec<u8>>, SealError> {
    Err(SealError::Damaged(what.into()))
}

#[test]
fn what_was_sealed_opens_again_and_does_not_show_in_between() {
    let apns = name("acme/apns");
    let envelope = sealed(&ring(7), &apns, 41);
    assert_eq!(open(&ring(7), &apns, 41, &envelope), Ok(Secret::new(PLAIN.to_vec())));
    assert_eq!(envelope.len(), 1 + 1 + 8 + 24 + PLAIN.len() + 16);
    assert!(!envelope.windows(4).any(|bytes| PLAIN.windows(4).any(|plain| plain == bytes)));
    assert_eq!(key_of(&envelope), Some(key(7).id()));
}

#[test]
fn an_envelope_opens_only_for_the_name_and_generation_it_was_sealed_for() {
    let apns = name("acme/apns");
    let envelope = sealed(&ring(7), &apns, 41);
    for other in ["acme/apns2", "acme/apn", "acme2/apns", "apns"] {
        assert_eq!(
            open(&ring(7), &name(other), 41, &envelope),
            damaged(&format!("`{other}` generation 41")),
            "a moved secret must not open"
        );
    }
    for generation in [0, 40, 42, u64::MAX] {
        assert_eq!(
            open(&ring(7), &apns, generation, &envelope),
            damaged(&format!("`acme/apns` generation {generation}"))
        );
    }
}

#[test]
fn a_bit_flipped_anywhere_is_noticed_and_the_refusal_fits_the_place() {
    let apns = name("apns");
    let envelope = sealed(&ring(7), &apns, 1);
    for byte in 0..envelope.len() {
        for bit in 0..8 {
            let mut flipped = envelope.clone();
            flipped[byte] ^= 1 << bit;
            let refusal = open(&ring(7), &apns, 1, &flipped).unwrap_err();
            match byte {
                0 if bit > 0 => assert_eq!(refusal, SealError::Newer(1 | 1 << bit)),
                2..10 => assert_eq!(refusal, SealError::UnknownKey(key_of(&flipped).unwrap())),
                _ => assert_eq!(refusal, SealError::Damaged("`apns` generation 1".into()), "byte {byte} bit {bit}"),
            }
        }
    }
}

#[test]
fn an_envelope_cut_off_anywhere_or_made_longer_is_damaged() {
    let apns = name("apns");
    let envelope = sealed(&ring(7), &apns, 1);
    for end in 0..envelope.len() {
        assert_eq!(open(&ring(7), &apns, 1, &envelope[..end]), damaged("`apns` generation 1"), "{end} bytes");
    }
    assert_eq!(open(&ring(7), &apns, 1, &[&envelope[..], &[0]].concat()), damaged("`apns` generation 1"));
}

#[test]
fn an_envelope_from_a_newer_keyreeve_says_so_however_little_of_it_is_understood() {
    let refusal = open(&ring(7), &name("apns"), 1, &[2]).unwrap_err();
    assert_eq!(refusal, SealError::Newer(2));
    assert_eq!(
        refusal.to_string(),
        "the seal envelope has version 2, this keyreeve reads version 1\nhint: upgrade this node"
    );
}

#[test]
fn a_missing_key_is_named_by_its_public_id() {
    let apns = name("apns");
    let envelope = sealed(&ring(7), &apns, 1);
    let refusal = open(&ring(8), &apns, 1, &envelope).unwrap_err();
    assert_eq!(refusal, SealError::UnknownKey(key(7).id()));
    assert_eq!(
        refusal.to_string(),
        format!(
            "sealed with seal key {}, which is not in `seal.keys`\nhint: add the key file back, or renew the credential \
             to seal it anew",
            key(7).id()
        )
    );
    assert_eq!(key(7).id().to_string().len(), 16, "eight bytes, printed in hex");
}

#[test]
fn another_key_under_a_forged_id_opens_nothing() {
    let apns = name("apns");
    let mut envelope = sealed(&ring(7), &apns, 1);
    envelope[2..10].copy_from_slice(&key(8).id().0);
    assert_eq!(open(&ring(8), &apns, 1, &envelope), damaged("`apns` generation 1"));
}

#[test]
fn keys_rotate_without_a_moment_at_which_something_cannot_be_read() {
    let apns = name("apns");
    let before = ring(1);
    let accepted = KeyRing::new(key(1), vec![key(2)]);
    let switched = KeyRing::new(key(2), vec![key(1)]);
    let after = ring(2);

    let old = sealed(&before, &apns, 5);
    let new = sealed(&switched, &apns, 6);
    assert_eq!(key_of(&old), Some(key(1).id()));
    assert_eq!(key_of(&new), Some(key(2).id()), "the first key seals");
    for ring in [&accepted, &switched] {
        assert!(open(ring, &apns, 5, &old).is_ok());
        assert!(open(ring, &apns, 6, &new).is_ok());
    }
    // Once everything is sealed anew, the old key may go; what was missed names it.
    assert!(open(&after, &apns, 6, &new).is_ok());
    assert_eq!(open(&after, &apns, 5, &old), Err(SealError::UnknownKey(key(1).id())));
    assert_eq!(switched.sealing_key(), key(2).id());
    assert_eq!(switched.ids().collect::<Vec<_>>(), [key(2).id(), key(1).id()]);
}

#[test]
fn neither_key_nor_secret_shows_in_debug() {
    let apns = name("apns");
    let ring = KeyRing::new(SealKey::new(&RustCrypto, *b"the 32 bytes of an unlucky key.."), vec![key(0xab)]);
    let envelope = sealed(&ring, &apns, 1);
    let shown = format!("{ring:?} {:#?} {:?}", ring, open(&ring, &apns, 1, &envelope));
    assert!(shown.contains(&format!("{}", key(0xab).id())), "the public id does show: {shown}");
    for secret in ["unlucky", "117, 110", "171, 171", "abab", "not a real", "110, 111, 116"] {
        assert!(!shown.contains(secret), "`{secret}` in {shown}");
    }
}

#[test]
fn a_secret_of_the_largest_size_is_sealed_and_one_byte_more_is_refused() {
    let apns = name("apns");
    let context = SealContext { name: &apns, generation: 1 };
    let most = vec![b'x'; PLAIN_BYTES_MAX];
    let envelope = ring(7).seal(&RustCrypto, &NONCE, context, &most).unwrap();
    assert_eq!(open(&ring(7), &apns, 1, &envelope), Ok(Secret::new(most)));
    let refusal = ring(7).seal(&RustCrypto, &NONCE, context, &vec![b'x'; PLAIN_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(refusal, SealError::TooLarge { found: 32_769, limit: 32_768 });
    assert_eq!(refusal.to_string(), "a credential of 32769 bytes is larger than the limit of 32768");
    let empty = ring(7).seal(&RustCrypto, &NONCE, context, b"").unwrap();
    assert_eq!(open(&ring(7), &apns, 1, &empty), Ok(Secret::new(vec![])));
}

#[test]
fn an_envelope_of_version_1_still_opens() {
    let bytes = bytes_of(include_str!("../data/seal-v1.hex"));
    let apns = name("acme/apns-prod");
    let context = SealContext { name: &apns, generation: 41 };
    let plain = b"a secret sealed by the first keyreeve";
    // What this keyreeve writes is what that file says; a change of layout needs a new version and a new file.
    let written = ring(7).seal(&RustCrypto, &NONCE, context, plain).unwrap();
    assert_eq!(hex_of(&written), hex_of(&bytes));
    assert_eq!(open(&ring(7), &apns, 41, &bytes), Ok(Secret::new(plain.to_vec())));
}

#[test]
fn a_signing_key_opens_as_itself_only() {
    let (gateway, data) = (IssuerName::parse("gateway").unwrap(), IssuerName::parse("data").unwrap());
    let mine = SealedKey { issuer: &gateway, kid: "k1-00ff" };
    let envelope = ring(7).seal(&RustCrypto, &NONCE, mine, PLAIN).unwrap();
    assert_eq!(ring(7).open(&RustCrypto, mine, &envelope), Ok(Secret::new(PLAIN.to_vec())));
    for other in [SealedKey { kid: "k1-00fe", ..mine }, SealedKey { issuer: &data, ..mine }] {
        let damaged = SealError::Damaged(other.to_string());
        assert_eq!(ring(7).open(&RustCrypto, other, &envelope), Err(damaged));
    }
    // A credential of the same name is something else.
    let name = name("gateway");
    assert!(ring(7).open(&RustCrypto, SealContext { name: &name, generation: 1 }, &envelope).is_err());
}

#[test]
fn a_copy_in_a_cache_opens_for_its_credential_as_it_was_configured_and_as_nothing_else() {
    let (apns, other) = (CredentialName::parse("apns").unwrap(), CredentialName::parse("apns-2").unwrap());
    let all = [(&apns, None), (&apns, Some([1; 32])), (&apns, Some([2; 32])), (&apns, Some([0; 32])), (&other, None)];
    let copies = all.map(|(name, identity)| SealedCopy { name, identity });
    for (place, copy) in copies.iter().enumerate() {
        let envelope = ring(7).seal(&RustCrypto, &NONCE, *copy, PLAIN).unwrap();
        for (at, as_other) in copies.iter().enumerate() {
            assert_eq!(
                ring(7).open(&RustCrypto, *as_other, &envelope).is_ok(),
                at == place,
                "{copy:?} as {as_other:?}"
            );
        }
        for generation in [0, 1] {
            assert!(ring(7).open(&RustCrypto, SealContext { name: copy.name, generation }, &envelope).is_err());
        }
    }
}
