//! The keys of an issuer: phases, rotation, retirement, and what is stored.

use keyreeve_core::id::NodeId;
use keyreeve_core::issuer::{
    self, AskError, Context, KEY_SET_BYTES_MAX, KEYS_MAX, KeyRules, KeySet, NOTES_MAX, NewKey, NoteKind,
    PUBLIC_BYTES_MAX, Phase, Plan, Retirement, SEALED_BYTES_MAX, Seen, Step,
};
use keyreeve_core::record::RecordError;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use proptest::prelude::*;

use crate::given::{HOUR, MINUTE, SECOND, at, bytes_of, hex_of, op, wall};

pub(crate) const DAY: u64 = 24 * HOUR;

/// A month of use, an hour of overlap, tokens of a quarter of an hour.
pub(crate) fn rules() -> KeyRules {
    KeyRules {
        algorithm: "EdDSA".into(),
        rotate_ms: 30 * DAY,
        overlap_ms: HOUR,
        stale_ms: HOUR,
        ttl_ms: 15 * MINUTE,
        skew_ms: MINUTE,
        spread_ms: 10 * SECOND,
    }
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

/// One fleet that always gets what it asks for.
struct Fleet {
    rules: KeyRules,
    me: NodeId,
    seen: Seen,
    set: Option<KeySet>,
    writes: u64,
}

impl Fleet {
    fn new() -> Self {
        Self { rules: rules(), me: node("a"), seen: Seen::default(), set: None, writes: 0 }
    }

    /// A fleet with a first key.
    fn begun() -> Self {
        let mut fleet = Self::new();
        assert!(fleet.look(0));
        fleet
    }

    fn context(&self, now: Moment) -> Context<'_> {
        Context { rules: &self.rules, me: &self.me, now, fresh: op(self.writes + 1) }
    }

    fn set(&self) -> &KeySet {
        self.set.as_ref().unwrap()
    }

    fn make(&mut self, plan: Plan) {
        assert_eq!(plan.expected, self.set.as_ref().map(|set| set.op));
        self.writes += 1;
        self.set = Some(plan.clone().with(made(plan.serial)).unwrap());
    }

    fn write(&mut self, set: KeySet) {
        self.writes += 1;
        self.set = Some(set);
    }

    /// One look; whether it wrote.
    fn look(&mut self, ms: u64) -> bool {
        self.look_at(at(ms))
    }

    fn look_at(&mut self, now: Moment) -> bool {
        if let Some(set) = &self.set {
            self.seen.note(set, now.mono);
        }
        match issuer::step(self.context(now), self.set.as_ref(), &self.seen) {
            Step::Rest => return false,
            Step::Make(plan) => self.make(*plan),
            Step::Write(set) => self.write(*set),
        }
        true
    }

    fn retire(&mut self, ms: u64, kid: &str) -> Result<(), AskError> {
        match issuer::retire(self.context(at(ms)), self.set(), kid, "ops")? {
            Retirement::Write(set) => self.write(*set),
            Retirement::Make(plan) => self.make(*plan),
        }
        Ok(())
    }

    fn phases(&self, ms: u64) -> Vec<(u64, Phase)> {
        let set = self.set();
        set.keys.iter().map(|key| (key.serial, set.phase(&self.rules, key, wall(ms), 0))).collect()
    }
}

pub(crate) fn made(serial: u64) -> NewKey {
    NewKey { kid: format!("k{serial}"), public: format!("{{\"n\":{serial}}}"), sealed: vec![7; 40] }
}

#[test]
fn the_first_key_signs_at_once() {
    let fleet = Fleet::begun();
    assert_eq!(fleet.phases(0), [(1, Phase::Active)]);
    assert_eq!(fleet.set().keys[0].use_from, wall(0));
    // Also for a node whose clock is behind.
    assert_eq!(fleet.set().active(Timestamp(0), 0).unwrap().serial, 1);
}

#[test]
fn a_key_goes_from_next_to_active_to_retiring_to_gone() {
    let mut fleet = Fleet::begun();
    let published = 30 * DAY - HOUR;
    assert!(!fleet.look(published - 1));
    assert!(fleet.look(published));
    assert!(!fleet.look(published + 1));
    let used = published + HOUR + MINUTE;
    assert_eq!(fleet.phases(used - 1), [(1, Phase::Active), (2, Phase::Next)]);
    assert_eq!(fleet.phases(used), [(1, Phase::Retiring), (2, Phase::Active)]);
    let left = used + 15 * MINUTE + 2 * MINUTE;
    assert_eq!(fleet.phases(left - 1), [(1, Phase::Retiring), (2, Phase::Active)]);
    assert_eq!(fleet.phases(left), [(1, Phase::Gone), (2, Phase::Active)]);
    assert_eq!(fleet.set().listed(&fleet.rules, wall(left), 0).count(), 1);
    // Nobody wrote anything at the switch. The private key goes when no clock can be before it any more, the key at its end.
    assert!(!fleet.look(used + 2 * MINUTE - 1));
    assert!(fleet.look(used + 2 * MINUTE));
    assert_eq!(fleet.set().keys.iter().map(|key| key.sealed.is_some()).collect::<Vec<_>>(), [false, true]);
    assert!(!fleet.look(left - 1));
    assert!(fleet.look(left));
    assert_eq!(fleet.phases(left), [(2, Phase::Active)]);
    let kinds: Vec<_> = fleet.set().notes.iter().map(|note| (note.kind, note.kid.as_str())).collect();
    assert_eq!(kinds, [(NoteKind::Published, "k1"), (NoteKind::Published, "k2"), (NoteKind::Left, "k1")]);
}

#[test]
fn a_rotation_by_command_takes_the_same_way_and_only_once() {
    let mut fleet = Fleet::begun();
    let plan = issuer::rotate(fleet.context(at(DAY)), fleet.set(), "ops").unwrap();
    fleet.make(plan);
    let use_from = wall(DAY + HOUR + MINUTE);
    assert_eq!(fleet.set().keys[1].use_from, use_from);
    let again = issuer::rotate(fleet.context(at(DAY + 1)), fleet.set(), "ops");
    assert_eq!(again.unwrap_err(), AskError::Pending { kid: "k2".into(), use_from });
    assert_eq!(fleet.set().notes.last().unwrap().detail, "asked for by ops");
    // The schedule counts from the new key.
    while fleet.look(2 * DAY) {}
    assert!(fleet.look(2 * DAY + HOUR));
    assert!(!fleet.look(30 * DAY - HOUR));
}

#[test]
fn a_retired_active_key_is_gone_at_once_and_a_new_one_signs() {
    let mut fleet = Fleet::begun();
    fleet.retire(DAY, "k1").unwrap();
    assert_eq!(fleet.phases(DAY), [(2, Phase::Active)]);
    assert_eq!(fleet.set().keys[0].use_from, wall(DAY));
    // For a node whose clock is behind there is no other either.
    assert_eq!(fleet.set().active(wall(DAY - MINUTE), 1).unwrap().serial, 2);
    assert_eq!(fleet.retire(DAY, "k1"), Err(AskError::Unknown));
}

#[test]
fn the_next_key_takes_over_from_a_retired_one_and_a_retired_next_key_is_made_anew() {
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY);
    fleet.retire(30 * DAY + 1, "k2").unwrap();
    assert_eq!(fleet.phases(30 * DAY + 1), [(1, Phase::Active)]);
    assert!(fleet.look(30 * DAY + 2));
    assert_eq!(fleet.phases(30 * DAY + 2), [(1, Phase::Active), (3, Phase::Next)]);
    fleet.retire(30 * DAY + 3, "k1").unwrap();
    assert_eq!(fleet.phases(30 * DAY + 3), [(3, Phase::Active)]);
    assert_eq!(fleet.set().notes.last().unwrap().kind, NoteKind::Promoted);
}

#[test]
fn no_retiring_key_comes_back_when_the_active_one_is_retired() {
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY);
    let used = 30 * DAY + HOUR + MINUTE;
    assert_eq!(fleet.phases(used), [(1, Phase::Retiring), (2, Phase::Active)]);
    fleet.retire(used, "k2").unwrap();
    assert_eq!(fleet.phases(used), [(1, Phase::Retiring), (3, Phase::Active)]);
    // Not even by a clock that has the new key in its future.
    assert_eq!(fleet.phases(used - MINUTE), [(1, Phase::Retiring), (3, Phase::Active)]);
}

#[test]
fn a_clock_that_is_set_back_brings_no_older_key_back() {
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY);
    let set = fleet.set();
    assert_eq!(set.active(wall(30 * DAY), 0).unwrap().serial, 1);
    assert_eq!(set.active(wall(30 * DAY), 2).unwrap().serial, 2);
    // A number that is no longer there was retired, and binds nobody.
    assert_eq!(set.active(wall(30 * DAY), 99).unwrap().serial, 1);
}

#[test]
fn another_algorithm_is_a_rotation_that_is_due() {
    let mut fleet = Fleet::begun();
    fleet.rules.algorithm = "ES256".into();
    assert!(fleet.look(MINUTE));
    assert_eq!(fleet.phases(MINUTE), [(1, Phase::Active), (2, Phase::Next)]);
    assert_eq!(fleet.set().keys[1].algorithm, "ES256");
    assert!(!fleet.look(2 * MINUTE), "one is enough");
}

#[test]
fn a_longer_life_is_written_before_it_is_signed_and_a_shorter_one_takes_nothing_back() {
    let mut fleet = Fleet::begun();
    fleet.rules.ttl_ms = HOUR;
    assert!(fleet.look(MINUTE));
    assert_eq!(fleet.set().keys[0].life_ms, HOUR);
    fleet.rules.ttl_ms = MINUTE;
    assert!(!fleet.look(2 * MINUTE));
    assert!(fleet.look(30 * DAY));
    let used = 30 * DAY + HOUR + MINUTE;
    assert_eq!(fleet.phases(used + HOUR + 2 * MINUTE - 1)[0], (1, Phase::Retiring));
    assert_eq!(fleet.phases(used + HOUR + 2 * MINUTE)[0], (1, Phase::Gone));
}

#[test]
fn a_shorter_overlap_waits_for_those_who_rely_on_the_longer_one() {
    let mut fleet = Fleet::begun();
    fleet.rules.overlap_ms = MINUTE;
    fleet.rules.stale_ms = MINUTE;
    let plan = issuer::rotate(fleet.context(at(DAY)), fleet.set(), "ops").unwrap();
    fleet.make(plan);
    assert_eq!(fleet.set().keys[1].use_from, wall(DAY + HOUR + MINUTE));
    // The next key is withdrawn: whoever has read only the set before still counts on an hour.
    fleet.retire(DAY + SECOND, "k2").unwrap();
    let plan = issuer::rotate(fleet.context(at(DAY + 2 * SECOND)), fleet.set(), "ops").unwrap();
    fleet.make(plan);
    assert_eq!(fleet.set().keys[1].use_from, wall(DAY + HOUR + MINUTE));
    assert_eq!(fleet.set().good_for_ms(&fleet.rules), MINUTE);
    assert_eq!(fleet.set().good_for_ms(&rules()), MINUTE, "a node with the old configuration goes by the set");
}

#[test]
fn a_wall_clock_that_is_ahead_takes_no_key_from_the_fleet() {
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY);
    let used = 30 * DAY + HOUR + MINUTE;
    let ahead = |ms: u64| Moment { wall: wall(ms + HOUR), raw: wall(ms + HOUR), ..at(ms) };
    // A process that has just begun, with a clock an hour ahead.
    fleet.seen = Seen::default();
    fleet.look_at(ahead(used));
    assert!(!fleet.look_at(ahead(used + 17 * MINUTE - 1)), "it has not waited that long itself");
    assert_eq!(fleet.set().keys.len(), 2);
    assert!(fleet.look_at(ahead(used + 17 * MINUTE)));
    // A step of the raw clock alone takes nothing either, in either direction.
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY);
    fleet.look(used + 2 * MINUTE);
    let stepped = Moment { wall: wall(used + DAY), raw: wall(used), mono: Mono(at(used + DAY).mono.0) };
    assert!(!fleet.look_at(stepped));
}

#[test]
fn the_last_writer_looks_first_and_the_others_a_little_later() {
    let mut fleet = Fleet::begun();
    let due = 30 * DAY - HOUR;
    fleet.me = node("b");
    assert!(!fleet.look(due + 5 * SECOND - 1));
    assert!(fleet.look(due + 10 * SECOND));
}

#[test]
fn keys_are_bounded_and_rotation_goes_on_when_one_has_left() {
    let mut fleet = Fleet::begun();
    fleet.rules.ttl_ms = 2 * DAY;
    fleet.look(1);
    let mut ms = MINUTE;
    loop {
        match issuer::rotate(fleet.context(at(ms)), fleet.set(), "ops") {
            Ok(plan) => fleet.make(plan),
            Err(AskError::Pending { .. }) => ms += HOUR + 2 * MINUTE,
            Err(error) => break assert_eq!(error, AskError::TooMany),
        }
    }
    assert_eq!(fleet.set().keys.len(), KEYS_MAX);
    // An emergency has room, always: it takes one out first.
    let active = fleet.set().active(wall(ms), 0).unwrap().kid.clone();
    fleet.retire(ms, &active).unwrap();
    assert_eq!(fleet.set().keys.len(), KEYS_MAX);
    fleet.look(ms);
    assert!(fleet.look(ms + 3 * DAY));
    assert!(fleet.set().keys.len() < KEYS_MAX);
}

#[test]
fn a_set_with_everything_of_the_largest_size_can_be_read_again() {
    let mut fleet = Fleet::begun();
    let key = |n: u64| NewKey {
        kid: format!("{n:0>64}"),
        public: "p".repeat(PUBLIC_BYTES_MAX),
        sealed: vec![0; SEALED_BYTES_MAX],
    };
    let name = "n".repeat(64);
    fleet.me = node(&name);
    let mut ms = 0;
    while fleet.set().keys.len() < KEYS_MAX {
        ms += HOUR + 2 * MINUTE;
        fleet.rules.ttl_ms = 365 * DAY;
        let Ok(plan) = issuer::rotate(fleet.context(at(ms)), fleet.set(), &"w".repeat(2000)) else { continue };
        let serial = plan.serial;
        fleet.write(plan.with(key(serial)).unwrap());
    }
    for n in 100..(100 + NOTES_MAX as u64) {
        let active = fleet.set().active(wall(ms), 0).unwrap().kid.clone();
        match issuer::retire(fleet.context(at(ms)), fleet.set(), &active, &"w".repeat(2000)).unwrap() {
            Retirement::Write(set) => fleet.write(*set),
            Retirement::Make(plan) => fleet.write(plan.with(key(n)).unwrap()),
        }
    }
    assert_eq!(fleet.set().notes.len(), NOTES_MAX);
    let bytes = fleet.set().encode();
    assert!(bytes.len() <= KEY_SET_BYTES_MAX, "{}", bytes.len());
    assert_eq!(KeySet::decode(&bytes).as_ref(), Ok(fleet.set()));
}

#[test]
fn a_key_that_does_not_fit_is_refused() {
    let plan = |fleet: &Fleet| issuer::rotate(fleet.context(at(DAY)), fleet.set(), "ops").unwrap();
    let fleet = Fleet::begun();
    assert!(plan(&fleet).with(made(2)).is_ok());
    for wrong in [
        NewKey { kid: "k1".into(), ..made(2) },
        NewKey { kid: String::new(), ..made(2) },
        NewKey { kid: "a b".into(), ..made(2) },
        NewKey { kid: "k".repeat(65), ..made(2) },
        NewKey { public: "p".repeat(PUBLIC_BYTES_MAX + 1), ..made(2) },
        NewKey { sealed: vec![0; SEALED_BYTES_MAX + 1], ..made(2) },
    ] {
        assert!(plan(&fleet).with(wrong).is_err());
    }
}

/// A set in the middle of a rotation.
fn stored() -> KeySet {
    let mut fleet = Fleet::begun();
    fleet.look(30 * DAY - HOUR);
    fleet.look(30 * DAY + 3 * MINUTE);
    fleet.set.unwrap()
}

#[test]
fn layout_1_is_read_as_it_was_written() {
    let old = bytes_of(include_str!("../data/key-set-v1.hex"));
    assert_eq!(KeySet::decode(&old), Ok(stored()));
    assert_eq!(hex_of(&stored().encode()), hex_of(&old), "the stored form has changed: give it a new layout number");
}

#[test]
fn what_is_no_key_set_is_left_alone() {
    let good = stored().encode();
    let mut newer = good.clone();
    newer[0] = 2;
    assert_eq!(KeySet::decode(&newer), Err(RecordError::Newer(2)));
    let mut twice = stored();
    twice.keys[1].serial = 1;
    let mut named = stored();
    named.keys[0].kid = "a\nb".into();
    let mut many = stored();
    many.keys = (1..=KEYS_MAX as u64 + 1)
        .map(|n| issuer::Key { serial: n, kid: format!("k{n}"), ..stored().keys[0].clone() })
        .collect();
    let mut longer = good.clone();
    longer.push(0);
    let zero = [[0u8].as_slice(), &good[1..]].concat();
    for bad in
        [twice.encode(), named.encode(), many.encode(), longer, zero, Vec::new(), vec![0xff; 3], vec![1; 200_000]]
    {
        assert!(matches!(KeySet::decode(&bad), Err(RecordError::Corrupt(_) | RecordError::Newer(255))), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = KeySet::decode(&bytes);
        let mut marked = vec![1];
        marked.extend(bytes);
        let _ = KeySet::decode(&marked);
    }

    #[test]
    fn at_any_time_exactly_one_key_is_active(
        acts in proptest::collection::vec((0u64..40 * DAY, 0u8..4), 1..40), looked in 0u64..2000 * DAY, floor in 0u64..8,
    ) {
        let mut fleet = Fleet::begun();
        let mut ms = 0;
        for (after, act) in acts {
            ms += after;
            match act {
                0 => if let Ok(plan) = issuer::rotate(fleet.context(at(ms)), fleet.set(), "ops") { fleet.make(plan) },
                1 => {
                    let keys = &fleet.set().keys;
                    let kid = keys[usize::try_from(after).unwrap() % keys.len()].kid.clone();
                    fleet.retire(ms, &kid).unwrap();
                }
                _ => { fleet.look(ms); }
            }
            for when in [ms, looked, 0] {
                let set = fleet.set();
                let phase = |key| set.phase(&fleet.rules, key, wall(when), floor);
                prop_assert_eq!(set.keys.iter().filter(|key| phase(key) == Phase::Active).count(), 1);
                prop_assert!(set.active(wall(when), floor).unwrap().sealed.is_some());
                prop_assert!(set.keys.len() <= KEYS_MAX);
            }
        }
        let read = KeySet::decode(&fleet.set().encode());
        prop_assert_eq!(read.as_ref(), Ok(fleet.set()));
    }
}
