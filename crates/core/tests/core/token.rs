//! Access tokens: their spellings, what they are good for, and what is stored.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyreeve_core::id::NodeId;
use keyreeve_core::record::RecordError;
use keyreeve_core::seal::{KeyRing, SealKey};
use keyreeve_core::time::Timestamp;
use keyreeve_core::token::hash::{SealedHashKey, is_legacy_token, is_same, legacy_id, legacy_token, target_digest};
use keyreeve_core::token::mode::EXAMPLES_MAX;
use keyreeve_core::token::record::alias_fault;
use keyreeve_core::token::text::{hv2, native};
use keyreeve_core::token::{
    Bound, Compared, Format, HashKey, Import, Mode, ModeRecord, NotYet, OutOfScope, Presented, Record, Revocation,
    Rolled, Scope, State, TEXT_BYTES_MAX, Tally, TokenId, Used, is_target,
};
use proptest::prelude::*;

use crate::crypto::RustCrypto;
use crate::given::{HOUR, MINUTE, at, bytes_of, hex_of, op, wall};

const ID: TokenId =
    TokenId([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x47, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0]);
const PRIVATE: &str = "0123456789abcdef0123";

fn parsed(text: &str) -> Option<(Format, Option<TokenId>, Vec<u8>)> {
    Presented::parse(text).map(|it| (it.format, it.id, it.secret.expose().clone()))
}

#[test]
fn a_native_token_has_the_form_that_scanners_look_for() {
    let text = native(ID, &[0xab; 32]);
    let text = text.expose();
    let secret = "ab".repeat(32);
    // By Python's `zlib.crc32`.
    assert_eq!(*text, format!("krt_11223344556647889 9aabbccddeeff00_{secret}_a255866f").replace(' ', ""));
    assert_eq!(text.len(), 110);
    assert_eq!(parsed(text), Some((Format::Native, Some(ID), vec![0xab; 32])));
    assert_eq!(ID.to_string(), "11223344-5566-4788-99aa-bbccddeeff00");
    assert_eq!((TokenId::parse(&ID.to_string()), TokenId::from_digits(&ID.digits())), (Some(ID), Some(ID)));
}

#[test]
fn random_ids_are_uuids_of_version_4() {
    assert_eq!(TokenId::random([0xff; 16]).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(TokenId::random([0; 16]).to_string(), "00000000-0000-4000-8000-000000000000");
}

#[test]
fn hive_tokens_are_read_as_hive_makes_them_and_only_so() {
    let text = hv2(ID, PRIVATE);
    // By Python: `"hv2" + base64.b64encode(b"11223344-...:0123...").decode()`.
    let wanted = "hv2MTEyMjMzNDQtNTU2Ni00Nzg4LTk5YWEtYmJjY2RkZWVmZjAwOjAxMjM0NTY3ODlhYmNkZWYwMTIz";
    assert_eq!(text.expose(), wanted);
    assert_eq!(parsed(wanted), Some((Format::Hv2, Some(ID), PRIVATE.as_bytes().to_vec())));
    let encoded = |plain: &str| format!("hv2{}", STANDARD.encode(plain));
    assert!(parsed(&encoded(&format!("{ID}:{}", "a".repeat(40)))).is_some());
    for (plain, why) in [
        (format!("{ID}:{}", "a".repeat(9)), "too short"),
        (format!("{ID}:{}", "a".repeat(41)), "too long"),
        (format!("{ID}:{}g", "a".repeat(12)), "no digit"),
        (format!("{ID}:{}A", "a".repeat(12)), "a capital, which Hive never makes"),
        (format!("{ID}:{}:", "a".repeat(12)), "two colons"),
        (format!("{ID}{}", "a".repeat(12)), "no colon"),
        (format!("{}:{PRIVATE}", ID.to_string().to_uppercase()), "an id in capitals"),
        (format!("{}:{PRIVATE}", ID.digits()), "an id without dashes"),
        (format!("{{{ID}}}:{PRIVATE}"), "an id in braces"),
        (format!(" {ID}:{PRIVATE}"), "a space"),
        (format!("../{ID}:{PRIVATE}"), "a path"),
    ] {
        assert_eq!(parsed(&encoded(&plain)), None, "{why}");
    }
    // Padding, spaces, the other alphabet, bits that say nothing.
    let padded = encoded(&format!("{ID}:{PRIVATE}0"));
    assert!(padded.ends_with('=') && parsed(&padded).is_some());
    let loose = padded.replace("0=", "1=").replace("A=", "B=").replace("w=", "x=");
    for bad in
        [padded.trim_end_matches('=').to_owned(), format!("{padded}="), format!("{padded}\n"), format!(" {padded}")]
    {
        assert_eq!(parsed(&bad), None, "{bad:?}");
    }
    assert!(loose == padded || parsed(&loose).is_none(), "{loose}");
    assert_eq!(parsed(&text.expose().replace("hv2", "HV2")), None);
}

#[test]
fn a_legacy_token_works_also_where_it_begins_as_another_one_does() {
    // By Python: `base64.b64encode(hmac.new(b"secret", b"target-1", "sha256").digest())`.
    let legacy = "DRKy32y84wRh18Hm45ZXAXRx1aJDL+kzf+C+m7imTk4=";
    assert_eq!(parsed(legacy), Some((Format::Legacy, None, legacy.as_bytes().to_vec())));
    let unlucky = legacy.replacen("DRK", "hv2", 1);
    assert_eq!(parsed(&unlucky), Some((Format::Legacy, None, unlucky.as_bytes().to_vec())));
    let loose = legacy.replace("4=", "5=");
    for bad in [&loose, &legacy.replace('=', ""), &format!("{legacy}="), &legacy.replace("DR", "D-")] {
        assert_eq!(parsed(bad), None, "{bad}");
    }
    let ids =
        [legacy_id(&RustCrypto, "cdn", "a"), legacy_id(&RustCrypto, "cdn", "b"), legacy_id(&RustCrypto, "cd", "na")];
    assert!(ids[0] != ids[1] && ids[0] != ids[2]);
}

proptest! {
    /// One credential, one spelling: whatever else is made of a token's text is no token, or a token with another secret.
    #[test]
    fn every_token_has_one_spelling(id: [u8; 16], secret: [u8; 32], place in 0..110usize, by in 1..=255u8, form in 0..3u8) {
        let id = TokenId(id);
        let text = match form {
            0 => native(id, &secret).expose().clone(),
            1 => hv2(id, hex_of(&secret[..20]).trim()).expose().clone(),
            _ => STANDARD.encode(secret),
        };
        let before = parsed(&text);
        prop_assert!(before.is_some());
        let mut bytes = text.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] ^= by;
        if let Ok(other) = String::from_utf8(bytes) {
            let after = parsed(&other);
            prop_assert!(after.is_none() || after != before, "{text} and {other}");
            // A check in the text finds every single change.
            prop_assert!(form != 0 || after.is_none());
        }
        for other in [text.to_uppercase(), text.to_lowercase(), format!(" {text}"), format!("{text} "), text.replace('_', "-"),
            text.replace('=', ""), format!("{text}=="), text.replace('+', "-").replace('/', "_"), format!("{text}\0")] {
            prop_assert!(other == text || parsed(&other) != before, "{text} and {other}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_fail_and_what_it_reads_it_writes(text in ".{0,140}", hex in "[0-9a-f_krthv2=]{0,140}") {
        for text in [text, hex] {
            if let Some(it) = Presented::parse(&text) {
                prop_assert!(text.len() <= TEXT_BYTES_MAX);
                let again = match it.format {
                    Format::Native => native(it.id.unwrap(), it.secret.expose().as_slice().try_into().unwrap()).expose().clone(),
                    Format::Hv2 => hv2(it.id.unwrap(), std::str::from_utf8(it.secret.expose()).unwrap()).expose().clone(),
                    Format::Legacy => String::from_utf8(it.secret.expose().clone()).unwrap(),
                };
                prop_assert_eq!(again, text);
            }
        }
    }

    #[test]
    fn ids_have_one_spelling(id: [u8; 16], text in "[0-9a-fA-F-]{30,40}") {
        let id = TokenId(id);
        prop_assert_eq!(TokenId::parse(&id.to_string()), Some(id));
        if let Some(read) = TokenId::parse(&text) {
            prop_assert_eq!(read.to_string(), text);
        }
    }

    /// What is asked about a target is in that target, whatever it is called.
    #[test]
    fn a_target_is_one_segment_of_any_path(text in "[A-Za-z0-9._/%\\\\ -]{0,10}") {
        if is_target(&text) {
            prop_assert!(!text.contains(['/', '\\', '%', ' ']) && text != "." && text != "..");
        }
    }
}

#[test]
fn a_target_has_a_limit_and_no_tricks() {
    for good in ["a", "818d5bb7-5e46-4a8c-a0a5-a8e2ae08f3ae", "acme_prod.v2", "...a", &"t".repeat(128)] {
        assert!(is_target(good), "{good}");
    }
    for bad in ["", ".", "..", "...", "a/b", "a%2fb", "a b", "a\0", "ä", "a\\b", &"t".repeat(129)] {
        assert!(!is_target(bad), "{bad:?}");
    }
}

#[test]
fn a_hash_is_bound_to_everything_it_is_for() {
    let bound = Bound { family: "cdn", target: "acme", id: ID, format: Format::Native };
    let hash = |bound: Bound<'_>, key: &[u8; 32], secret: &[u8]| bound.hash(&RustCrypto, key, secret);
    let one = hash(bound, &[1; 32], b"secret");
    assert!(is_same(&one, &hash(bound, &[1; 32], b"secret")));
    let others = [
        hash(bound, &[2; 32], b"secret"),
        hash(bound, &[1; 32], b"secreT"),
        hash(Bound { family: "cd", target: "nacme", ..bound }, &[1; 32], b"secret"),
        hash(Bound { target: "acme2", ..bound }, &[1; 32], b"secret"),
        hash(Bound { id: TokenId([0; 16]), ..bound }, &[1; 32], b"secret"),
        hash(Bound { format: Format::Hv2, ..bound }, &[1; 32], b"secret"),
    ];
    assert!(others.iter().all(|other| !is_same(&one, other)));
    assert_ne!(target_digest(&RustCrypto, "cdn", "a"), target_digest(&RustCrypto, "cd", "na"));
}

fn scope(paths: &[&str], kinds: &[&str], networks: &[&str]) -> Scope {
    let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Scope { paths: list(paths), kinds: list(kinds), networks: list(networks) }
}

#[test]
fn a_scope_allows_what_it_names_and_nothing_else() {
    let peer = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let check = |scope: &Scope, path, kind, from| scope.compile().unwrap().check(path, kind, from);
    let all = Scope::default();
    assert!(all.is_empty());
    assert_eq!(check(&all, "anything at all", "", None), Ok(()));
    let paths = scope(&["/version/*/sdl", "/contracts/**"], &[], &[]);
    for good in ["/version/7/sdl", "/contracts/x", "/contracts/x/y"] {
        assert_eq!(check(&paths, good, "", None), Ok(()), "{good}");
    }
    for bad in [
        "/version/7/8/sdl",
        "/version//sdl",
        "/contracts",
        "/version/7/../../contracts/x",
        "/contracts/%2e%2e/x",
        "",
        "x",
    ] {
        assert_eq!(check(&paths, bad, "", None), Err(OutOfScope::Path), "{bad}");
    }
    let kinds = scope(&[], &["sdl", "supergraph"], &[]);
    assert_eq!(check(&kinds, "/", "sdl", None), Ok(()));
    assert_eq!(check(&kinds, "/", "sdl.graphql", None), Err(OutOfScope::Kind));
    let networks = scope(&[], &[], &["10.1.0.0/16", "2001:db8::/32", "192.0.2.7"]);
    for good in ["10.1.255.255", "2001:db8::1", "192.0.2.7", "::ffff:10.1.2.3"] {
        assert_eq!(check(&networks, "/", "", peer(good)), Ok(()), "{good}");
    }
    for bad in ["10.2.0.0", "2001:db9::1", "192.0.2.8", "::10.1.2.3", "::1"] {
        assert_eq!(check(&networks, "/", "", peer(bad)), Err(OutOfScope::Network), "{bad}");
    }
    assert_eq!(check(&networks, "/", "", None), Err(OutOfScope::Network), "nobody knows from where");
    let everything = scope(&[], &[], &["0.0.0.0/0"]);
    assert_eq!(check(&everything, "/", "", peer("203.0.113.9")), Ok(()));
    assert_eq!(check(&everything, "/", "", peer("2001:db8::1")), Err(OutOfScope::Network));
}

#[test]
fn a_scope_that_cannot_be_read_is_none() {
    let too_many: Vec<String> = (0..33).map(|n| format!("/p{n}")).collect();
    for (bad, said) in [
        (scope(&["version"], &[], &[]), "the path `version` has a path that does not start with `/`"),
        (scope(&["/a/../b"], &[], &[]), "`..`"),
        (scope(&[], &[""], &[]), "no type"),
        (scope(&[], &["a/b"], &[]), "no type"),
        (scope(&[], &[], &["10.0.0.1/8"]), "bits set that do not count"),
        (scope(&[], &[], &["10.0.0.0/33"]), "number of bits"),
        (scope(&[], &[], &["10.0.0.0/+8"]), "number of bits"),
        (scope(&[], &[], &["10.0.0.0/"]), "number of bits"),
        (scope(&[], &[], &["::ffff:10.0.0.0/104"]), "stands by itself"),
        (scope(&[], &[], &["example.com"]), "write it as"),
        (Scope { paths: too_many, ..Scope::default() }, "the most is 32"),
    ] {
        let error = bad.compile().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

fn record() -> Record {
    Record {
        op: op(7),
        rev: 3,
        written_at: wall(MINUTE),
        id: ID,
        family: "cdn".into(),
        target: "acme".into(),
        alias: "ci".into(),
        format: Format::Native,
        hash: Some([9; 32]),
        scope: scope(&["/version/**"], &["sdl"], &["10.0.0.0/8"]),
        created_at: wall(0),
        created_by: "ops".into(),
        expires_at: Some(wall(HOUR)),
        rolled: None,
        revoked: None,
        used: None,
        import: None,
        copied_from: None,
    }
}

fn full() -> Record {
    Record {
        rolled: Some(Rolled { to: TokenId([1; 16]), ends_at: wall(2 * MINUTE) }),
        revoked: Some(Revocation { at: wall(MINUTE), by: "ops".into() }),
        used: Some(Used { at: wall(30), node: NodeId::parse("a").unwrap() }),
        import: Some(Import { was: Some([8; 32]), first: "01234".into(), last: "f0123".into() }),
        copied_from: Some(TokenId([2; 16])),
        ..record()
    }
}

#[test]
fn the_state_of_a_token_follows_from_its_times() {
    let rolling = Record { rolled: full().rolled, ..record() };
    assert_eq!(record().state(wall(HOUR - 1)), State::Active);
    assert_eq!(record().state(wall(HOUR)), State::Expired);
    assert_eq!(rolling.state(wall(2 * MINUTE - 1)), State::Rolling);
    assert_eq!(rolling.state(wall(2 * MINUTE)), State::Expired);
    assert_eq!(full().state(wall(0)), State::Revoked);
    assert_eq!(full().state(wall(2 * HOUR)), State::Revoked, "what is revoked stays so");
    let endless = Record { expires_at: None, ..record() };
    assert_eq!((endless.state(Timestamp(u64::MAX)), endless.ends_at()), (State::Active, None));
    assert_eq!(rolling.ends_at(), Some(wall(2 * MINUTE)));
}

#[test]
fn a_record_that_follows_is_later_whatever_the_clock_says() {
    let next = record().following(op(8), at(0));
    assert_eq!((next.op, next.rev), (op(8), 4));
    assert!(next.written_at > record().written_at);
}

#[test]
fn layout_1_is_read_as_it_was_written() {
    for (record, old) in
        [(record(), include_str!("../data/token-v1.hex")), (full(), include_str!("../data/token-full-v1.hex"))]
    {
        let old = bytes_of(old);
        assert_eq!(Record::decode(&old), Ok(record.clone()));
        assert_eq!(hex_of(&record.encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
    }
}

#[test]
fn what_is_no_such_record_is_left_alone() {
    let good = full().encode();
    assert_eq!(Record::decode(&[&[2], &good[1..]].concat()), Err(RecordError::Newer(2)));
    for bad in [[&good[..], &[0]].concat(), Vec::new(), good[..good.len() - 1].to_vec(), [&[0], &good[1..]].concat()] {
        assert!(matches!(Record::decode(&bad), Err(RecordError::Corrupt(_))), "{bad:?}");
    }
}

#[test]
fn the_key_of_the_hashes_is_sealed_for_nothing_else() {
    let ring = KeyRing::new(SealKey::new(&RustCrypto, [7; 32]), Vec::new());
    let sealed = ring.seal(&RustCrypto, &[1; 24], SealedHashKey, &[5; 32]).unwrap();
    let stored = HashKey { op: op(1), sealed };
    let read = HashKey::decode(&stored.encode()).unwrap();
    assert_eq!(read, stored);
    assert_eq!(ring.open(&RustCrypto, SealedHashKey, &read.sealed).unwrap().expose(), &vec![5; 32]);
    let issuer = keyreeve_core::id::IssuerName::parse("x").unwrap();
    let elsewhere = keyreeve_core::seal::SealedKey { issuer: &issuer, kid: "k" };
    assert!(ring.open(&RustCrypto, elsewhere, &read.sealed).is_err());
    assert!(matches!(HashKey::decode(&[2]), Err(RecordError::Newer(2))));
}

#[test]
fn an_alias_is_short_and_fits_a_line() {
    assert_eq!(alias_fault("ci: ünïcode"), None);
    assert_eq!(alias_fault(&"ü".repeat(100)), None);
    assert!(alias_fault("").is_some() && alias_fault(&"a".repeat(101)).is_some() && alias_fault("a\nb").is_some());
}

fn mode() -> ModeRecord {
    let tally = |cause: &str, count, examples: &[&str]| Tally {
        cause: cause.to_owned(),
        count,
        examples: examples.iter().map(|text| (*text).to_owned()).collect(),
    };
    ModeRecord {
        op: op(1),
        mode: Mode::Shadow,
        run: op(2),
        since: wall(0),
        by: "ops".to_owned(),
        tallies: vec![
            tally("agree.accepted", 10_000, &[]),
            tally("old_accepts_new_refuses.malformed", 2, &["acme/11223344-5566-4788-99aa-bbccddeeff00"]),
            tally("unavailable", 1, &[]),
        ],
    }
}

#[test]
fn layout_1_of_a_mode_is_read_as_it_was_written() {
    let old = bytes_of(include_str!("../data/token-mode-v1.hex"));
    assert_eq!(ModeRecord::decode(&old), Ok(mode()));
    assert_eq!(hex_of(&mode().encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
    assert_eq!(ModeRecord::decode(&[&[2], &old[1..]].concat()), Err(RecordError::Newer(2)));
    for bad in [[&old[..], &[0]].concat(), Vec::new(), old[..old.len() - 1].to_vec()] {
        assert!(matches!(ModeRecord::decode(&bad), Err(RecordError::Corrupt(_))), "{bad:?}");
    }
}

#[test]
fn ours_counts_when_something_was_compared_and_nothing_was_different() {
    let mut record = mode();
    assert!(matches!(record.may_enforce(), Err(NotYet::Disagree(causes)) if causes.len() == 1 && causes[0].count == 2));
    record.tallies.remove(1);
    assert_eq!(record.may_enforce(), Ok(()), "what could not be compared is no difference");
    // What a newer version found is one, too.
    record.add(Tally { cause: "old_accepts_new_refuses.something".into(), count: 1, examples: Vec::new() });
    assert!(matches!(record.may_enforce(), Err(NotYet::Disagree(_))));
    record.tallies = vec![Tally { cause: Compared::BothRefuse.as_str().into(), count: 5, examples: Vec::new() }];
    assert_eq!(record.may_enforce(), Err(NotYet::NothingCompared));
    for mode in [Mode::Off, Mode::Enforce] {
        assert_eq!(ModeRecord { mode, ..record.clone() }.may_enforce(), Err(NotYet::NotShadowing));
    }
}

#[test]
fn counts_are_added_and_examples_are_few() {
    let mut record = ModeRecord { tallies: Vec::new(), ..mode() };
    for n in 0..20 {
        let cause = Compared::WrongHash.as_str().to_owned();
        record.add(Tally { cause, count: 3, examples: vec![format!("acme/{n}"), "acme/0".into()] });
    }
    assert_eq!((record.count(Compared::WrongHash), record.tallies[0].examples.len()), (60, EXAMPLES_MAX));
    let names: std::collections::BTreeSet<_> = Compared::ALL.into_iter().map(Compared::as_str).collect();
    assert_eq!(names.len(), Compared::ALL.len());
    for what in Compared::ALL {
        assert_eq!(what.is_difference(), !Compared::advice(what.as_str()).is_empty(), "{what:?}");
        assert_eq!(Compared::ALL[what.index()], what);
    }
}

#[test]
fn others_are_less_strict_about_spellings_and_no_less_about_ids() {
    let loose = |text: &str| Presented::parse_as_hive(text).map(|it| (it.id, it.secret.expose().clone()));
    let right = Some((Some(ID), PRIVATE.as_bytes().to_vec()));
    let text = hv2(ID, PRIVATE);
    let text = text.expose().as_str();
    let (start, end) = text.split_at(30);
    assert_eq!(loose(text), right);
    for other in [
        text.trim_end_matches('=').to_owned(),
        format!("{start} \t{end}"),
        format!("hv2{}", STANDARD.encode(format!("{ID}:{PRIVATE}:more"))),
    ] {
        assert_eq!(loose(&other), right, "{other}");
        assert!(other == text || Presented::parse(&other).is_none(), "{other}");
    }
    for none in ["hv2", "hv2!", "hv2=", "nonsense", "", "krt_1"] {
        assert_eq!(loose(none), None, "{none}");
    }
    let upper = ID.to_string().to_uppercase();
    for plain in
        [format!("{upper}:{PRIVATE}"), format!("../{ID}:{PRIVATE}"), format!("{ID}:"), format!("{ID}{PRIVATE}")]
    {
        assert_eq!(loose(&format!("hv2{}", STANDARD.encode(plain))), None);
    }
    let legacy = legacy_token(&RustCrypto, b"secret", "acme");
    assert_eq!(loose(legacy.expose()), Some((None, legacy.expose().clone().into_bytes())));
    assert!(is_legacy_token(&RustCrypto, b"secret", "acme", legacy.expose().as_bytes()));
    assert!(!is_legacy_token(&RustCrypto, b"secret", "acme2", legacy.expose().as_bytes()));
    assert!(!is_legacy_token(&RustCrypto, b"secre", "acme", legacy.expose().as_bytes()));
}

#[test]
fn no_list_shows_most_of_a_short_secret() {
    for (digits, shown) in [(0, 0), (10, 2), (16, 3), (24, 4), (25, 5), (40, 5)] {
        assert_eq!(Import::shown(digits), shown);
    }
}
