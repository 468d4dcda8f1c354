//! Tokens that somebody else judges as well: both verdicts, what comes of comparing them, and whose counts.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use keyreeve::access::New;
use keyreeve::core::crypto::Crypto as _;
use keyreeve::core::token::hash::legacy_id;
use keyreeve::core::token::text::hv2;
use keyreeve::core::token::{Compared, Format, Mode, ModeRecord, Scope, TokenId};
use keyreeve::crypto::LocalCrypto;
use keyreeve::error::ErrorKind;

use crate::access_world::{Node, World};
use crate::http_world::{MINUTE, SECOND, pass};

/// Its token ends in a padding that others do without.
const PRIVATE: &str = "0123456789abcdef0123456789abcde";
const SECRET: &[u8] = b"the secret of the old service";

fn id(n: u8) -> TokenId {
    TokenId([n; 16])
}

/// As the makers of legacy tokens compute them.
fn legacy(secret: &[u8], target: &str) -> String {
    STANDARD.encode(LocalCrypto.hmac_sha256(secret, &[target.as_bytes()]))
}

/// A world whose bucket has a key and a legacy token of two targets, and two nodes that know the secret.
async fn shadowed() -> (World, Node, Node) {
    let world = World { legacy_key: Some(SECRET), ..World::new() };
    for (n, target) in [(1, "acme"), (2, "other")] {
        world.elsewhere.insert(target, Some(id(n)), PRIVATE);
        world.elsewhere.insert(target, None, &legacy(SECRET, target));
    }
    let (one, two) = (world.node("one").await, world.node("two").await);
    one.access.set_mode(Mode::Shadow, false, "ops").await.unwrap();
    pass(2 * SECOND).await;
    (world, one, two)
}

async fn record(node: &Node) -> ModeRecord {
    pass(2 * SECOND).await;
    node.access.mode().await.unwrap().unwrap()
}

/// What was counted, by cause.
async fn counted(node: &Node) -> Vec<(String, u64)> {
    let mut counted: Vec<_> = record(node).await.tallies.into_iter().map(|tally| (tally.cause, tally.count)).collect();
    counted.sort();
    counted
}

fn counts(expected: &[(Compared, u64)]) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = expected.iter().map(|(what, count)| (what.as_str().to_owned(), *count)).collect();
    counts.sort();
    counts
}

#[tokio::test(start_paused = true)]
async fn in_shadow_every_request_is_counted_once_for_the_whole_fleet_and_costs_one_bcrypt_a_token_and_node() {
    let (world, one, two) = shadowed().await;
    let (token, old) = (hv2(id(1), PRIVATE), legacy(SECRET, "acme"));
    for _ in 0..50 {
        for node in [&one, &two] {
            assert_eq!(node.says("acme", token.expose()).await, "good");
            assert_eq!(node.says("acme", &old).await, "good");
            assert_eq!(node.says("other", &old).await, "unknown");
            assert_eq!(node.says("other", token.expose()).await, "unknown");
            assert_eq!(node.says("acme", "nonsense").await, "malformed");
        }
        pass(5 * SECOND).await;
    }
    // The key, the legacy token, and the legacy token of another target.
    assert_eq!(world.compared(), 6);
    assert_eq!(counted(&one).await, counts(&[(Compared::BothAccept, 200), (Compared::BothRefuse, 300)]));
    assert_eq!(counted(&two).await, counted(&one).await, "there is one count");
    // What ours has no say in is not compared: Hive has no such tokens.
    let made = one.make("acme").await;
    assert_eq!(one.says("acme", made.text.expose()).await, "good");
    assert_eq!(counted(&one).await, counts(&[(Compared::BothAccept, 200), (Compared::BothRefuse, 300)]));
    let set = one.access.set_mode(Mode::Enforce, false, "ops").await.unwrap();
    assert_eq!((set.mode, set.by.as_str(), set.count(Compared::BothAccept)), (Mode::Enforce, "ops", 200));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_the_old_verdict_counts_and_each_difference_has_its_cause() {
    let (world, one, _) = shadowed().await;
    let token = hv2(id(1), PRIVATE);
    // Hive's workers take a text without its padding.
    let loose = token.expose().trim_end_matches('=').to_owned();
    assert_ne!(&loose, token.expose());
    assert_eq!(one.says("acme", &loose).await, "good");
    // A hash of a legacy token that another secret gave.
    let wrong = legacy(b"another secret", "third");
    world.elsewhere.insert("third", None, &wrong);
    assert_eq!(one.says("third", &wrong).await, "good");
    assert_eq!(one.says("third", &legacy(SECRET, "third")).await, "unknown");
    // One id at two targets; the first that was used has it here.
    world.elsewhere.insert("other", Some(id(1)), PRIVATE);
    assert_eq!(one.says("acme", token.expose()).await, "good");
    assert_eq!(one.says("other", token.expose()).await, "good");
    let expected = [
        (Compared::BothAccept, 1),
        (Compared::Malformed, 1),
        (Compared::WrongSecret, 1),
        (Compared::WrongHash, 1),
        (Compared::OtherTarget, 1),
    ];
    assert_eq!(counted(&one).await, counts(&expected));
    let examples = record(&one).await.differences().map(|tally| tally.examples.clone()).collect::<Vec<_>>().concat();
    assert!(
        examples.contains(&format!("acme/{}", id(1))) && examples.contains(&format!("other/{}", id(1))),
        "{examples:?}"
    );
    assert!(!format!("{examples:?}").contains(PRIVATE));
    let error = one.access.set_mode(Mode::Enforce, false, "ops").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    for said in ["malformed", "wrong_secret", "wrong_hash", "other_target", "`legacy.hmac_key`", "`--force`"] {
        assert!(error.message.contains(said), "{said}: {error}");
    }
    // Ours counts where somebody insists, and does what it said it would.
    one.access.set_mode(Mode::Enforce, true, "ops").await.unwrap();
    assert_eq!(one.says("acme", &loose).await, "malformed");
    assert_eq!(one.says("third", &wrong).await, "unknown");
    assert_eq!(one.says("third", &legacy(SECRET, "third")).await, "good");
    assert_eq!(one.says("other", token.expose()).await, "unknown");
    assert_eq!(one.says("acme", token.expose()).await, "good");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_enforced_before_something_was_compared_and_counting_begins_anew() {
    let world = World { legacy_key: Some(SECRET), ..World::new() };
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    let node = world.node("one").await;
    assert_eq!(node.access.mode().await.unwrap(), None);
    let refused = async |said: &str| {
        let error = node.access.set_mode(Mode::Enforce, false, "ops").await.unwrap_err();
        assert!(error.kind == ErrorKind::Conflict && error.message.contains(said), "{said}: {error}");
    };
    refused("is not in `shadow`").await;
    node.access.set_mode(Mode::Shadow, false, "ops").await.unwrap();
    assert_eq!(node.says("acme", "nonsense").await, "malformed");
    refused("that both accept").await;
    let loose = hv2(id(1), PRIVATE).expose().trim_end_matches('=').to_owned();
    assert_eq!(node.says("acme", &loose).await, "good");
    assert_eq!(node.says("acme", hv2(id(1), PRIVATE).expose()).await, "good");
    refused("old_accepts_new_refuses.malformed").await;
    node.access.set_mode(Mode::Shadow, false, "ops").await.unwrap();
    assert_eq!(counted(&node).await, counts(&[]));
    assert_eq!(node.says("acme", hv2(id(1), PRIVATE).expose()).await, "good");
    node.access.set_mode(Mode::Enforce, false, "ops").await.unwrap();
    // Off is no way back that anything hangs on.
    assert_eq!(node.access.set_mode(Mode::Off, false, "ops").await.unwrap().mode, Mode::Off);
}

#[tokio::test(start_paused = true)]
async fn every_node_follows_the_mode_within_two_seconds_and_goes_on_by_it_while_the_store_is_away() {
    let (world, one, two) = shadowed().await;
    let loose = hv2(id(1), PRIVATE).expose().trim_end_matches('=').to_owned();
    assert_eq!(two.says("acme", &loose).await, "good");
    one.access.set_mode(Mode::Enforce, true, "ops").await.unwrap();
    pass(2 * SECOND).await;
    assert_eq!(two.says("acme", &loose).await, "malformed", "and no verdict of the other mode is remembered");
    world.unplug(true);
    pass(5 * SECOND).await;
    assert_eq!(two.says("acme", &loose).await, "malformed");
    // A node that has not heard whose verdict counts says so.
    let three = world.node("three").await;
    assert_eq!(three.says("acme", hv2(id(1), PRIVATE).expose()).await, "unavailable");
    world.unplug(false);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_here_is_refused_in_shadow_too_and_told_of_where_its_hash_stays() {
    let (world, one, two) = shadowed().await;
    let token = hv2(id(1), PRIVATE);
    assert_eq!(one.says("acme", token.expose()).await, "good");
    assert_eq!(two.says("acme", token.expose()).await, "good");
    one.access.revoke(id(1), "ops").await.unwrap();
    assert_eq!(one.says("acme", token.expose()).await, "revoked");
    pass(SECOND).await;
    assert_eq!(two.says("acme", token.expose()).await, "revoked");
    let expected = [(Compared::BothAccept, 2), (Compared::BothRefuse, 2)];
    assert_eq!(counted(&one).await, counts(&expected), "its hash went with it");
    // Somebody puts it back.
    world.elsewhere.insert("acme", Some(id(1)), PRIVATE);
    pass(2 * MINUTE).await;
    assert_eq!(one.says("acme", token.expose()).await, "revoked");
    assert!(counted(&one).await.contains(&(Compared::Revoked.as_str().to_owned(), 1)));
}

#[tokio::test(start_paused = true)]
async fn where_their_verdict_is_not_to_be_had_ours_counts_and_nothing_is_compared() {
    let (world, one, _) = shadowed().await;
    let token = hv2(id(1), PRIVATE);
    assert_eq!(one.says("acme", token.expose()).await, "good");
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    pass(2 * MINUTE).await;
    let three = world.node("three").await;
    assert_eq!(three.says("acme", token.expose()).await, "good");
    assert_eq!(three.says("acme", hv2(id(9), PRIVATE).expose()).await, "unavailable");
    world.elsewhere.is_away.store(false, Ordering::SeqCst);
    assert_eq!(counted(&three).await, counts(&[(Compared::BothAccept, 1), (Compared::Unavailable, 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_spellings_that_the_old_way_takes_cost_one_bcrypt() {
    let (world, one, _) = shadowed().await;
    let text = hv2(id(1), PRIVATE).expose().clone();
    let (start, end) = text.split_at(20);
    let spellings: Vec<String> = (1..30).map(|n| format!("{start}{}{end}", " ".repeat(n))).collect();
    let asked = spellings.iter().map(|text| one.says("acme", text));
    assert!(join_all(asked).await.iter().all(|said| *said == "good"));
    assert_eq!(world.compared(), 1);
}

#[tokio::test(start_paused = true)]
async fn enforced_legacy_tokens_are_computed_without_bcrypt_for_as_long_as_their_hash_is_there() {
    let (world, one, two) = shadowed().await;
    one.access.set_mode(Mode::Enforce, true, "ops").await.unwrap();
    pass(2 * SECOND).await;
    let old = legacy(SECRET, "acme");
    for node in [&one, &two] {
        assert_eq!(node.says("acme", &old).await, "good");
        assert_eq!(node.says("other", &old).await, "unknown");
        assert_eq!(node.says("acme", &legacy(b"another secret", "acme")).await, "unknown");
    }
    assert_eq!(world.compared(), 0);
    world.elsewhere.hashes.lock().unwrap().remove(&("acme".into(), None));
    pass(MINUTE).await;
    assert_eq!(one.says("acme", &old).await, "unknown");
    // A store of hashes that is away brings nothing back.
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    assert_eq!(world.node("three").await.says("acme", &old).await, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_target_has_one_legacy_token_which_is_made_of_the_secret_and_read_by_others() {
    let world = World { legacy_key: Some(SECRET), ..World::new() };
    let node = world.node("one").await;
    let new = |target: &str| New {
        target: target.into(),
        alias: "old ci".into(),
        scope: Scope::default(),
        life_ms: None,
        format: Some(Format::Legacy),
    };
    let made = node.access.create(new("acme"), "ops").await.unwrap();
    assert_eq!(made.text.expose(), &legacy(SECRET, "acme"));
    assert_eq!(
        world.elsewhere.hashes.lock().unwrap()[&("acme".into(), None)],
        format!("bcrypt:{}", legacy(SECRET, "acme"))
    );
    assert_eq!(node.says("acme", made.text.expose()).await, "good");
    assert_eq!(world.compared(), 0);
    let refused = async |target: &str, said: &str| {
        let error = node.access.create(new(target), "ops").await.unwrap_err();
        assert!(error.kind == ErrorKind::Conflict && error.message.contains(said), "{said}: {error}");
    };
    refused("acme", "is there already").await;
    node.access.revoke(made.record.id, "ops").await.unwrap();
    assert_eq!(node.says("acme", made.text.expose()).await, "revoked");
    refused("acme", "is over").await;
    world.elsewhere.insert("other", None, &legacy(SECRET, "other"));
    refused("other", "was made elsewhere").await;
    // One whose making was cut short before others could read it is finished.
    world.elsewhere.is_away.store(true, Ordering::SeqCst);
    assert_eq!(node.access.create(new("third"), "ops").await.unwrap_err().kind, ErrorKind::StoreUnavailable);
    world.elsewhere.is_away.store(false, Ordering::SeqCst);
    assert_eq!(node.access.create(new("third"), "ops").await.unwrap().text.expose(), &legacy(SECRET, "third"));
    let plain = World::new();
    let node = plain.node("one").await;
    let error = node.access.create(new("acme"), "ops").await.unwrap_err();
    assert!(error.kind == ErrorKind::Unacceptable && error.message.contains("hmac_key"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_has_its_last_counts_written() {
    let (_, one, two) = shadowed().await;
    assert_eq!(two.says("acme", hv2(id(1), PRIVATE).expose()).await, "good");
    two.leave().await;
    let record = one.access.mode().await.unwrap().unwrap();
    assert_eq!(record.count(Compared::BothAccept), 1, "before any second has passed");
}

#[tokio::test(start_paused = true)]
async fn a_legacy_token_that_nobody_has_used_here_is_revoked_by_the_id_that_examples_name() {
    let (world, one, two) = shadowed().await;
    let examples = legacy_id(&LocalCrypto, "cdn", "acme");
    assert_eq!(one.access.revoke_of("other", examples, "ops").await.unwrap_err().kind, ErrorKind::NotFound);
    let taken = one.access.revoke_of("acme", examples, "ops").await.unwrap();
    assert_eq!((taken.format, taken.alias.as_str()), (Format::Legacy, "legacy"));
    assert!(!world.elsewhere.hashes.lock().unwrap().contains_key(&("acme".to_owned(), None)));
    pass(2 * SECOND).await;
    for node in [&one, &two] {
        assert_eq!(node.says("acme", &legacy(SECRET, "acme")).await, "revoked");
        assert_eq!(node.says("other", &legacy(SECRET, "other")).await, "good");
    }
}
