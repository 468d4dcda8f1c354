use std::collections::BTreeMap;

use keyreeve::core::secret::Secret;
use keyreeve::source::{Fields, Kept, Material};
use proptest::prelude::*;

fn aws() -> Material {
    let named = [("AccessKeyId", "AKIA"), ("SecretAccessKey", "s3cr3t"), ("SessionToken", "session")];
    let named = named.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).collect();
    Material { secret: Fields::Named(named), kind: Material::AWS.into() }
}

/// The files were written by the first release; whatever is released later has to read them.
#[test]
fn what_an_old_keyreeve_sealed_is_read() {
    let token = include_bytes!("golden/material-v1-token.json").trim_ascii_end();
    assert_eq!(Material::from_bytes(token), Ok(Material::bearer("eyJhbGciOiJFUzI1NiJ9.e30.c2ln".into())));
    let named = include_bytes!("golden/material-v1-aws.json").trim_ascii_end();
    assert_eq!(Material::from_bytes(named), Ok(aws()));
    // And what is written today is still that layout.
    assert_eq!(aws().to_bytes().expose().as_slice(), named);
}

#[test]
fn a_newer_layout_is_refused_by_its_number() {
    let error = Material::from_bytes(br#"{"v":3,"kind":"bearer","tokens":["a"]}"#).unwrap_err();
    assert_eq!(error, "the sealed credential has layout 3, this keyreeve reads 1 to 2");
}

/// Layout 2 is layout 1 with what the next mint needs, which nobody is handed.
#[test]
fn what_is_kept_for_the_next_mint_is_read_apart_from_the_credential() {
    let stored = include_bytes!("golden/material-v2-kept.json").trim_ascii_end();
    let material = Material::bearer("eyJhbGciOiJFUzI1NiJ9.e30.c2ln".into());
    assert_eq!(Material::from_bytes(stored), Ok(material.clone()));
    let kept = Kept::from_bytes(stored).unwrap().unwrap();
    assert_eq!(kept.0["refresh_token"].expose(), "refresh-2");
    assert_eq!(material.to_bytes_with(Some(&kept)).expose().as_slice(), stored);
    assert!(!format!("{kept:?}").contains("refresh-2"));
    let plain = include_bytes!("golden/material-v1-token.json").trim_ascii_end();
    assert_eq!(Kept::from_bytes(plain), Ok(None));
}

#[test]
fn what_is_not_a_credential_is_refused_without_showing_it() {
    for bytes in [&b"hunter2"[..], b"", b"{}", br#"{"v":1,"kind":"bearer","token":"hunter2","x":1}"#] {
        assert_eq!(Material::from_bytes(bytes).unwrap_err(), "the opened envelope holds no credential");
    }
}

#[test]
fn only_a_bearer_token_has_a_header() {
    let (name, value) = Material::bearer("abc".into()).header().unwrap();
    assert_eq!((name, value.expose().as_str()), ("authorization", "bearer abc"));
    assert!(aws().header().is_none());
    assert!(Material { kind: "other".into(), ..Material::bearer("abc".into()) }.header().is_none());
}

#[test]
fn aws_keys_are_found_by_their_names() {
    let material = aws();
    let keys = material.aws().unwrap();
    assert_eq!(keys.access_key_id.expose(), "AKIA");
    assert_eq!(keys.secret_access_key.expose(), "s3cr3t");
    assert_eq!(keys.session_token.unwrap().expose(), "session");
    assert!(keys.account_id.is_none());
    assert!(Material::bearer("abc".into()).aws().is_none());
}

#[test]
fn debug_output_shows_no_secret() {
    let text = format!("{:?} {:?}", aws(), Material::bearer("hunter2".into()));
    assert!(!text.contains("s3cr3t") && !text.contains("hunter2"), "{text}");
}

proptest! {
    #[test]
    fn material_survives_being_stored(
        token in proptest::option::of(".*"),
        fields in prop::collection::btree_map(".+", ".*", 0..4),
    ) {
        let secret = match token {
            Some(token) => Fields::Token(Secret::new(token)),
            None => Fields::Named(
                fields.into_iter().map(|(name, value)| (name, Secret::new(value))).collect::<BTreeMap<_, _>>(),
            ),
        };
        let material = Material { secret, kind: "k".into() };
        prop_assert_eq!(Material::from_bytes(material.to_bytes().expose()), Ok(material));
    }

    #[test]
    fn reading_takes_any_bytes_without_falling_over(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Material::from_bytes(&bytes).is_err());
    }
}
