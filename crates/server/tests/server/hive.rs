//! An installation of GraphQL Hive, made by PostgreSQL's own cryptography, is taken over: its database, its bucket, its tokens.

use std::path::PathBuf;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::access::config;
use crate::node::{PROGRAM, Place};
use crate::private::Private;

const SECRET: &str = "the secret of the old service";
/// Three targets with four keys each, and a legacy token each. `pgcrypto` is what hashes them: nothing of ours.
const MADE: &str = "CREATE EXTENSION pgcrypto; \
    CREATE TABLE cdn_access_tokens (id uuid PRIMARY KEY, target_id uuid NOT NULL, s3_key text NOT NULL UNIQUE, \
        first_characters text NOT NULL, last_characters text NOT NULL, alias text NOT NULL, created_at timestamptz NOT NULL); \
    CREATE TABLE made AS SELECT gen_random_uuid() AS id, ('00000000-0000-4000-8000-00000000000' || n % 3)::uuid AS target, \
        encode(gen_random_bytes(16), 'hex') AS private, n FROM generate_series(1, 12) AS n; \
    INSERT INTO cdn_access_tokens SELECT id, target, 'cdn-keys/' || target || '/' || id, left(private, 5), right(private, 5), \
        'key ' || n, now() - n * interval '1 day' FROM made; \
    GRANT SELECT ON cdn_access_tokens TO keyreeve";

struct World {
    database: Private,
    bucket: Private,
    place: Place,
    /// Target, token, id, name of the hash.
    keys: Vec<[String; 4]>,
    /// Target and token.
    legacy: Vec<[String; 2]>,
}

fn world() -> World {
    let database = Private::start("postgres.py", &[]);
    database.tell("sql CREATE DATABASE hive");
    database.tell(&format!("in hive {MADE}"));
    let bucket = Private::start("s3.py", &["--bucket", "artifacts"]);
    let rows = |sql: &str| -> Vec<Value> {
        serde_json::from_str(&database.ask(&format!("ask hive SELECT json_agg(row_to_json(r)) FROM ({sql}) AS r")))
            .unwrap()
    };
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let mut keys = Vec::new();
    for row in rows("SELECT id, target, private, crypt(private, gen_salt('bf', 10)) AS hash FROM made ORDER BY n") {
        let [id, target, private] = ["id", "target", "private"].map(|name| text(&row, name));
        let name = format!("cdn-keys/{target}/{id}");
        let hash = text(&row, "hash");
        assert!(hash.starts_with("$2a$10$"), "{hash}");
        bucket.tell(&format!("put artifacts {name} {hash}"));
        keys.push([target, format!("hv2{}", STANDARD.encode(format!("{id}:{private}"))), id, name]);
    }
    let mut legacy = Vec::new();
    let made = format!(
        "SELECT target, token, crypt(token, gen_salt('bf', 10)) AS hash FROM (SELECT DISTINCT target, \
         encode(hmac(target::text, '{SECRET}', 'sha256'), 'base64') AS token FROM made) AS t ORDER BY target"
    );
    for row in rows(&made) {
        let [target, token, hash] = ["target", "token", "hash"].map(|name| text(&row, name));
        bucket.tell(&format!("put artifacts cdn-legacy-keys/{target} {hash}"));
        bucket.tell(&format!(
            "put artifacts artifact/{target}/sdl type Query {{ of: Target{} }}",
            target.chars().next_back().unwrap()
        ));
        legacy.push([target, token]);
    }
    World { database, bucket, place: Place::new(), keys, legacy }
}

impl World {
    fn config(&self) -> PathBuf {
        let key = self.place.secret("s3.key", self.bucket.text("secret_access_key"));
        let [endpoint, region, account] = ["endpoint", "region", "access_key_id"].map(|name| self.bucket.text(name));
        config(
            &self.place,
            &format!(
                "format = \"hv2\"\nhashes = \"hive\"\n[objects.hive]\nurl = \"s3://artifacts\"\nendpoint = \"{endpoint}\"\n\
                 region = \"{region}\"\naccount = \"{account}\"\nkey = \"file:{}\"\n\
                 [gate.hive]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"hive\"]\ncompat = \"hive\"\n",
                key.display()
            ),
        )
    }

    fn import(&self, secret: &str, more: &[&str]) -> Output {
        let secret = format!("file:{}", self.place.secret("legacy.secret", secret).display());
        let database = self.database.text("url").replace("@/keyreeve?", "@/hive?");
        Command::new(PROGRAM)
            .args(["import", "hive", "--json", "--postgres", &database, "--legacy-secret", &secret, "-c"])
            .arg(self.config())
            .args(more)
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// A dry run with a wrong secret, one with the right one, and twice in earnest.
fn take_over(world: &World) {
    // Somebody has taken one hash away, and one key is in no list.
    world.bucket.tell(&format!("delete artifacts {}", world.keys[0][3]));
    let [target, _, id, _] = &world.keys[1];
    world.database.tell(&format!("in hive DELETE FROM cdn_access_tokens WHERE id = '{id}'"));

    let wrong = world.import("another secret", &["--dry-run"]);
    assert_eq!(wrong.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(complaint.contains("3 of 3 legacy hashes were made with another secret"), "{complaint}");
    assert!(!complaint.contains("another secret\n") && !complaint.contains(SECRET));
    let refused = world.import("another secret", &[]);
    assert_eq!(
        (refused.status.code(), said(&refused)["adopted"].as_u64()),
        (Some(1), Some(0)),
        "nothing is taken over"
    );

    let dry = world.import(SECRET, &["--dry-run"]);
    let counts = said(&dry);
    assert_eq!(dry.status.code(), Some(0), "{counts}");
    let missing = format!("{}/{}", world.keys[0][0], world.keys[0][2]);
    let expected = json!({
        "rows": 11, "unreadable_rows": 0, "legacy_hashes": 3, "rows_without_hash": [missing],
        "hashes_without_row": [format!("{target}/{id}")], "strange_objects": 0, "legacy_sampled": 3, "legacy_wrong": [],
        "adopted": 0, "known": 0, "dry_run": true,
    });
    assert_eq!(counts, expected);
    assert_eq!(said(&world.import(SECRET, &[]))["adopted"], 10);
    let again = said(&world.import(SECRET, &[]));
    assert_eq!((again["adopted"].as_u64(), again["known"].as_u64()), (Some(0), Some(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_hive_is_taken_over_and_its_tokens_work_for_as_long_as_it_keeps_their_hashes() {
    let world = world();
    take_over(&world);
    let mut node = world.place.node(&world.config(), "one", &[]);
    node.wait_until_listening();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let ask = async |gate: &str, target: &str, token: &str| {
        let url = format!("{gate}/artifacts/v1/{target}/sdl");
        let got = client.get(url).header("x-hive-cdn-key", token).send().await.unwrap();
        (got.status().as_u16(), got.text().await.unwrap())
    };
    let gate = node.urls()[1].clone();
    let all = world.keys.iter().skip(1).map(|[target, token, ..]| (target, token));
    for (target, token) in all.chain(world.legacy.iter().map(|[target, token]| (target, token))) {
        // The second time by a hash of ours.
        for _ in 0..2 {
            let (status, body) = ask(&gate, target, token).await;
            assert_eq!(
                (status, body),
                (200, format!("type Query {{ of: Target{} }}", target.chars().next_back().unwrap()))
            );
        }
        let other = world.legacy.iter().find(|[other, _]| other != target).unwrap();
        assert_eq!(ask(&gate, &other[0], token).await.0, 403, "a token is for its target");
    }
    let [target, token, ..] = &world.keys[0];
    assert_eq!(ask(&gate, target, token).await.0, 403, "its hash is gone");
    let (status, list) = node.get(&format!("/v1/tokens?target={}", world.keys[2][0])).await;
    assert_eq!(status, 200, "{list}");
    let aliases: Vec<_> =
        list["tokens"].as_array().unwrap().iter().filter_map(|token| token["alias"].as_str()).collect();
    assert!(["key 3", "key 6", "key 9", "key 12"].iter().all(|alias| aliases.contains(alias)), "{list}");

    // What Hive takes back is refused, also where a hash of ours is there: seen by a node that has not seen it lately.
    world.bucket.tell(&format!("delete artifacts {}", world.keys[2][3]));
    world.bucket.tell(&format!("delete artifacts cdn-legacy-keys/{}", world.legacy[0][0]));
    let mut two = world.place.node(&world.config(), "two", &[]);
    two.wait_until_listening();
    let gate = two.urls()[1].clone();
    assert_eq!(ask(&gate, &world.keys[2][0], &world.keys[2][1]).await.0, 403);
    assert_eq!(ask(&gate, &world.legacy[0][0], &world.legacy[0][1]).await.0, 403);
    assert_eq!(ask(&gate, &world.keys[3][0], &world.keys[3][1]).await.0, 200);
    // A bucket that says nothing is no reason to refuse what a hash of ours is known for, and none to let in what is new.
    world.bucket.tell("status 403");
    let (status, verdict) =
        two.post("/v1/tokens/verify", json!({ "token": world.keys[4][1], "target": world.keys[4][0] })).await;
    assert_eq!((status, verdict["valid"].as_bool()), (200, Some(true)), "{verdict}");
    let unknown = format!("hv2{}", STANDARD.encode("9b2f3b1e-1c1d-4e1f-8a1b-0c1d2e3f4a5b:0123456789abcdef"));
    assert_eq!(ask(&gate, &world.keys[4][0], &unknown).await.0, 503);
    world.bucket.tell("go");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_made_here_is_one_that_hive_takes() {
    let world = world();
    let node = world.place.node(&world.config(), "one", &[]);
    let target = &world.keys[0][0];
    let (status, made) = node.post("/v1/tokens", json!({ "target": target, "alias": "made here" })).await;
    assert_eq!(status, 201, "{made}");
    let plain = STANDARD.decode(made["token"].as_str().unwrap().strip_prefix("hv2").unwrap()).unwrap();
    let plain = String::from_utf8(plain).unwrap();
    let (id, private) = plain.split_once(':').unwrap();
    let hash = world.bucket.ask(&format!("get artifacts cdn-keys/{target}/{id}"));
    assert!(hash.starts_with("$2a$10$"), "{hash}");
    let compared = world.database.ask(&format!("ask hive SELECT crypt('{private}', '{hash}') = '{hash}'"));
    assert_eq!(compared, "t", "PostgreSQL's bcrypt finds it right");
    let (status, _) = node.post(&format!("/v1/tokens/{id}/revoke"), Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(
        world.bucket.ask(&format!("get artifacts cdn-keys/{target}/{id}")),
        "none",
        "revoked for Hive's workers too"
    );
}
