//! Access tokens: who is let through, at what cost, and what people do to tokens.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use futures::future::join_all;
use keyreeve::access::{Ask, Denied, FamilyConfig, NEGATIVE_MS, New};
use keyreeve::config::OnStale;
use keyreeve::core::time::Timestamp;
use keyreeve::core::token::text::{hv2, native};
use keyreeve::core::token::{Format, Scope, State, TokenId};
use keyreeve::error::ErrorKind;
use keyreeve::port::Host as _;

use crate::access_world::{Node, World};
use crate::http_world::{EPOCH_MS, HOUR, MINUTE, SECOND, pass};

const PRIVATE: &str = "0123456789abcdef0123456789abcdef";

fn id(n: u64) -> TokenId {
    let mut bytes = [0xab; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    TokenId(bytes)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_its_target_until_it_is_revoked_here_at_once_and_elsewhere_within_a_second() {
    let world = World::new();
    let (one, two) = (world.node("one").await, world.node("two").await);
    let made = one.make("acme").await;
    let token = made.text.expose();
    for node in [&one, &two] {
        assert_eq!(node.says("acme", token).await, "good");
        assert_eq!(node.says("other", token).await, "unknown");
    }
    let reads = world.reads();
    for _ in 0..100 {
        assert_eq!(two.says("acme", token).await, "good");
    }
    assert_eq!(world.reads(), reads, "what was seen lately costs no read");
    let revoked = one.access.revoke(made.record.id, "ops").await.unwrap();
    assert_eq!(revoked.state(Timestamp(EPOCH_MS)), State::Revoked);
    assert_eq!(one.says("acme", token).await, "revoked");
    pass(SECOND).await;
    assert_eq!(two.says("acme", token).await, "revoked");
    // Twice is once, and whoever comes later finds it in the record.
    assert_eq!(one.access.revoke(made.record.id, "else").await.unwrap().revoked, revoked.revoked);
    assert_eq!(world.node("three").await.says("acme", token).await, "revoked");
    assert_eq!(one.access.revoke(id(1), "ops").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_used_before_it_exists_is_good_within_two_seconds_after_it_does() {
    let world = World::new();
    let (one, two) = (world.node("one").await, world.node("two").await);
    let made = one.make("acme").await;
    // The other node does not find the record, as if it were not there yet.
    world.register.is_blind.store(true, Ordering::SeqCst);
    assert_eq!(two.says("acme", made.text.expose()).await, "unknown");
    let imported = hv2(id(1), PRIVATE);
    assert_eq!(two.says("acme", imported.expose()).await, "unknown");
    world.register.is_blind.store(false, Ordering::SeqCst);
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    pass(NEGATIVE_MS - 100).await;
    assert_eq!(two.says("acme", made.text.expose()).await, "unknown", "a refusal is remembered");
    pass(2 * SECOND - NEGATIVE_MS + 100).await;
    assert_eq!(two.says("acme", made.text.expose()).await, "good");
    assert_eq!(two.says("acme", imported.expose()).await, "good");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_spellings_and_ten_thousand_unknown_ids_cost_one_bcrypt_one_read_each_and_bounded_memory() {
    let world = World::new();
    let node = world.node("one").await;
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    let token = hv2(id(1), PRIVATE);
    let encode = |plain: String| format!("hv2{}", base64::engine::general_purpose::STANDARD.encode(plain));
    let mut spellings = vec![
        encode(format!("{}:{PRIVATE}", id(1).to_string().to_uppercase())),
        encode(format!("{}:{PRIVATE}", id(1).digits())),
        encode(format!("{{{}}}:{PRIVATE}", id(1))),
        encode(format!("{}:{PRIVATE}:", id(1))),
        token.expose().replace("hv2", "HV2"),
        token.expose().trim_end_matches('=').to_owned() + "\n",
    ];
    for n in 0..1000 - spellings.len() {
        let (before, after) = token.expose().split_at(3 + n % (token.expose().len() - 3));
        spellings.push(format!("{before}{}{after}", [" ", "\t", "=", "\r\n", "%20"][n % 5]));
    }
    let reads = world.reads();
    let refused = join_all(spellings.iter().map(|spelling| node.says("acme", spelling))).await;
    assert_eq!(refused.iter().position(|said| *said != "malformed"), None);
    assert_eq!(world.reads(), reads, "refused before any read");
    let good = join_all((0..1000).map(|_| node.says("acme", token.expose()))).await;
    assert!(good.iter().all(|said| *said == "good"));
    assert_eq!((world.compared(), world.elsewhere.asked.load(Ordering::SeqCst)), (1, 1));

    let reads = world.reads();
    for hundred in 0..100 {
        let tokens: Vec<_> = (0..100).map(|n| native(id(1000 + hundred * 100 + n), &[9; 32])).collect();
        let said = join_all(tokens.iter().map(|token| node.says("acme", token.expose()))).await;
        assert!(said.iter().all(|said| *said == "unknown"));
        let again = join_all(tokens.iter().map(|token| node.says("acme", token.expose()))).await;
        assert!(again.iter().all(|said| *said == "unknown"));
    }
    assert_eq!(world.reads() - reads, 10_000, "one read each, however often it is shown");
    assert_eq!(world.compared(), 1);
    // Far more than are remembered.
    for hundred in 0..200 {
        let tokens: Vec<_> = (0..100).map(|n| native(id(50_000 + hundred * 100 + n), &[9; 32])).collect();
        join_all(tokens.iter().map(|token| node.says("acme", token.expose()))).await;
    }
    let (good, refused) = node.tokens.held();
    assert!(good <= 2 && refused <= 16_384, "{good} {refused}");
    let reads = world.reads();
    assert_eq!(node.says("acme", token.expose()).await, "good", "strangers push out strangers only");
    assert_eq!(world.reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn more_looks_at_once_than_there_is_room_for_are_told_to_come_again() {
    let world = World::new();
    let node = world.node("one").await;
    let tokens: Vec<_> = (0..1500).map(|n| native(id(n), &[9; 32])).collect();
    world.unplug(true);
    let said = join_all(tokens.iter().map(|token| node.check("acme", token.expose()))).await;
    assert!(said.iter().all(|said| matches!(said, Err(Denied::Unavailable { .. }))));
    world.unplug(false);
    assert_eq!(node.says("acme", tokens[0].expose()).await, "unknown", "that a store was away is not remembered");
}

#[tokio::test(start_paused = true)]
async fn unknown_wrong_and_revoked_tokens_cost_the_same_and_strangers_hear_the_same() {
    let world = World::new();
    let node = world.node("one").await;
    let made = node.make("acme").await;
    let gone = node.make("acme").await;
    node.access.revoke(gone.record.id, "ops").await.unwrap();
    let wrong = native(made.record.id, &[1; 32]);
    let unknown = native(id(5), &[1; 32]);
    let mut costs = Vec::new();
    for (token, code) in [(&unknown, "unknown"), (&wrong, "unknown"), (&gone.text, "revoked")] {
        let before = (world.reads(), node.crypto.macs.load(Ordering::SeqCst), node.crypto.bytes.load(Ordering::SeqCst));
        let denied = node.check("acme", token.expose()).await.unwrap_err();
        assert_eq!(denied.code(), code);
        let after = (world.reads(), node.crypto.macs.load(Ordering::SeqCst), node.crypto.bytes.load(Ordering::SeqCst));
        costs.push((after.0 - before.0, after.1 - before.1, after.2 - before.2, denied.public()));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    assert_eq!((costs[0].0, costs[0].1), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_about_one_token_at_once_wait_for_one_read() {
    let world = World::new();
    let node = world.node("one").await;
    let made = node.make("acme").await;
    let reads = world.reads();
    let said = join_all((0..200).map(|_| node.says("acme", made.text.expose()))).await;
    assert!(said.iter().all(|said| *said == "good"));
    assert_eq!(world.reads() - reads, 1);
}

#[tokio::test(start_paused = true)]
async fn a_scope_and_an_end_hold_for_what_was_seen_too() {
    let world = World::new();
    let node = world.node("one").await;
    let scope =
        Scope { paths: vec!["/version/**".into()], kinds: vec!["sdl".into()], networks: vec!["10.0.0.0/8".into()] };
    let new = New { target: "acme".into(), alias: "ci".into(), scope, life_ms: Some(MINUTE), format: None };
    let made = node.access.create(new, "ops").await.unwrap();
    let token = made.text.expose();
    let peer = Some("10.1.2.3".parse().unwrap());
    let right = Ask { token, target: "acme", path: "/version/1/sdl", kind: "sdl", peer };
    let now = || world.host.now();
    for _ in 0..2 {
        assert!(node.access.check(&right, now()).await.is_ok());
        for wrong in [
            Ask { path: "/contracts/a", ..right },
            Ask { kind: "supergraph", ..right },
            Ask { peer: Some("192.0.2.1".parse().unwrap()), ..right },
            Ask { peer: None, ..right },
        ] {
            assert!(matches!(node.access.check(&wrong, now()).await, Err(Denied::OutOfScope(_))));
        }
    }
    assert!(matches!(node.access.seen(&right, now()), Some(Ok(_))));
    pass(MINUTE - 1000).await;
    assert!(node.access.check(&right, now()).await.is_ok());
    pass(1000).await;
    assert_eq!(node.access.check(&right, now()).await.unwrap_err(), Denied::Expired);
    for tricky in [Ask { target: "..", ..right }, Ask { target: "acme/x", ..right }, Ask { target: "a%2fb", ..right }] {
        assert_eq!(node.access.check(&tricky, now()).await.unwrap_err(), Denied::Malformed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_never_a_refusal_and_what_is_known_goes_on_as_the_operator_says() {
    for (on_stale, later) in [(OnStale::Allow, "good"), (OnStale::Deny, "stale")] {
        let world = World { on_stale, ..World::new() };
        let node = world.node("one").await;
        let (seen, unseen) = (node.make("acme").await, node.make("acme").await);
        assert_eq!(node.says("acme", seen.text.expose()).await, "good");
        world.unplug(true);
        assert_eq!(node.says("acme", seen.text.expose()).await, "good");
        assert_eq!(node.says("acme", unseen.text.expose()).await, "unavailable");
        // Longer than a record is fresh, and in steps that cross every edge.
        for _ in 0..40 {
            pass(5 * SECOND).await;
            assert_eq!(node.says("acme", seen.text.expose()).await, later, "{on_stale:?}");
        }
        world.unplug(false);
        pass(2 * SECOND).await;
        assert_eq!(node.says("acme", seen.text.expose()).await, "good");
        assert_eq!(node.says("acme", unseen.text.expose()).await, "good");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_looked_at_again_while_nobody_waits() {
    let world = World::new();
    let node = world.node("one").await;
    let made = node.make("acme").await;
    assert_eq!(node.says("acme", made.text.expose()).await, "good");
    let reads = world.reads();
    pass(29 * SECOND).await;
    assert_eq!(node.says("acme", made.text.expose()).await, "good");
    let between = world.reads();
    pass(2 * SECOND).await;
    let ask = Ask { token: made.text.expose(), target: "acme", path: "/", kind: "", peer: None };
    assert!(matches!(node.access.seen(&ask, world.host.now()), Some(Ok(_))));
    pass(10).await;
    assert!(world.reads() > between && between - reads <= 1, "{reads} {between} {}", world.reads());
}

#[tokio::test(start_paused = true)]
async fn a_rolled_token_goes_on_for_its_grace_and_its_successor_from_now_on() {
    let world = World::new();
    let (one, two) = (world.node("one").await, world.node("two").await);
    let old = one.make("acme").await;
    assert_eq!(two.says("acme", old.text.expose()).await, "good");
    let new = one.access.roll(old.record.id, None, "ops").await.unwrap();
    assert_eq!((new.record.copied_from, new.record.alias.as_str()), (Some(old.record.id), "ci"));
    let (_, rolled) = one.tokens.find(old.record.id).await.unwrap();
    assert_eq!(rolled.state(world.host.now().wall), State::Rolling);
    assert_eq!(rolled.rolled.unwrap().to, new.record.id);
    let twice = one.access.roll(old.record.id, None, "ops").await.unwrap_err();
    assert!(twice.kind == ErrorKind::Conflict && twice.message.contains(&new.record.id.to_string()), "{twice}");
    // The node that has seen it hears of the end in time, too.
    for _ in 0..119 {
        pass(30 * SECOND).await;
        assert_eq!(two.says("acme", old.text.expose()).await, "good");
    }
    pass(31 * SECOND).await;
    assert_eq!(two.says("acme", old.text.expose()).await, "expired");
    assert_eq!(two.says("acme", new.text.expose()).await, "good");
    // No grace at all is a revocation.
    let last = one.access.roll(new.record.id, Some(0), "ops").await.unwrap();
    assert_eq!(one.says("acme", new.text.expose()).await, "revoked");
    assert_eq!(one.says("acme", last.text.expose()).await, "good");
    for wrong in [SECOND, 91 * 24 * HOUR] {
        let error = one.access.roll(last.record.id, Some(wrong), "ops").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unacceptable);
    }
    assert_eq!(one.access.roll(new.record.id, None, "ops").await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn where_the_old_token_cannot_be_rolled_its_successor_is_none() {
    let world = World::new();
    let node = world.node("one").await;
    let old = node.make("acme").await;
    // One write makes the successor; that of the old token fails, and so does every other one.
    *world.register.swaps_left.lock().unwrap() = Some(1);
    assert_eq!(node.access.roll(old.record.id, None, "ops").await.unwrap_err().kind, ErrorKind::StoreUnavailable);
    *world.register.swaps_left.lock().unwrap() = None;
    assert_eq!(node.says("acme", old.text.expose()).await, "good");
    let page = node.access.list("acme", None, 10).await.unwrap();
    assert_eq!(page.records.len(), 2, "nobody has its text, and the list shows it");
}

#[tokio::test(start_paused = true)]
async fn a_list_has_the_newest_first_and_pages() {
    let world = World::new();
    let node = world.node("one").await;
    let mut made = Vec::new();
    for _ in 0..25 {
        made.push(node.make("acme").await.record.id);
        pass(7).await;
    }
    node.make("other").await;
    let copy = node.access.duplicate(made[0], Some("copy".into()), "ops").await.unwrap();
    assert_eq!((copy.record.alias.as_str(), copy.record.copied_from), ("copy", Some(made[0])));
    made.push(copy.record.id);
    made.reverse();
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = node.access.list("acme", cursor.as_deref(), 10).await.unwrap();
        listed.extend(page.records.iter().map(|record| record.id));
        cursor = page.cursor;
        pages += 1;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((listed, pages), (made, 3));
    assert!(node.access.list("nobody", None, 10).await.unwrap().records.is_empty());
    for (target, cursor, limit) in [("a/b", None, 10), ("acme", Some("x"), 10), ("acme", None, 0), ("acme", None, 101)]
    {
        assert_eq!(node.access.list(target, cursor, limit).await.unwrap_err().kind, ErrorKind::Unacceptable);
    }
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_now_and_then_and_never_a_revocation_away() {
    let world = World::new();
    let node = world.node("one").await;
    let made = node.make("acme").await;
    let swaps = world.register.swaps.load(Ordering::SeqCst);
    for _ in 0..1200 {
        assert_eq!(node.says("acme", made.text.expose()).await, "good");
        pass(500).await;
    }
    let written = world.register.swaps.load(Ordering::SeqCst) - swaps;
    assert!((1..=3).contains(&written), "{written} writes in ten minutes");
    let (_, record) = node.tokens.find(made.record.id).await.unwrap();
    let used = record.used.unwrap();
    assert!(used.node.as_str() == "one" && world.host.now().wall.since(used.at) < 6 * MINUTE, "{used:?}");
    node.access.revoke(made.record.id, "ops").await.unwrap();
    pass(10 * MINUTE).await;
    assert_eq!(world.node("two").await.says("acme", made.text.expose()).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_writes_down_what_was_used_up_to_it_and_does_not_wait_for_the_store() {
    let world = World::new();
    let node = world.node("one").await;
    let made = [node.make("acme").await, node.make("acme").await];
    let used = async |at: usize| {
        let (_, record) = world.node("two").await.tokens.find(made[at].record.id).await.unwrap();
        record.used.map(|used| used.at)
    };
    assert_eq!(node.says("acme", made[0].text.expose()).await, "good");
    assert_eq!(used(0).await, None);
    node.tokens.leave(world.host.now().mono.plus(2 * SECOND)).await;
    assert!(used(0).await.is_some());
    assert_eq!(node.says("acme", made[1].text.expose()).await, "good");
    world.unplug(true);
    let before = world.host.now().mono;
    node.tokens.leave(before.plus(2 * SECOND)).await;
    assert!(world.host.now().mono.since(before) <= 2 * SECOND);
}

/// Nobody has used it here, so nothing of it is here.
#[tokio::test(start_paused = true)]
async fn an_imported_token_is_revoked_before_its_first_use() {
    let world = World::new();
    let node = world.node("one").await;
    let token = hv2(id(1), PRIVATE);
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    let kind = async |target: &str, id: TokenId| node.access.revoke_of(target, id, "ops").await.unwrap_err().kind;
    assert_eq!(kind("other", id(1)).await, ErrorKind::NotFound, "they have none of that target");
    assert_eq!(kind("acme", id(2)).await, ErrorKind::NotFound);
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    assert_eq!(kind("acme", id(1)).await, ErrorKind::StoreUnavailable);
    world.elsewhere.is_away.store(false, Ordering::SeqCst);
    let record = node.access.revoke_of("acme", id(1), "ops").await.unwrap();
    assert_eq!((record.state(world.host.now().wall), record.target.as_str()), (State::Revoked, "acme"));
    assert_eq!(world.elsewhere.len(), 0, "others refuse it too");
    // Also where the other hash stays, or comes back.
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    for name in ["one", "two"] {
        assert_eq!(world.node(name).await.says("acme", token.expose()).await, "revoked");
    }
    assert_eq!(node.access.list("acme", None, 10).await.unwrap().records.len(), 1);
    // Asking again does no harm; and what is here is revoked by its target, too.
    node.access.revoke_of("acme", id(1), "ops").await.unwrap();
    let made = node.make("acme").await;
    assert_eq!(kind("other", made.record.id).await, ErrorKind::NotFound);
    node.access.revoke_of("acme", made.record.id, "ops").await.unwrap();
    assert_eq!(node.says("acme", made.text.expose()).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn an_imported_token_is_compared_once_and_refused_when_its_hash_is_gone() {
    let world = World::new();
    let node = world.node("one").await;
    let (token, legacy) = (hv2(id(1), PRIVATE), "DRKy32y84wRh18Hm45ZXAXRx1aJDL+kzf+C+m7imTk4=");
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    world.elsewhere.insert("acme", None, legacy);
    assert_eq!(node.says("acme", token.expose()).await, "good");
    assert_eq!(node.says("acme", legacy).await, "good");
    assert_eq!(world.compared(), 2);
    let (_, record) = node.tokens.find(id(1)).await.unwrap();
    let import = record.import.unwrap();
    assert_eq!((record.format, import.first.as_str(), import.last.as_str()), (Format::Hv2, "01234", "bcdef"));
    assert_eq!(node.access.list("acme", None, 10).await.unwrap().records.len(), 2);
    // On every node and for ever after: no bcrypt.
    let other = world.node("two").await;
    for _ in 0..10 {
        pass(MINUTE).await;
        assert_eq!(other.says("acme", token.expose()).await, "good");
        assert_eq!(other.says("acme", legacy).await, "good");
        assert_eq!(other.says("other", legacy).await, "unknown");
    }
    assert_eq!(world.compared(), 2);
    // A bucket that does not answer takes nothing back.
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    pass(5 * MINUTE).await;
    assert_eq!(other.says("acme", token.expose()).await, "good");
    assert_eq!(world.node("three").await.says("acme", token.expose()).await, "good");
    assert_eq!(node.says("acme", hv2(id(2), PRIVATE).expose()).await, "unavailable", "and lets nobody in");
    world.elsewhere.is_away.store(false, Ordering::SeqCst);
    // One that has no such hash any more does.
    world.elsewhere.hashes.lock().unwrap().clear();
    let mut asked = 0;
    while other.says("acme", token.expose()).await == "good" {
        pass(10 * SECOND).await;
        asked += 10;
        assert!(asked <= 70, "not within a minute");
    }
    assert_eq!(world.node("four").await.says("acme", legacy).await, "unknown");
    // What was taken back stays so also while nobody can look there, and until it is there again.
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    let five = world.node("five").await;
    for token in [token.expose(), legacy] {
        assert_eq!(five.says("acme", token).await, "unavailable", "ours vouches for it no more");
    }
    world.elsewhere.is_away.store(false, Ordering::SeqCst);
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    pass(MINUTE).await;
    assert_eq!(five.says("acme", token.expose()).await, "good");
    assert_eq!(world.compared(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_for_an_imported_token_is_refused_and_a_new_hash_is_compared_anew() {
    let world = World::new();
    let node = world.node("one").await;
    let legacy = ["DRKy32y84wRh18Hm45ZXAXRx1aJDL+kzf+C+m7imTk4=", "ERKy32y84wRh18Hm45ZXAXRx1aJDL+kzf+C+m7imTk4="];
    world.elsewhere.insert("acme", None, legacy[0]);
    assert_eq!(node.says("acme", legacy[0]).await, "good");
    for _ in 0..5 {
        assert_eq!(node.says("acme", legacy[1]).await, "unknown");
        pass(2 * SECOND).await;
    }
    assert_eq!(world.compared(), 1, "our own hash says that it is wrong");
    world.elsewhere.insert("acme", None, legacy[1]);
    assert_eq!(node.says("acme", legacy[1]).await, "good");
    pass(2 * MINUTE).await;
    assert_eq!(node.says("acme", legacy[0]).await, "unknown", "there is one legacy token of a target");
}

#[tokio::test(start_paused = true)]
async fn new_tokens_of_the_other_form_are_read_by_others_and_revoked_for_them() {
    let family = FamilyConfig { format: Format::Hv2, life_ms: None, grace_ms: HOUR, hashes: None, legacy_key: None };
    let world = World { family, ..World::new() };
    let node = world.node("one").await;
    let made = node.make("acme").await;
    assert!(made.text.expose().starts_with("hv2") && world.elsewhere.len() == 1);
    assert_eq!(node.says("acme", made.text.expose()).await, "good");
    assert_eq!(world.compared(), 0, "what we made needs no bcrypt");
    node.access.revoke(made.record.id, "ops").await.unwrap();
    assert_eq!(world.elsewhere.len(), 0);
    assert_eq!(node.says("acme", made.text.expose()).await, "revoked");
}

async fn many(node: &Node, target: &str, count: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        tokens.push(node.make(target).await.text.expose().clone());
    }
    tokens
}

#[tokio::test(start_paused = true)]
async fn a_dropped_target_kills_its_tokens_at_once_and_in_every_store_and_nothing_else() {
    let world = World::new();
    let (one, two) = (world.node("one").await, world.node("two").await);
    let tokens = many(&one, "acme", 30).await;
    let other = one.make("other").await;
    let imported = hv2(id(1), PRIVATE);
    for target in ["acme", "other"] {
        world.elsewhere.insert(target, Some(id(1)), PRIVATE);
        world.elsewhere.insert(target, Some(id(2)), PRIVATE);
    }
    assert_eq!(two.says("acme", imported.expose()).await, "good");
    for token in &tokens {
        assert_eq!(two.says("acme", token).await, "good");
    }
    let dropped = one.access.drop_target("acme", "ops").await.unwrap();
    assert_eq!(dropped.revoked, 31);
    assert_eq!(world.elsewhere.len(), 2, "the hashes of the other target are there");
    pass(SECOND).await;
    for node in [&one, &two, &world.node("three").await] {
        for token in &tokens {
            assert_eq!(node.says("acme", token).await, "revoked");
        }
        assert_ne!(node.says("acme", imported.expose()).await, "good");
        assert_ne!(node.says("acme", hv2(id(2), PRIVATE).expose()).await, "good");
        assert_eq!(node.says("other", other.text.expose()).await, "good");
    }
    // Asking again does no harm.
    assert_eq!(two.access.drop_target("acme", "ops").await.unwrap().revoked, 31);
    // A clock may be wrong by so much; after that a target of the same name starts anew.
    let early = one.try_make("acme").await.unwrap_err();
    assert!(early.kind == ErrorKind::Conflict && early.retry_after_ms == Some(MINUTE), "{early:?}");
    pass(2 * MINUTE).await;
    let fresh = one.make("acme").await;
    assert_eq!(two.says("acme", fresh.text.expose()).await, "good");
    assert_eq!(two.says("acme", &tokens[0]).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_dropping_is_cut_short_is_dropped_by_the_next_node() {
    let world = World::new();
    let one = world.node("one").await;
    let tokens = many(&one, "acme", 20).await;
    *world.register.swaps_left.lock().unwrap() = Some(5);
    assert_eq!(one.access.drop_target("acme", "ops").await.unwrap_err().kind, ErrorKind::StoreUnavailable);
    one.kill();
    *world.register.swaps_left.lock().unwrap() = None;
    let revoked = async |node: &Node| {
        let page = node.access.list("acme", None, 100).await.unwrap();
        page.records.iter().filter(|record| record.revoked.is_some()).count()
    };
    assert_eq!(revoked(&one).await, 5, "it stopped in the middle");
    // A node that starts refuses all of them before it has written anything.
    let two = world.node("two").await;
    for token in &tokens {
        assert_eq!(two.says("acme", token).await, "revoked");
    }
    pass(SECOND).await;
    assert_eq!(revoked(&two).await, 20);
    let by = two.access.list("acme", None, 1).await.unwrap().records[0].revoked.clone().unwrap().by;
    assert_eq!(by, "ops", "whoever asked for it, not whoever finished it");
}

#[tokio::test(start_paused = true)]
async fn seal_keys_come_and_go_and_tokens_stay() {
    let world = World::new();
    let made = world.sealed("one", &[[7; 32]], None).await.make("acme").await;
    let both = world.sealed("two", &[[8; 32], [7; 32]], None).await;
    assert_eq!(both.says("acme", made.text.expose()).await, "good");
    let new = world.sealed("three", &[[8; 32]], None).await;
    assert_eq!(new.says("acme", made.text.expose()).await, "good", "the old seal key is not needed any more");
    let stranger = world.sealed("four", &[[9; 32]], None).await;
    assert_eq!(stranger.says("acme", made.text.expose()).await, "unavailable", "never a refusal");
}

#[tokio::test(start_paused = true)]
async fn a_reload_costs_no_reads() {
    let world = World::new();
    let before = world.node("one").await;
    let made = before.make("acme").await;
    assert_eq!(before.says("acme", made.text.expose()).await, "good");
    // Until its use has been written down.
    pass(11 * SECOND).await;
    let reads = world.reads();
    let after = world.sealed("one", &[[7; 32]], Some(&before)).await;
    before.tokens.stop();
    assert_eq!(after.says("acme", made.text.expose()).await, "good");
    assert_eq!(world.reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_said_and_not_made() {
    let world = World::new();
    let strict = World { family: FamilyConfig { life_ms: Some(HOUR), ..world.family.clone() }, ..World::new() };
    let node = strict.node("one").await;
    let new = |target: &str, alias: &str, life_ms| New {
        target: target.into(),
        alias: alias.into(),
        scope: Scope::default(),
        life_ms,
        format: None,
    };
    let long = "a".repeat(101);
    for (new, said) in [
        (new("a/b", "ci", None), "`target` must be"),
        (new("acme", "", None), "`alias` has 0 characters"),
        (new("acme", &long, None), "`alias` has 101 characters"),
        (new("acme", "ci", Some(HOUR + 1)), "`life` must be at most 1h, as `token.cdn.life` says"),
        (new("acme", "ci", Some(0)), "`life` must be more"),
        (
            New { scope: Scope { paths: vec!["x".into()], ..Scope::default() }, ..new("acme", "ci", None) },
            "`scope`: the path `x`",
        ),
    ] {
        let error = node.access.create(new, "ops").await.unwrap_err();
        assert!(error.kind == ErrorKind::Unacceptable && error.message.starts_with(said), "{error}");
    }
    assert!(node.access.list("acme", None, 10).await.unwrap().records.is_empty());
    let made = node.access.create(new("acme", "ci", None), "ops").await.unwrap();
    assert_eq!(made.record.expires_at, Some(made.record.created_at.plus(HOUR)));
}
