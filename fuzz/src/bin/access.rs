//! An access token: what is taken has one spelling, and whoever is less strict finds the same in it.
#![no_main]

use keyreeve_core::secret::Secret;
use keyreeve_core::token::text::{hv2, legacy, native};
use keyreeve_core::token::{Format, Presented, TEXT_BYTES_MAX, TokenId};
use libfuzzer_sys::fuzz_target;

fn secret(one: &Presented) -> &[u8] {
    one.secret.expose()
}

fn judge(text: &str) {
    let (own, theirs) = (Presented::parse(text), Presented::parse_as_hive(text));
    assert!(text.len() <= TEXT_BYTES_MAX || (own.is_none() && theirs.is_none()));
    if let Some(theirs) = &theirs {
        assert!(theirs.format != Format::Native && secret(theirs).is_ascii() && (1..=72).contains(&secret(theirs).len()));
        assert_eq!(theirs.format == Format::Hv2, theirs.id.is_some());
    }
    let Some(own) = own else { return };
    // Written again it is the text that was read.
    let written: Secret<String> = match (own.format, own.id) {
        (Format::Native, Some(id)) => native(id, secret(&own).try_into().unwrap()),
        (Format::Hv2, Some(id)) => hv2(id, std::str::from_utf8(secret(&own)).unwrap()),
        (Format::Legacy, None) => Secret::new(String::from_utf8(secret(&own).to_vec()).unwrap()),
        (format, id) => panic!("{format:?} {id:?}"),
    };
    assert_eq!(written.expose(), text);
    match theirs {
        Some(theirs) => assert!((theirs.id, secret(&theirs)) == (own.id, secret(&own))),
        // They know no tokens of ours, and read a legacy one as a key where it begins as one.
        None => assert!(own.format == Format::Native || (own.format == Format::Legacy && text.starts_with("hv2"))),
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        judge(text);
        judge(&format!("hv2{text}"));
    }
    // What is made is taken.
    let Some((id, rest)) = data.split_first_chunk::<16>() else { return };
    let id = TokenId(*id);
    let digits: String = rest.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    let made = hv2(id, &digits);
    assert_eq!(Presented::parse(made.expose()).is_some(), (10..=40).contains(&digits.len()));
    judge(made.expose());
    if let Some(bytes) = rest.first_chunk::<32>() {
        for made in [native(id, bytes), legacy(bytes)] {
            assert!(Presented::parse(made.expose()).is_some());
            judge(made.expose());
        }
    }
});
