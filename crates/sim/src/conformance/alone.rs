//! What one caller can expect.

use bytes::Bytes;
use keyreeve::engine::VALUE_BYTES_MAX;
use keyreeve::port::{Entry, KEY_BYTES_MAX, Key, LIST_MAX, StoreError, Swap};

use super::{Bench, Broken, entry, op, same};

pub(super) async fn an_absent_key_reads_as_nothing(bench: &Bench) -> Result<(), Broken> {
    same("read", &bench.register()?.read(&bench.key("absent")?).await, &Ok(None))
}

pub(super) async fn a_created_entry_reads_back_and_cannot_be_created_twice(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("created")?);
    let first = entry(1, "first");
    same("create", &register.swap(&key, None, first.clone()).await, &Ok(Swap::Done))?;
    same("read", &register.read(&key).await, &Ok(Some(first.clone())))?;
    same("create again", &register.swap(&key, None, entry(2, "second")).await, &Ok(Swap::Lost))?;
    same("create the same again", &register.swap(&key, None, first.clone()).await, &Ok(Swap::Lost))?;
    same("read after both", &register.read(&key).await, &Ok(Some(first)))
}

pub(super) async fn a_swap_needs_the_write_it_names(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("swapped")?);
    same("create", &register.swap(&key, None, entry(1, "one")).await, &Ok(Swap::Done))?;
    same("wrong op", &register.swap(&key, Some(op(9)), entry(2, "two")).await, &Ok(Swap::Lost))?;
    same("read after the loss", &register.read(&key).await, &Ok(Some(entry(1, "one"))))?;
    same("right op", &register.swap(&key, Some(op(1)), entry(2, "two")).await, &Ok(Swap::Done))?;
    same("old op", &register.swap(&key, Some(op(1)), entry(3, "three")).await, &Ok(Swap::Lost))?;
    same("read", &register.read(&key).await, &Ok(Some(entry(2, "two"))))
}

/// Bytes that come back do not let an old expectation win (ABA).
pub(super) async fn the_write_counts_and_not_the_bytes(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("aba")?);
    same("A", &register.swap(&key, None, entry(1, "A")).await, &Ok(Swap::Done))?;
    same("B", &register.swap(&key, Some(op(1)), entry(2, "B")).await, &Ok(Swap::Done))?;
    same("A again", &register.swap(&key, Some(op(2)), entry(3, "A")).await, &Ok(Swap::Done))?;
    same("expecting the first A", &register.swap(&key, Some(op(1)), entry(4, "C")).await, &Ok(Swap::Lost))?;
    same("same bytes, next op", &register.swap(&key, Some(op(3)), entry(5, "A")).await, &Ok(Swap::Done))?;
    same("read", &register.read(&key).await, &Ok(Some(entry(5, "A"))))
}

pub(super) async fn a_swap_on_an_absent_key_is_lost(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("never")?);
    same("swap", &register.swap(&key, Some(op(1)), entry(2, "x")).await, &Ok(Swap::Lost))?;
    same("read", &register.read(&key).await, &Ok(None))
}

pub(super) async fn empty_and_large_values_come_back_whole(bench: &Bench) -> Result<(), Broken> {
    let register = bench.register()?;
    let mut large = vec![0; VALUE_BYTES_MAX];
    bench.chance(1).fill(&mut large);
    let every_byte: Vec<u8> = (0..=255).collect();
    for (at, bytes) in [Vec::new(), vec![0], every_byte, large].into_iter().enumerate() {
        let (key, stored) = (bench.key(at)?, Entry { op: op(1), bytes: Bytes::from(bytes) });
        same("create", &register.swap(&key, None, stored.clone()).await, &Ok(Swap::Done))?;
        if register.read(&key).await != Ok(Some(stored.clone())) {
            return Err(format!("a value of {} bytes did not come back", stored.bytes.len()));
        }
    }
    Ok(())
}

pub(super) async fn a_value_above_the_limit_is_refused(bench: &Bench) -> Result<(), Broken> {
    let (register, key) = (bench.register()?, bench.key("too-large")?);
    let answer = register.swap(&key, None, entry(1, vec![1; VALUE_BYTES_MAX + 1])).await;
    if !matches!(answer, Err(StoreError::Refused(_))) {
        return Err(format!("swap: {answer:?} instead of a refusal"));
    }
    same("read", &register.read(&key).await, &Ok(None))
}

pub(super) async fn keys_are_kept_apart(bench: &Bench) -> Result<(), Broken> {
    let register = bench.register()?;
    let mut longest = bench.key("")?.as_str().to_owned();
    longest.extend(std::iter::repeat_n('k', KEY_BYTES_MAX - longest.len()));
    let longest = Key::new(longest).ok_or("the longest key is no key")?;
    let keys = [bench.key("a")?, bench.key("A")?, bench.key("a%")?, bench.key("a_")?, bench.key("'\"\\;--")?, longest];
    for (number, key) in (1..).zip(&keys) {
        same(key, &register.swap(key, None, entry(number, "x")).await, &Ok(Swap::Done))?;
    }
    for (number, key) in (1..).zip(&keys) {
        same(key, &register.read(key).await, &Ok(Some(entry(number, "x"))))?;
    }
    Ok(())
}

pub(super) async fn a_list_is_in_order_and_in_pages(bench: &Bench) -> Result<(), Broken> {
    let register = bench.register()?;
    let sorted = ["p/", "p/!", "p/A", "p/a", "p/a0", "p/a~", "p/b", "p/~~"];
    let outside = ["o", "p", "p.", "p0", "q", "~"];
    for name in sorted.iter().rev().chain(&outside) {
        same(name, &register.swap(&bench.key(name)?, None, entry(1, "x")).await, &Ok(Swap::Done))?;
    }
    let keys = sorted.iter().map(|name| bench.key(name)).collect::<Result<Vec<_>, _>>()?;
    let prefix = bench.key("p/")?;
    let list = async |after: Option<&Key>, limit| register.list(prefix.as_str(), after, limit).await;
    same("all", &list(None, LIST_MAX + 1).await, &Ok(keys.clone()))?;
    same("none asked for", &list(None, 0).await, &Ok(Vec::new()))?;
    same("before the prefix", &list(Some(&bench.key("o")?), 2).await, &Ok(keys.iter().take(2).cloned().collect()))?;
    same("after the prefix", &list(Some(&bench.key("q")?), 9).await, &Ok(Vec::new()))?;
    same("after a key that is not there", &list(Some(&bench.key("p/a5")?), 1).await, &Ok(vec![bench.key("p/a~")?]))?;
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = list(after.as_ref(), 3).await.map_err(|e| e.to_string())?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        pages.push(page);
    }
    same("pages", &pages.iter().map(Vec::len).collect(), &vec![3, 3, 2])?;
    same("all pages", &pages.concat(), &keys)?;
    same("an unused prefix", &register.list(bench.key("zz")?.as_str(), None, 9).await, &Ok(Vec::new()))
}
