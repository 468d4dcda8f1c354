//! A Cloudflare Worker from this side: the folder that is built for it, and native nodes that share its register.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::post;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::Timestamp;
use keyreeve::engine::memory::Memory;
use keyreeve::engine::wire::{self, REQUEST_BYTES_MAX, SigningKey};
use keyreeve_picky::upstream;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::node::{PROGRAM, Place, http_credential};

const EDGE: &str = r#"
[store]
url = "do:RECORDS"
key = "binding:REGISTER_KEY"
caches = ["cache", "kv:CREDENTIALS"]
[seal]
keys = ["binding:SEAL_KEY"]
[caller.push]
key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
can = ["token"]
credentials = ["*"]
[credential.vendor]
source = "http"
url = "service:RENEWAL/renew"
secret_headers = { authorization = "binding:VENDOR_AUTH" }
[credential.bank]
source = "http"
url = "https://bank.example.org/token"
via = "binding:BANK_CERTIFICATE"
"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Code as `scripts/build-worker` leaves it, as far as a build looks at it.
fn script(place: &Place) -> PathBuf {
    let script = place.path("script");
    fs::create_dir_all(script.join("snippets")).unwrap();
    fs::write(script.join("index.js"), "export default {};\nexport class Keyreeve {}\n").unwrap();
    fs::write(script.join("index_bg.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(script.join("snippets/inline.js"), "export {};\n").unwrap();
    fs::write(script.join(".made-of"), "").unwrap();
    script
}

fn build(place: &Place, config: &str, more: &[&str]) -> Output {
    let path = place.path("edge.toml");
    fs::write(&path, config).unwrap();
    let (script, out) = (script(place), place.path("out"));
    // Nothing of this process's environment is a Worker's.
    Command::new(PROGRAM)
        .args(["build", "worker", "-c"])
        .arg(path)
        .arg("--script")
        .arg(script)
        .arg("--out")
        .arg(out)
        .args(more)
        .env("KEYREEVE__STORE__URL", "memory:")
        .output()
        .unwrap()
}

const BINDS: [&str; 4] = ["--bind", "RENEWAL=renewal-worker", "--bind", "BANK_CERTIFICATE=0f-1e"];

fn all_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(all_files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn a_worker_is_built_as_a_folder_that_wrangler_reads() {
    let place = Place::new();
    let output = build(&place, EDGE, &BINDS);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = place.path("out");
    let said = text(&output.stdout).replace(out.to_str().unwrap(), "OUT");
    insta::assert_snapshot!("a_worker_is_built_and_says_what_to_do_next", said);
    assert_eq!(
        all_files(&out),
        [
            "README.md",
            "config.mjs",
            "keyreeve.toml",
            "keyreeve/index.js",
            "keyreeve/index_bg.wasm",
            "keyreeve/snippets/inline.js",
            "main.mjs",
            "wrangler.jsonc",
        ]
    );
    assert_eq!(fs::read_to_string(out.join("keyreeve.toml")).unwrap(), EDGE);
    insta::assert_snapshot!("a_worker_is_built_for_wrangler", fs::read_to_string(out.join("wrangler.jsonc")).unwrap());
    insta::assert_snapshot!("a_worker_is_built_with_a_readme", fs::read_to_string(out.join("README.md")).unwrap());
}

#[test]
fn what_the_configuration_does_not_name_is_not_bound() {
    let place = Place::new();
    let slots = "[credential.a]\nsource = \"apns\"\nkey = \"binding:APNS_KEY\"\nmode = \"slot\"\nlife.skew = \"10s\"\n\
        params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\n";
    let output = build(&place, slots, &["--name", "slots", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((said["ok"].as_bool(), said["secrets"].to_string().as_str()), (Some(true), "[\"APNS_KEY\"]"));
    let wrangler = |place: &Place| -> Value {
        let text = fs::read_to_string(place.path("out/wrangler.jsonc")).unwrap();
        serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
    };
    let keys = |project: &Value| project.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&wrangler(&place)), ["name", "main", "compatibility_date", "rules", "observability"]);
    // Built again, over the same folder: what was there is gone.
    fs::write(place.path("out/keyreeve/old.js"), "").unwrap();
    let bucket = "store.url = \"r2:RECORDS\"\nseal.keys = [\"binding:S\"]\n[credential.a]\nsource = \"apns\"\nkey = \"binding:K\"\n\
        params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\n";
    let output = build(&place, bucket, &["--bind", "RECORDS=records-eu", "--bind", "S=8f0a/seal-key"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let project = wrangler(&place);
    assert_eq!(project["r2_buckets"], serde_json::json!([{ "binding": "RECORDS", "bucket_name": "records-eu" }]));
    let stored = serde_json::json!([{ "binding": "S", "store_id": "8f0a", "secret_name": "seal-key" }]);
    assert_eq!(project["secrets_store_secrets"], stored);
    let said = text(&output.stdout);
    assert!(said.contains("secret put K\n") && !said.contains("secret put S\n"), "{said}");
    assert_eq!(project["triggers"]["crons"][0], "* * * * *");
    assert!(project.get("migrations").is_none() && !place.path("out/keyreeve/old.js").exists());
}

#[test]
fn a_worker_that_would_not_work_is_not_built() {
    let place = Place::new();
    let said = refused(&build(&place, "store.url = \"sqlite:/a\"\nseal.keys = [\"hunter2\"]\n", &[]));
    assert!(said.contains("cannot be `sqlite:` on a Worker") && said.contains("edge.toml:2)"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(!place.path("out").exists());
    for (more, part) in [
        (
            &[][..],
            "error: nothing stands behind the binding `RENEWAL`\nhint: say the name of another Worker: `--bind RENEWAL=..`",
        ),
        (&["--bind", "RENEWAL=a"], "nothing stands behind the binding `BANK_CERTIFICATE`"),
        (&["--bind", "RENEWAL"], "`--bind RENEWAL` is not `NAME=VALUE`"),
        (&["--bind", "RENEWAL=a\"b"], "`--bind RENEWAL=..` says nothing that can stand behind it"),
        (&["--bind", "SEAL_KEY=hunter2"], "`--bind SEAL_KEY=..` says nothing that can stand behind it"),
        (&["--bind", "RECORDS=a"], "names no binding `RECORDS` that something stands behind"),
        (&["--bind", "RENEWAL=a", "--bind", "RENEWAL=b"], "`--bind RENEWAL=..` is there twice"),
        (&["--name", "My Worker"], "`--name My Worker` is not a name for a Worker"),
    ] {
        let said = refused(&build(&place, EDGE, more));
        assert!(said.contains(part) && said.contains("\nhint: "), "{more:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let absent = [&BINDS[..], &["--script", "/nonexistent"]].concat();
    let output = Command::new(PROGRAM)
        .args(["build", "worker", "-c"])
        .arg(place.path("edge.toml"))
        .arg("--out")
        .arg(place.path("out"))
        .args(&absent)
        .output()
        .unwrap();
    let said = refused(&output);
    assert_eq!(
        said,
        "error: there is no Worker in `/nonexistent`: `index.js` is missing\n\
         hint: `scripts/build-worker` makes it; `--script DIR` says where it is\n"
    );
    // A folder of somebody else's.
    fs::create_dir_all(place.path("out")).unwrap();
    fs::write(place.path("out/wrangler.jsonc"), "{}").unwrap();
    let said = refused(&build(&place, EDGE, &BINDS));
    assert!(said.contains("is there already, and not from an earlier build"), "{said}");
    assert_eq!(fs::read_to_string(place.path("out/wrangler.jsonc")).unwrap(), "{}");
}

#[test]
fn a_configuration_is_checked_for_its_home() {
    let place = Place::new();
    let path = place.path("edge.toml");
    fs::write(&path, EDGE).unwrap();
    let check =
        |more: &[&str]| Command::new(PROGRAM).args(["config", "check", "-c"]).arg(&path).args(more).output().unwrap();
    let good = check(&["--home", "worker"]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert!(text(&good.stdout).ends_with("edge.toml is in order: 2 credentials, 1 callers\n"));
    let bad = check(&[]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("`store.url` cannot be `do:` outside a Worker"), "{}", text(&bad.stderr));
    let explained =
        Command::new(PROGRAM).args(["config", "explain", "--home", "worker", "-c"]).arg(&path).output().unwrap();
    assert!(text(&explained.stdout).contains("store.caches = [cache, kv:CREDENTIALS]"));
}

/// The front of a Worker, as far as native nodes see it.
struct Edge {
    url: String,
    serving: AbortHandle,
}

impl Edge {
    async fn start(key: &str) -> Self {
        let register = Arc::new(Memory::new());
        let key = SigningKey::new(Secret::new(key.as_bytes().to_vec())).unwrap();
        let answer = move |request: Request| {
            let (register, key) = (Arc::clone(&register), key.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, REQUEST_BYTES_MAX).await.unwrap();
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let now = Timestamp(u64::try_from(now.as_millis()).unwrap());
                wire::serve(register.as_ref(), &[key], now, Request::from_parts(head, body)).await.map(Body::from)
            }
        };
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            axum::serve(socket, Router::new().route(wire::PATH, post(answer))).await.unwrap();
        });
        Self { url, serving: serving.abort_handle() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_nodes_share_a_credential_through_a_worker() {
    let issuer = upstream::start(upstream::Config::default()).await.unwrap();
    let place = Place::new();
    let key = "a register key of more than 32 bytes";
    let edge = Edge::start(key).await;
    let seal = format!("[\"file:{}\"]", place.path("seal.key").display());
    let config = place.config_with(&edge.url, &seal, &http_credential(&issuer.mint_url(), ""));
    let right = format!("file:{}", place.secret("register.key", &format!("{key}\n")).display());
    let right = [("KEYREEVE__STORE__KEY", right.as_str())];
    let doctor = |environment: &[(&str, &str)]| {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["doctor", "-c"]).arg(&config).envs(environment.iter().copied()).output();
        text(&output.unwrap().stdout)
    };

    let one = place.node(&config, "one", &right);
    let two = place.node(&config, "two", &right);
    assert_eq!(one.token_text("up").await, "t-1");
    assert_eq!(two.token_text("up").await, "t-1");
    let said = doctor(&right);
    assert!(said.contains(&format!("the register behind `{}` is asked for each record", edge.url)), "{said}");
    assert!(said.contains("up: ready, generation 1") && said.ends_with("0 to put right\n"), "{said}");

    // Another key opens nothing, and a node that has it mints nothing.
    let wrong = format!("file:{}", place.secret("other.key", "another key of more than 32 bytes").display());
    let wrong = [("KEYREEVE__STORE__KEY", wrong.as_str())];
    let said = doctor(&wrong);
    assert!(said.contains("answered 401 without a right signature: is `store.key` the same on both sides?"), "{said}");

    // The Worker is away: what is held is served on.
    edge.serving.abort();
    assert_eq!(one.token_text("up").await, "t-1");
    let said = doctor(&right);
    assert!(said.contains("FAIL  up: ") && said.contains("the Worker was not reached"), "{said}");

    let short = format!("file:{}", place.secret("short.key", "short").display());
    let output =
        Command::new(PROGRAM).args(["serve", "-c"]).arg(&config).env("KEYREEVE__STORE__KEY", short).output().unwrap();
    let said = refused(&output);
    assert!(
        said.contains("error: `store.key`: the key is too short to sign with: 5 bytes are less than 32\nhint: "),
        "{said}"
    );
}
