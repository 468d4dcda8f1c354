//! Revoked tokens: who is refused, for how long, and what is stored.

use keyreeve_core::record::RecordError;
use keyreeve_core::revoked::{Full, REVOKED_BYTES_MAX, REVOKED_MAX, Revoked, TokenDigest, revoke};

use crate::given::{HOUR, MINUTE, at, bytes_of, hex_of, op, wall};

fn digest(n: u64) -> TokenDigest {
    TokenDigest(op(n).0)
}

fn with(base: Option<&Revoked>, n: u64, ms: u64) -> Revoked {
    revoke(base, op(100 + n), at(ms), digest(n), wall(ms + HOUR)).unwrap().unwrap()
}

#[test]
fn a_revoked_token_is_refused_until_nobody_would_accept_it_anyway() {
    let one = with(None, 1, 0);
    assert!(one.has(digest(1)) && !one.has(digest(2)));
    assert_eq!(revoke(Some(&one), op(5), at(1), digest(1), wall(HOUR)), Ok(None), "twice is once");
    let two = with(Some(&one), 2, HOUR - 1);
    assert!(two.has(digest(1)) && two.has(digest(2)));
    let three = with(Some(&two), 3, HOUR);
    assert!(!three.has(digest(1)) && three.has(digest(2)) && three.has(digest(3)));
    assert!(three.written_at > two.written_at && three.rev == 3);
}

#[test]
fn there_is_room_for_so_many_and_no_more_and_what_is_full_can_be_read() {
    let mut all = with(None, 0, 0);
    for n in 1..REVOKED_MAX as u64 {
        all = with(Some(&all), n, MINUTE);
    }
    assert_eq!(revoke(Some(&all), op(1), at(MINUTE), digest(u64::MAX), wall(HOUR)), Err(Full));
    let bytes = all.encode();
    assert!(bytes.len() <= REVOKED_BYTES_MAX, "{}", bytes.len());
    assert_eq!(Revoked::decode(&bytes), Ok(all.clone()));
    assert!((0..REVOKED_MAX as u64).all(|n| all.has(digest(n))));
    // When one has expired there is room again.
    assert!(revoke(Some(&all), op(1), at(HOUR), digest(u64::MAX), wall(2 * HOUR)).unwrap().is_some());
}

#[test]
fn layout_1_is_read_as_it_was_written() {
    let stored = with(Some(&with(None, 1, 0)), 2, MINUTE);
    let old = bytes_of(include_str!("../data/revoked-v1.hex"));
    assert_eq!(Revoked::decode(&old), Ok(stored.clone()));
    assert_eq!(hex_of(&stored.encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
}

#[test]
fn what_is_no_such_record_is_left_alone() {
    let good = with(None, 1, 0).encode();
    let newer = [&[2], &good[1..]].concat();
    assert_eq!(Revoked::decode(&newer), Err(RecordError::Newer(2)));
    let longer = [&good[..], &[0]].concat();
    for bad in [longer, Vec::new(), good[..good.len() - 1].to_vec(), [&[0], &good[1..]].concat()] {
        assert!(matches!(Revoked::decode(&bad), Err(RecordError::Corrupt(_))), "{bad:?}");
    }
}
