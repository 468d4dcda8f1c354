//! A cache keeps no more than it may, and nothing past its end.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use keyreeve_core::cache::Cache;
use keyreeve_core::time::Timestamp;
use proptest::prelude::*;

type Numbers = Cache<u16, u64, BuildHasherDefault<DefaultHasher>>;

fn cache(entries_max: usize) -> Numbers {
    Cache::new(entries_max, BuildHasherDefault::default())
}

#[test]
fn an_entry_is_there_until_its_end_and_not_at_it() {
    let mut cache = cache(4);
    cache.insert(1, 10, Timestamp(100), Timestamp(0));
    assert_eq!(cache.find(&1, Timestamp(99)), Some(&10));
    assert_eq!(cache.find(&1, Timestamp(100)), None);
    cache.insert(2, 20, Timestamp(100), Timestamp(100));
    assert_eq!(cache.len(), 1, "what is over already is not kept");
}

#[test]
fn who_is_asked_for_stays_and_who_is_not_makes_room() {
    let mut cache = cache(3);
    for key in 0..3 {
        cache.insert(key, 0, Timestamp(1000), Timestamp(0));
    }
    assert!(cache.find(&0, Timestamp(1)).is_some());
    cache.insert(3, 0, Timestamp(1000), Timestamp(1));
    assert!(cache.find(&0, Timestamp(1)).is_some());
    assert!(cache.find(&1, Timestamp(1)).is_none());
    assert_eq!(cache.len(), 3);
}

#[test]
fn what_is_over_makes_room_before_what_was_used() {
    let mut cache = cache(2);
    cache.insert(1, 0, Timestamp(10), Timestamp(0));
    cache.insert(2, 0, Timestamp(1000), Timestamp(0));
    assert!(cache.find(&1, Timestamp(1)).is_some() && cache.find(&2, Timestamp(1)).is_some());
    cache.insert(3, 0, Timestamp(1000), Timestamp(10));
    assert!(cache.find(&2, Timestamp(10)).is_some() && cache.find(&3, Timestamp(10)).is_some());
}

#[test]
fn a_cache_of_nothing_keeps_nothing() {
    let mut cache = cache(0);
    cache.insert(1, 0, Timestamp(10), Timestamp(0));
    assert!(cache.is_empty() && cache.find(&1, Timestamp(0)).is_none());
}

proptest! {
    #[test]
    fn it_never_holds_more_than_it_may_and_never_says_what_was_not_put_there(
        entries_max in 1usize..8,
        steps in proptest::collection::vec((0u16..16, 0u64..200, any::<bool>()), 0..200),
    ) {
        let mut cache = cache(entries_max);
        let mut model: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        for (now, (key, ends_at, is_write)) in (0u64..).zip(steps) {
            if is_write {
                cache.insert(key, now, Timestamp(ends_at), Timestamp(now));
                if ends_at > now {
                    model.insert(key, (now, ends_at));
                    // The newest is always there.
                    prop_assert_eq!(cache.find(&key, Timestamp(now)), Some(&now));
                }
            } else if let Some(found) = cache.find(&key, Timestamp(now)) {
                let (value, ends_at) = model[&key];
                prop_assert_eq!(*found, value);
                prop_assert!(ends_at > now);
            }
            prop_assert!(cache.len() <= entries_max);
        }
    }
}
