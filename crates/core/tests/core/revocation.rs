//! The log of revocations: in any order, twice, compacted, from a store that forgot: what was revoked stays revoked.

use keyreeve_core::record::RecordError;
use keyreeve_core::revocation::{
    Applied, Credentials, ENTRIES_MAX, Followed, Full, JwtId, Kind, LOG_BYTES_MAX, Log, Mark, NODE_BYTES_MAX, Node,
    Order, Until, What, follow, revoke, settle,
};
use keyreeve_core::time::{Moment, Timestamp};
use proptest::prelude::*;

use crate::crypto::RustCrypto;
use crate::given::{HOUR, MINUTE, SECOND, at, bytes_of, hex_of, holder, op, wall};

const ISSUERS: [&str; 2] = ["https://a.example", "https://b.example"];
const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];
/// What tests assume that tokens live for at the most.
const KEEP: u64 = 24 * HOUR;

/// One thing that somebody asks for, some time after the start.
#[derive(Clone, Copy, Debug)]
struct Asked {
    after_ms: u64,
    issuer: usize,
    name: usize,
    kind: u8,
}

fn what(asked: Asked) -> What<'static> {
    let (issuer, name) = (ISSUERS[asked.issuer], NAMES[asked.name]);
    match asked.kind {
        0 => What::Token { tenant: "cdn", id: name },
        1 => What::Target { tenant: "cdn", target: name },
        2 => What::Jwt { issuer, token: JwtId::Id(name) },
        3 => What::Subject { issuer, subject: name },
        4 => What::Key { issuer, kid: name },
        _ => What::Issuer { issuer },
    }
}

fn order(asked: Asked) -> Order<'static> {
    let now = wall(asked.after_ms);
    let until = match asked.kind {
        0 => Until::Told,
        1 => Until::Settled,
        2 | 3 => Until::Assumed(now.plus(KEEP)),
        _ => Until::Never,
    };
    let issued_by = if asked.kind == 5 { now.minus(HOUR) } else { now };
    Order { what: what(asked), issued_by, until, label: (asked.kind == 1).then_some(NAMES[asked.name]) }
}

fn write(base: Option<&Log>, n: u64, now: Moment, order: &Order<'_>) -> Log {
    let (next, _) = revoke(&RustCrypto, base, op(n), now, order).unwrap();
    next.or(base.cloned()).unwrap()
}

/// The log after all of it, in this order.
fn log_of(all: &[Asked]) -> Option<Log> {
    let mut log = None;
    for (n, asked) in (1..).zip(all) {
        log = Some(write(log.as_ref(), n, at(asked.after_ms), &order(*asked)));
    }
    log
}

/// Every token that there could be.
fn tokens() -> Vec<(Credentials<'static>, Timestamp)> {
    let mut all = Vec::new();
    for issued_ms in [0, 30 * MINUTE, HOUR, 2 * HOUR] {
        for name in NAMES {
            let created_at = wall(issued_ms);
            all.push((Credentials::Token { tenant: "cdn", id: name, target: NAMES[0], created_at }, created_at));
            for issuer in ISSUERS {
                for other in NAMES {
                    let issued_at = Some(created_at);
                    let (subject, kid) = (Some(other), Some(NAMES[3]));
                    let jwt = Credentials::Jwt { issuer, token: JwtId::Id(name), subject, kid, issued_at };
                    all.push((jwt, created_at));
                }
            }
        }
    }
    all
}

/// What is refused, by the words of what was asked for.
fn meant(all: &[Asked], token: &Credentials<'_>) -> bool {
    all.iter().any(|asked| match (what(*asked), *token) {
        (What::Token { id, .. }, Credentials::Token { id: own, .. }) => id == own,
        (What::Target { target, .. }, Credentials::Token { target: own, created_at, .. }) => {
            target == own && created_at <= wall(asked.after_ms)
        }
        // An id is used once, so the token was there when it was revoked.
        (What::Jwt { issuer, token }, Credentials::Jwt { issuer: of, token: own, .. }) => issuer == of && token == own,
        (What::Subject { issuer, subject }, Credentials::Jwt { issuer: of, subject: own, issued_at, .. }) => {
            issuer == of && Some(subject) == own && issued_at.unwrap() <= wall(asked.after_ms)
        }
        (What::Key { issuer, kid }, Credentials::Jwt { issuer: of, kid: own, .. }) => issuer == of && Some(kid) == own,
        (What::Issuer { issuer }, Credentials::Jwt { issuer: of, issued_at, .. }) => {
            issuer == of && issued_at.unwrap() <= wall(asked.after_ms).minus(HOUR)
        }
        _ => false,
    })
}

fn refused(log: &Log) -> Vec<bool> {
    tokens().iter().map(|(token, _)| log.finds(&RustCrypto, token).is_some()).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
    let times = prop_oneof![Just(0), Just(30 * MINUTE), Just(HOUR), 0..2 * HOUR];
    (times, 0..2usize, 0..4usize, 0..6u8).prop_map(|(after_ms, issuer, name, kind)| Asked {
        after_ms,
        issuer,
        name,
        kind,
    })
}

/// What a node goes by after it has heard of both.
fn told(held: &Log, found: &Log, n: u64, now: Moment) -> Log {
    match follow(Some(held), Some(found.clone()), op(n), now) {
        Followed::Same => held.clone(),
        Followed::Adopt(log) | Followed::Teach(log) => log,
    }
}

proptest! {
    #[test]
    fn in_any_order_and_twice_the_same_tokens_are_refused(
        all in prop::collection::vec(asked(), 1..20), order in any::<prop::sample::Index>(), seed in any::<u64>()
    ) {
        // Each by itself, as if each had been written to a store of its own; then joined in another order, some twice.
        let mut parts: Vec<Log> = (1000..).zip(&all)
            .map(|(n, asked)| write(None, n, at(asked.after_ms), &self::order(*asked))).collect();
        parts.push(parts[order.index(parts.len())].clone());
        let count = parts.len();
        for n in 0..count {
            parts.swap(n, (seed as usize).wrapping_mul(n + 7) % count);
        }
        let now = at(2 * HOUR);
        let mut joined = parts[0].clone();
        for (n, part) in (5000..).zip(&parts[1..]) {
            let next = told(&joined, part, n, now);
            prop_assert!(next.epoch > joined.epoch || next.op == joined.op, "a change has an epoch of its own");
            joined = next;
        }
        for (token, _) in tokens() {
            prop_assert_eq!(joined.finds(&RustCrypto, &token).is_some(), meant(&all, &token), "{:?}", token);
        }
    }

    #[test]
    fn one_after_the_other_what_was_asked_for_is_refused_and_nothing_else(all in prop::collection::vec(asked(), 1..20)) {
        let whole = log_of(&all).unwrap();
        for (token, _) in tokens() {
            let is_found = whole.finds(&RustCrypto, &token).is_some();
            let is_told = matches!(token, Credentials::Token { .. }) && whole.floor > 0;
            prop_assert!(is_found == meant(&all, &token) || (is_told && !is_found), "{:?}", token);
        }
    }

    #[test]
    fn compaction_never_makes_a_token_good_that_may_be_alive(
        all in prop::collection::vec(asked(), 1..20), later_ms in 0..3 * KEEP, life_ms in prop_oneof![Just(HOUR), Just(10 * KEEP)]
    ) {
        let log = log_of(&all).unwrap();
        let now = at(2 * HOUR + later_ms);
        let compacted = log.compacted(op(9999), now);
        let alive = tokens().into_iter().filter(|(_, issued_at)| issued_at.plus(life_ms) > now.wall);
        for (token, issued_at) in alive {
            // An id is used once: what has one that was revoked before it was issued is no token.
            let is_late = |asked: &Asked| asked.kind == 2 && issued_at > wall(asked.after_ms) && meant(&[*asked], &token);
            if all.iter().any(is_late) || !meant(&all, &token) {
                continue;
            }
            let is_found = compacted.finds(&RustCrypto, &token).is_some();
            // An opaque token's own record says it too; a verdict that was kept from before is told to ask that.
            let is_told = matches!(token, Credentials::Token { .. }) && compacted.floor > 0;
            prop_assert!(is_found || is_told, "{:?}", token);
        }
    }

    #[test]
    fn no_store_that_forgets_makes_a_node_forget(
        all in prop::collection::vec(asked(), 2..20), cut in any::<prop::sample::Index>(), new in prop::collection::vec(asked(), 0..20)
    ) {
        let held = log_of(&all).unwrap();
        // The store has gone back to some earlier state, and on from there, perhaps by more writes than were lost.
        let back = log_of(&all[..cut.index(all.len())]);
        let mut found = back;
        for (n, asked) in (3000..).zip(&new) {
            found = Some(write(found.as_ref(), n, at(2 * HOUR), &order(*asked)));
        }
        let now = at(2 * HOUR + SECOND);
        let is_other = found.as_ref().is_none_or(|found| found.op != held.op);
        let (next, is_adopted) = match follow(Some(&held), found.clone(), op(7777), now) {
            Followed::Same => (held.clone(), true),
            Followed::Adopt(log) => (log, true),
            Followed::Teach(log) => (log, false),
        };
        prop_assert!(next.epoch > held.epoch || !is_other);
        let found = found.map_or_else(|| vec![false; tokens().len()], |log| refused(&log));
        let all = tokens().into_iter().zip(refused(&held)).zip(found).zip(refused(&next));
        for ((((token, _), before), found), after) in all {
            // What the store may have dropped because the token's own record says it too.
            let is_told = is_adopted && next.floor > 0 && matches!(token, Credentials::Token { .. });
            prop_assert!(after || is_told || !(before || found), "{:?}", token);
        }
        prop_assert_eq!(Log::decode(&next.encode()), Ok(next));
    }

    #[test]
    fn bytes_that_are_no_log_are_refused_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Log::decode(&bytes);
        let _ = Node::decode(&bytes);
        let _ = Mark::parse(&String::from_utf8_lossy(&bytes));
    }
}

fn subject(n: usize, now: u64) -> (String, u64) {
    (format!("subject-{n}"), now)
}

#[test]
fn what_is_full_says_so_and_can_be_read_and_opaque_tokens_make_room() {
    let mut log = write(None, 1, at(0), &order(Asked { after_ms: 0, issuer: 0, name: 0, kind: 4 }));
    for n in 0..ENTRIES_MAX {
        let id = format!("token-{n}");
        let told =
            Order { what: What::Token { tenant: "cdn", id: &id }, issued_by: wall(0), until: Until::Told, label: None };
        log = write(Some(&log), n as u64 + 2, at(1), &told);
    }
    assert!(log.entries().len() <= ENTRIES_MAX && log.floor > 0);
    let mut full = None;
    for n in 0..2 * ENTRIES_MAX {
        let (name, now) = subject(n, 2);
        let what = What::Subject { issuer: ISSUERS[0], subject: &name };
        let order = Order { what, issued_by: wall(now), until: Until::Assumed(wall(KEEP)), label: None };
        match revoke(&RustCrypto, Some(&log), op(10_000 + n as u64), at(now), &order) {
            Ok((next, _)) => log = next.unwrap(),
            Err(error) => {
                full = Some((n, error));
                break;
            }
        }
    }
    let (count, error) = full.expect("there is an end");
    assert_eq!(error, Full);
    assert_eq!(count, ENTRIES_MAX - 1, "all but the key, which stays");
    assert!(log.encode().len() <= LOG_BYTES_MAX);
    assert_eq!(Log::decode(&log.encode()), Ok(log.clone()));
    // Everything before a moment still takes one.
    let all = Order { what: What::Issuer { issuer: ISSUERS[0] }, issued_by: wall(3), until: Until::Never, label: None };
    assert_eq!(revoke(&RustCrypto, Some(&log), op(1), at(3), &all).unwrap_err(), Full);
    // When their tokens have expired there is room again, and what may be older still is refused by its age.
    let later = at(KEEP + HOUR);
    let (next, _) = revoke(&RustCrypto, Some(&log), op(1), later, &all).unwrap();
    let next = next.unwrap();
    assert_eq!(next.entries().len(), 2);
    let old = Credentials::Jwt {
        issuer: ISSUERS[0],
        token: JwtId::Id("x"),
        subject: Some("subject-7"),
        kid: None,
        issued_at: Some(wall(0)),
    };
    assert!(next.finds(&RustCrypto, &old).is_some());
}

#[test]
fn two_full_logs_that_meet_still_fit_and_refuse_what_either_did() {
    let full = |from: usize, n0: u64| {
        let mut log = None;
        for n in 0..ENTRIES_MAX {
            let name = format!("subject-{}", from + n);
            let what = What::Subject { issuer: ISSUERS[0], subject: &name };
            let order = Order { what, issued_by: wall(n as u64), until: Until::Assumed(wall(KEEP)), label: None };
            log = Some(write(log.as_ref(), n0 + n as u64, at(n as u64), &order));
        }
        log.unwrap()
    };
    let (a, b) = (full(0, 1), full(ENTRIES_MAX, 100_000));
    let joined = told(&a, &b, 7, at(HOUR));
    assert!(joined.encode().len() <= LOG_BYTES_MAX && joined.entries().len() <= ENTRIES_MAX);
    for n in 0..2 * ENTRIES_MAX {
        let name = format!("subject-{n}");
        let token = Credentials::Jwt {
            issuer: ISSUERS[0],
            token: JwtId::Id("x"),
            subject: Some(&name),
            kid: None,
            issued_at: Some(wall((n % ENTRIES_MAX) as u64)),
        };
        assert!(joined.finds(&RustCrypto, &token).is_some(), "{name}");
    }
}

#[test]
fn the_same_again_is_no_write_and_more_is() {
    let jwt = |until| Order {
        what: What::Jwt { issuer: ISSUERS[0], token: JwtId::Id("j") },
        issued_by: wall(0),
        until,
        label: None,
    };
    let log = write(None, 1, at(0), &jwt(Until::Known(wall(HOUR))));
    let again = |until| revoke(&RustCrypto, Some(&log), op(2), at(SECOND), &jwt(until)).unwrap().0;
    assert_eq!(again(Until::Known(wall(HOUR))), None);
    assert_eq!(again(Until::Assumed(wall(KEEP))), None, "its end was known");
    assert!(again(Until::Known(wall(2 * HOUR))).is_some());
    let who = |ms| Order {
        what: What::Subject { issuer: ISSUERS[0], subject: "ann" },
        issued_by: wall(ms),
        until: Until::Assumed(wall(KEEP)),
        label: None,
    };
    let log = write(Some(&log), 3, at(SECOND), &who(SECOND));
    assert_eq!(revoke(&RustCrypto, Some(&log), op(4), at(MINUTE), &who(0)).unwrap().0, None);
    let (next, entry) = revoke(&RustCrypto, Some(&log), op(4), at(MINUTE), &who(MINUTE)).unwrap();
    assert_eq!((next.unwrap().epoch, entry.epoch), (3, 3), "logged out a second time");
}

#[test]
fn an_entry_is_dropped_a_while_after_its_end_and_not_while_it_is_open() {
    let token = |until| Order {
        what: What::Jwt { issuer: ISSUERS[0], token: JwtId::Id("j") },
        issued_by: wall(0),
        until,
        label: None,
    };
    let log = write(None, 1, at(0), &token(Until::Known(wall(HOUR))));
    let left = |log: &Log, ms| log.compacted(op(9), at(ms)).entries().len();
    assert_eq!((left(&log, HOUR + MINUTE - 1), left(&log, HOUR + MINUTE)), (1, 0));
    let target = Order {
        what: What::Target { tenant: "cdn", target: "t" },
        issued_by: wall(0),
        until: Until::Settled,
        label: Some("cdn/t"),
    };
    let log = write(None, 1, at(0), &target);
    assert_eq!(left(&log, 1000 * KEEP), 1);
    let place = (Kind::Target, target.what.mark(&RustCrypto));
    let settled = settle(&log, op(2), at(HOUR), place, wall(0)).unwrap();
    assert_eq!(settle(&settled, op(3), at(HOUR), place, wall(0)), None);
    assert_eq!((left(&settled, HOUR + 11 * MINUTE - 1), left(&settled, HOUR + 11 * MINUTE)), (1, 0));
    assert!(settled.compacted(op(9), at(2 * HOUR)).floor >= log.epoch, "verdicts from before are void");
}

#[test]
fn what_only_the_log_remembers_after_a_loss_stays_and_an_older_loss_is_said_until_it_is_answered() {
    let told =
        |id| Order { what: What::Token { tenant: "cdn", id }, issued_by: wall(0), until: Until::Told, label: None };
    let early = write(None, 1, at(0), &told("t0"));
    let held = write(Some(&early), 2, at(MINUTE), &told("t1"));
    let Followed::Teach(taught) = follow(Some(&held), Some(early), op(3), at(2 * MINUTE)) else {
        panic!("it went back")
    };
    assert_eq!(taught.lost_since(), None, "everything is remembered");
    let later = taught.compacted(op(4), at(10 * KEEP));
    let is = |log: &Log, id| {
        let token = Credentials::Token { tenant: "cdn", id, target: "t", created_at: wall(0) };
        log.finds(&RustCrypto, &token).is_some()
    };
    assert!(is(&later, "t1"), "its record may have gone back too");
    assert!(!is(&later, "t0"), "this one's has not");
    // Longer ago than a log goes back, nobody can say what is missing.
    let Followed::Teach(unsure) = follow(Some(&later), None, op(5), at(10 * KEEP)) else { panic!("it is gone") };
    assert!(unsure.lost_since().is_some() && is(&unsure, "t1"));
    let answered = unsure.answered(op(6), at(11 * KEEP)).unwrap();
    assert!(answered.lost_since().is_none() && answered.answered(op(7), at(11 * KEEP)).is_none());
    let again = Log::lost(Some(&answered), 99, op(8), at(12 * KEEP));
    assert!(again.lost_since().is_some() && again.epoch == 100 && again.floor == 100);
}

#[test]
fn receipts_are_of_the_first_epoch_that_has_it() {
    let mut node = Node::new(holder("a"), op(1), 5 * SECOND, SECOND);
    assert_eq!((node.epoch(), node.applied_at(1)), (0, None));
    for (epoch, ms) in [(3, 10), (3, 20), (2, 30), (7, 40)] {
        node.note(epoch, wall(ms));
    }
    assert_eq!(node.applied(), [Applied { epoch: 3, at: wall(10) }, Applied { epoch: 7, at: wall(40) }]);
    assert_eq!(node.applied_at(1), Some(wall(10)));
    assert_eq!(node.applied_at(4), Some(wall(40)));
    assert_eq!(node.applied_at(8), None);
    for epoch in 8..200 {
        node.note(epoch, wall(epoch));
    }
    assert_eq!(node.applied_at(3), Some(wall(136)), "as late as the first that is remembered");
    node.seen_at = wall(0);
    assert!(!node.is_silent(wall(15 * SECOND)) && node.is_silent(wall(15 * SECOND + 1)));
    let bytes = node.encode();
    assert!(bytes.len() <= NODE_BYTES_MAX && Node::decode(&bytes) == Ok(node), "{}", bytes.len());
}

#[test]
fn after_a_reload_the_newest_receipts_of_before_are_kept() {
    let noted = |epochs: std::ops::Range<u64>| {
        let mut node = Node::new(holder("a"), op(1), 5 * SECOND, SECOND);
        epochs.for_each(|epoch| node.note(epoch, wall(epoch)));
        node
    };
    for (before, now, first) in [(1..30, 29..32, 1), (1..65, 64..66, 2), (1..65, 70..134, 70), (5..9, 0..0, 5)] {
        let mut node = noted(now.clone());
        node.note_earlier(&noted(before.clone()));
        let epochs: Vec<u64> = node.applied().iter().map(|applied| applied.epoch).collect();
        let all: Vec<u64> = (first..before.end.min(now.start.max(1))).chain(now.clone()).collect();
        let all = if now.is_empty() { before.clone().collect() } else { all };
        assert_eq!(epochs, all, "{before:?} {now:?}");
        assert!(Node::decode(&node.encode()) == Ok(node));
    }
}

fn one_of_each() -> Log {
    let all: Vec<Asked> =
        (0..6).map(|kind| Asked { after_ms: MINUTE * u64::from(kind), issuer: 0, name: 1, kind }).collect();
    let log = log_of(&all).unwrap().compacted(op(50), at(2 * HOUR));
    Log::lost(Some(&log), 40, op(51), at(2 * HOUR)).compacted(op(52), at(KEEP + 3 * HOUR))
}

#[test]
fn layout_1_is_read_as_it_was_written() {
    let mut node = Node::new(holder("a"), op(1), 5 * SECOND, SECOND);
    node.note(3, wall(10));
    let (log, old) = (one_of_each(), bytes_of(include_str!("../data/revocations-v1.hex")));
    assert_eq!(hex_of(&log.encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
    assert_eq!(Log::decode(&old), Ok(log));
    let old = bytes_of(include_str!("../data/revocation-node-v1.hex"));
    assert_eq!(hex_of(&node.encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
    assert_eq!(Node::decode(&old), Ok(node));
}

#[test]
fn what_is_no_such_record_is_left_alone() {
    let good = one_of_each().encode();
    let newer = [&[2], &good[1..]].concat();
    assert_eq!(Log::decode(&newer), Err(RecordError::Newer(2)));
    let longer = [&good[..], &[0]].concat();
    for bad in [longer, Vec::new(), good[..good.len() - 1].to_vec(), [&[0], &good[1..]].concat()] {
        assert!(matches!(Log::decode(&bad), Err(RecordError::Corrupt(_))), "{bad:?}");
    }
}

#[test]
fn names_cannot_be_put_together_to_another_name() {
    let mark = |what: What<'_>| what.mark(&RustCrypto);
    let a = mark(What::Subject { issuer: "ab", subject: "c" });
    assert_ne!(a, mark(What::Subject { issuer: "a", subject: "bc" }));
    assert_ne!(a, mark(What::Key { issuer: "ab", kid: "c" }));
    assert_ne!(
        mark(What::Jwt { issuer: "i", token: JwtId::Id("h.p") }),
        mark(What::Jwt { issuer: "i", token: JwtId::Signed("h.p") })
    );
    assert_eq!(Mark::parse(&a.to_string()), Some(a));
    for bad in [
        "",
        "0",
        "0123456789ABCDEF0123456789ABCDEF",
        "0123456789abcdef0123456789abcdeg",
        "é123456789abcdef0123456789abcde",
    ] {
        assert_eq!(Mark::parse(bad), None);
    }
}
