//! From GraphQL Hive to keyreeve, as the guide has it: a dry run, a shadow, ten thousand requests, a difference, and the end of
//! Hive's say. The installation is made by PostgreSQL, and its tokens and hashes by Python.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::access::config;
use crate::node::{Node, PROGRAM, Place, unix_ms, until};
use crate::private::Private;

const SECRET: &str = "the-secret-of-the-old-service";
const TARGETS: usize = 8;
const KEYS: usize = 24;
const REQUESTS: usize = 10_000;
/// How many requests are on their way at once.
const AT_ONCE: usize = 64;
const FIRST_AT_ONCE: usize = 4;
const TABLES: &str = "CREATE TABLE targets (id uuid PRIMARY KEY); \
    CREATE TABLE cdn_access_tokens (id uuid PRIMARY KEY, target_id uuid NOT NULL, s3_key text NOT NULL UNIQUE, \
        first_characters text NOT NULL, last_characters text NOT NULL, alias text NOT NULL, created_at timestamptz NOT NULL); \
    GRANT SELECT ON targets, cdn_access_tokens TO keyreeve";

/// How much faster than real time a clock runs for what takes a minute.
const SCALE: u64 = 4;

/// A key of Hive's.
struct Key {
    target: String,
    id: String,
    token: String,
}

struct World {
    database: Private,
    bucket: Private,
    place: Place,
    keys: Vec<Key>,
    /// Target and token.
    legacy: Vec<(String, String)>,
}

fn uuid(first: usize, last: usize) -> String {
    format!("{first:08x}-0000-4000-8000-{last:012x}")
}

fn world() -> World {
    let (database, bucket) = (Private::start("postgres.py", &[]), Private::start("s3.py", &["--bucket", "artifacts"]));
    let python = Private::start("hashes.py", &[]);
    database.tell("sql CREATE DATABASE hive");
    database.tell(&format!("in hive {TABLES}"));
    let (mut keys, mut legacy) = (Vec::new(), Vec::new());
    for n in 0..TARGETS {
        let target = uuid(1, n);
        database.tell(&format!("in hive INSERT INTO targets VALUES ('{target}')"));
        bucket.tell(&format!("put artifacts artifact/{target}/sdl type Query {{ of: Target{n} }}"));
        let token = python.ask(&format!("legacy {SECRET} {target}"));
        let hash = python.ask(&format!("hash {token}"));
        bucket.tell(&format!("put artifacts cdn-legacy-keys/{target} {hash}"));
        legacy.push((target, token));
    }
    for n in 0..KEYS {
        let (id, target) = (uuid(2, n), uuid(1, n % TARGETS));
        // As short as Hive makes them by chance, and as long.
        let private = format!("{:x}", (n as u128 + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060);
        let (private, _) = private.split_at(if n == 0 { 10 } else { 24 });
        let hash = python.ask(&format!("hash {private}"));
        assert!(hash.starts_with("$2a$10$"), "{hash}");
        let name = format!("cdn-keys/{target}/{id}");
        bucket.tell(&format!("put artifacts {name} {hash}"));
        let (first, last) = (private.split_at(5).0, private.split_at(private.len() - 5).1);
        database.tell(&format!(
            "in hive INSERT INTO cdn_access_tokens VALUES ('{id}', '{target}', '{name}', '{first}', '{last}', 'key {n}', now())"
        ));
        keys.push(Key { target, token: python.ask(&format!("key {id} {private}")), id });
    }
    World { database, bucket, place: Place::new(), keys, legacy }
}

impl World {
    /// The guide's configuration, with this as the secret of legacy tokens.
    fn config(&self, secret: &str) -> PathBuf {
        let key = self.place.secret("s3.key", self.bucket.text("secret_access_key"));
        let secret = self.place.secret("legacy.secret", secret);
        let [endpoint, region, account] = ["endpoint", "region", "access_key_id"].map(|name| self.bucket.text(name));
        config(
            &self.place,
            &format!(
                "format = \"hv2\"\nhashes = \"hive\"\nlegacy = {{ hmac_key = \"file:{}\" }}\n\
                 [objects.hive]\nurl = \"s3://artifacts\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n\
                 account = \"{account}\"\nkey = \"file:{}\"\n\
                 [gate.hive]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"hive\"]\ncompat = \"hive\"\n",
                secret.display(),
                key.display()
            ),
        )
    }

    fn database_url(&self) -> String {
        self.database.text("url").replace("@/keyreeve?", "@/hive?")
    }

    fn run(&self, config: &PathBuf, words: &[&str], option: &str) -> (i32, Value, String) {
        let output = Command::new(PROGRAM)
            .args(words)
            .args(["--json", option, &self.database_url(), "-c"])
            .arg(config)
            .output()
            .unwrap();
        let (said, complaint) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let said = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}\n{complaint}"));
        (output.status.code().unwrap(), said, complaint)
    }

    fn node(&self, secret: &str, name: &str) -> Node {
        self.node_with(secret, name, &[])
    }

    fn node_with(&self, secret: &str, name: &str, environment: &[(&str, &str)]) -> Node {
        let mut node = self.place.node(&self.config(secret), name, environment);
        node.wait_until_listening();
        node
    }

    /// Tokens of every kind with their targets, and whether Hive lets them through.
    fn mix(&self) -> Vec<(String, String, bool)> {
        let mut mix = Vec::new();
        let other = |target: &str| self.legacy.iter().find(|(other, _)| other != target).unwrap().0.clone();
        for Key { target, token, .. } in &self.keys {
            mix.push((target.clone(), token.clone(), true));
            mix.push((other(target), token.clone(), false));
        }
        for (target, token) in &self.legacy {
            mix.push((target.clone(), token.clone(), true));
            mix.push((other(target), token.clone(), false));
            mix.push((target.clone(), "nonsense".to_owned(), false));
        }
        mix
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

async fn ask(client: &reqwest::Client, node: &Node, target: &str, token: &str) -> u16 {
    let url = format!("{}/artifacts/v1/{target}/sdl", node.urls()[1]);
    client.get(url).header("x-hive-cdn-key", token).send().await.unwrap().status().as_u16()
}

/// Asks `count` times, a token after the other, and says how often each answer came.
async fn requests(node: &Node, mix: &[(String, String, bool)], count: usize) -> (usize, usize) {
    let (client, accepted, refused) = (client(), AtomicUsize::new(0), AtomicUsize::new(0));
    let asked = async |(target, token, is_good): &(String, String, bool)| {
        let status = ask(&client, node, target, token).await;
        assert_eq!(status, if *is_good { 200 } else { 403 }, "{target} {token}\n{}", node.log_text());
        if *is_good { &accepted } else { &refused }.fetch_add(1, Ordering::Relaxed);
    };
    // Each for the first time, which takes bcrypt; then all of them, which does not.
    let first = mix.len().min(count);
    stream::iter(mix).map(&asked).buffer_unordered(FIRST_AT_ONCE).collect::<Vec<()>>().await;
    let more = stream::iter(mix.iter().cycle().take(count - first)).map(&asked);
    more.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    (accepted.into_inner(), refused.into_inner())
}

async fn mode(node: &Node) -> Value {
    let (status, mode) = node.get("/v1/tokens/mode").await;
    assert_eq!(status, 200, "{mode}");
    mode
}

fn set(place: &Place, node: &Node, words: &[&str]) -> (String, i32) {
    let (said, complaint, code) = place.cli(node, &[&["token", "mode"], words].concat());
    (said + &complaint, code)
}

/// A dry run with a wrong secret, and the right one; then in earnest.
fn take_over(world: &World) {
    let wrong = world.config("another-secret");
    let (code, said, complaint) = world.run(&wrong, &["import", "hive", "--dry-run"], "--postgres");
    assert!(code == 1 && complaint.contains("8 of 8 legacy hashes were made with another secret"), "{complaint}");
    assert_eq!(said["legacy_wrong"].as_array().unwrap().len(), TARGETS);
    let (code, said, _) = world.run(&wrong, &["doctor"], "--hive-postgres");
    assert!(code == 1 && said.to_string().contains("8 of 8 legacy hashes were made with another secret"), "{said}");
    let right = world.config(SECRET);
    assert_eq!(world.run(&right, &["import", "hive", "--dry-run"], "--postgres").0, 0);
    let (code, said, _) = world.run(&right, &["import", "hive"], "--postgres");
    assert_eq!((code, said["adopted"].as_u64()), (0, Some(KEYS as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_shadowed_by_ten_thousand_requests_refused_while_verdicts_differ_and_enforced() {
    let world = world();
    take_over(&world);
    let mix = world.mix();

    // The verdicts are the same, ten thousand times.
    let node = world.node(SECRET, "one");
    let (said, code) = set(&world.place, &node, &["enforce"]);
    assert!(code != 0 && said.contains("is not in `shadow`"), "{said}");
    assert_eq!(set(&world.place, &node, &["shadow"]).1, 0);
    let (accepted, refused) = requests(&node, &mix, REQUESTS).await;
    let counted = mode(&node).await;
    assert_eq!(accepted + refused, REQUESTS);
    assert_eq!(
        (&counted["accepted_by_both"], &counted["refused_by_both"], &counted["disagree"], &counted["not_compared"]),
        (&json!(accepted), &json!(refused), &json!(0), &json!(0)),
        "{counted}"
    );
    let metrics = node.metrics().await;
    let line = format!("keyreeve_access_shadow_total{{family=\"cdn\",outcome=\"agree.accepted\"}} {accepted}");
    assert!(metrics.contains(&line), "{line}");

    // With a wrong secret ours refuses what Hive lets through: the client does not notice, and nothing is enforced.
    drop(node);
    let node = world.node("another-secret", "one");
    assert_eq!(set(&world.place, &node, &["shadow"]).1, 0);
    requests(&node, &mix, mix.len()).await;
    let (said, code) = set(&world.place, &node, &["enforce"]);
    assert_eq!(code, 6, "{said}");
    for part in ["8 old_accepts_new_refuses.wrong_secret", &world.legacy[0].0, "`legacy.hmac_key`", "`--force`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (said, _) = set(&world.place, &node, &[]);
    assert!(said.contains("wrong_secret") && said.contains("seen at"), "{said}");
    assert!(!said.contains(&world.legacy[0].1) && !said.contains("another-secret"));

    // With the right one again ours counts, on every node.
    drop(node);
    let (node, two) = (world.node(SECRET, "one"), world.node(SECRET, "two"));
    assert_eq!(set(&world.place, &node, &["shadow"]).1, 0);
    requests(&node, &mix, mix.len()).await;
    let (said, code) = set(&world.place, &node, &["enforce"]);
    assert!(code == 0 && said.contains("enforce"), "{said}");
    until("the other node follows", async || (mode(&two).await["mode"] == "enforce").then_some(())).await;
    for node in [&node, &two] {
        requests(node, &mix, mix.len()).await;
    }
    taken_back(&world).await;
}

/// What Hive takes back is refused within the minute that the guide states: at once by a node that has not seen it.
async fn taken_back(world: &World) {
    let (key, (target, token)) = (&world.keys[3], &world.legacy[4]);
    let client = client();
    // Its minute is a quarter of one.
    let clock = format!("epoch={},scale={SCALE}", unix_ms());
    let seen = world.node_with(SECRET, "seen", &[("KEYREEVE_TEST_CLOCK", clock.as_str())]);
    let ask_both = async |node: &Node| {
        [ask(&client, node, &key.target, &key.token).await, ask(&client, node, target, token).await]
    };
    assert_eq!(ask_both(&seen).await, [200, 200]);
    world.bucket.tell(&format!("delete artifacts cdn-keys/{}/{}", key.target, key.id));
    world.bucket.tell(&format!("delete artifacts cdn-legacy-keys/{target}"));
    let started = Instant::now();
    let three = world.node(SECRET, "three");
    assert_eq!(ask_both(&three).await, [403, 403]);
    assert_eq!(ask(&client, &three, &world.keys[4].target, &world.keys[4].token).await, 200);
    until("it is refused where it was seen", async || (ask_both(&seen).await == [403, 403]).then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(60 / SCALE + 5), "{:?}", started.elapsed());
    let shown = three.get(&format!("/v1/tokens/{}", world.keys[0].id)).await.1;
    let shown = shown["shown"].as_str().unwrap().to_owned();
    assert_eq!(shown.split("..").map(str::len).collect::<Vec<_>>(), [2, 2], "four of ten digits: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_on_one_side_only_and_what_targets_leave_behind() {
    let world = world();
    take_over(&world);
    let node = world.node(SECRET, "one");
    let config = world.config(SECRET);
    let findings = || world.run(&config, &["doctor"], "--hive-postgres");
    let (code, said, _) = findings();
    assert!(code == 0 && said.to_string().contains("8 legacy hashes of 8 are of `legacy.hmac_key`"), "{said}");
    // A hash without a row and without a token, a row without a hash, a deleted target of Hive's, one of ours, and a hash that
    // somebody has put back.
    let [gone, revoked] = [&world.keys[7], &world.keys[8]];
    world.bucket.tell(&format!("put artifacts cdn-keys/{}/{} x", uuid(1, 0), uuid(9, 9)));
    world.bucket.tell(&format!("delete artifacts cdn-keys/{}/{}", gone.target, gone.id));
    world.database.tell(&format!("in hive DELETE FROM targets WHERE id = '{}'", uuid(1, 5)));
    assert_eq!(node.post("/v1/tokens/drop-target", json!({ "target": uuid(1, 6) })).await.0, 200);
    assert_eq!(node.post(&format!("/v1/tokens/{}/revoke", revoked.id), Value::Null).await.0, 200);
    world.bucket.tell(&format!("put artifacts cdn-keys/{}/{} x", revoked.target, revoked.id));
    let (code, said, _) = findings();
    let said = said.to_string();
    assert_eq!(code, 1, "{said}");
    for part in [
        format!(
            "1 hashes have no token here: they open their target, and no list shows them: {}/{}",
            uuid(1, 0),
            uuid(9, 9)
        ),
        format!(
            "1 hashes have no row in Hive: their tokens work, and Hive shows them to nobody: {}/{}",
            uuid(1, 0),
            uuid(9, 9)
        ),
        format!("1 tokens have lost their hash, and are refused: {}/{}", gone.target, gone.id),
        format!(
            "1 hashes are of tokens that are over here, and Hive's workers take them: {}/{}",
            revoked.target, revoked.id
        ),
        format!("1 targets are deleted in Hive, and their hashes stay: their tokens still open them: {}", uuid(1, 5)),
        format!("1 targets have no token left, and artifacts still: {}", uuid(1, 6)),
        // That one, and the three of the dropped target.
        "4 rows of Hive's have no hash".to_owned(),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_hashes_that_are_made_here_are_right_for_python_and_the_other_way_round() {
    let world = world();
    let python = Private::start("hashes.py", &[]);
    let node = world.node(SECRET, "one");
    let client = client();
    // Theirs, here.
    assert_eq!(ask(&client, &node, &world.keys[0].target, &world.keys[0].token).await, 200);
    assert_eq!(ask(&client, &node, &world.legacy[0].0, &world.legacy[0].1).await, 200);
    // Ours, there: keys, and the legacy token of a target that has none.
    let target = uuid(1, 0);
    let make = async |body: Value| {
        let (status, made) = node.post("/v1/tokens", body).await;
        assert_eq!(status, 201, "{made}");
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let (id, token) = make(json!({ "target": target, "alias": "made here" })).await;
    let plain = String::from_utf8(STANDARD.decode(token.strip_prefix("hv2").unwrap()).unwrap()).unwrap();
    let private = plain.strip_prefix(&format!("{id}:")).unwrap();
    let hash = world.bucket.ask(&format!("get artifacts cdn-keys/{target}/{id}"));
    assert!(hash.starts_with("$2a$10$") && hash.len() == 60, "{hash}");
    assert_eq!(python.ask(&format!("is {private} {hash}")), "yes");
    assert_eq!(python.ask(&format!("is {private}0 {hash}")), "no");
    assert_eq!(python.ask(&format!("key {id} {private}")), token);
    let fresh = uuid(1, 99);
    let (_, token) = make(json!({ "target": fresh, "alias": "old way", "format": "legacy" })).await;
    assert_eq!(python.ask(&format!("legacy {SECRET} {fresh}")), token);
    let hash = world.bucket.ask(&format!("get artifacts cdn-legacy-keys/{fresh}"));
    assert_eq!(python.ask(&format!("is {token} {hash}")), "yes");
    let (status, refused) = node.post("/v1/tokens", json!({ "target": fresh, "alias": "x", "format": "legacy" })).await;
    assert_eq!(status, 409, "{refused}");
}
