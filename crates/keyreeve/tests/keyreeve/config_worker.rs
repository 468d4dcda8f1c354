//! The configuration of a Worker: what it means, and what is said about each mistake.

use std::collections::BTreeMap;

use keyreeve::config::{
    Bindings, CacheTier, Config, ConfigRead, Home, Problems, ReadOptions, SecretRef, Severity, SourceConfig, StoreUrl,
};
use keyreeve::port::Via;

const AT_HOME: ReadOptions = ReadOptions { allow_literals: false, home: Home::Worker };

const EDGE: &str = r#"
[store]
url = "do:KEYREEVE"
key = "binding:REGISTER_KEY"
old_key = "binding:REGISTER_KEY_OLD"
caches = ["cache", "kv:CREDENTIALS"]
[seal]
keys = ["binding:SEAL_KEY"]
[caller.push]
key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
can = ["token"]
credentials = ["*"]
[credential.apns-prod]
source = "apns"
key = "binding:APNS_KEY"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
[credential."acme/vendor"]
source = "http"
url = "service:RENEWAL/renew/{generation}?x=1"
secret_headers = { authorization = "binding:VENDOR_AUTH" }
mode = "exclusive"
life = { max = "1h", min_interval = "20m", lead = "30m" }
[credential.bank]
source = "http"
url = "https://bank.example.org/token"
via = "binding:BANK_CERTIFICATE"
"#;

fn read(text: &str) -> Result<ConfigRead, Problems> {
    Config::read(text, "edge.toml", &BTreeMap::new(), AT_HOME)
}

fn names(all: &[&str]) -> std::collections::BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_worker_is_read_whole_and_its_bindings_are_named() {
    let read = read(EDGE).unwrap_or_else(|problems| panic!("{problems}"));
    let config = &read.config;
    assert_eq!(config.store, StoreUrl::DurableObject("KEYREEVE".into()));
    assert_eq!(config.store_key, Some(SecretRef::Binding("REGISTER_KEY".into())));
    assert_eq!(config.store_old_key, Some(SecretRef::Binding("REGISTER_KEY_OLD".into())));
    assert_eq!(config.caches, [CacheTier::Cache, CacheTier::Kv("CREDENTIALS".into())]);
    assert!(config.listeners.is_empty());
    // Durable Objects keep what exclusive mode needs; its lead is short for its own reasons.
    assert!(read.warnings.iter().all(|it| it.setting.ends_with(".life.lead")), "{:?}", read.warnings);
    let bank = &config.credentials["bank"];
    let SourceConfig::Http { url, .. } = &bank.source else { panic!("a service") };
    assert_eq!(url.as_str(), "https://bank.example.org/token");
    assert_eq!(bank.via, Some(Via::Binding("BANK_CERTIFICATE".into())));
    assert_eq!(
        config.bindings(),
        Bindings {
            durable_object: Some("KEYREEVE".into()),
            bucket: None,
            kv: Some("CREDENTIALS".into()),
            services: names(&["RENEWAL"]),
            certificates: names(&["BANK_CERTIFICATE"]),
            secrets: names(&["APNS_KEY", "REGISTER_KEY", "REGISTER_KEY_OLD", "SEAL_KEY", "VENDOR_AUTH"]),
        }
    );
}

#[test]
fn what_a_worker_uses_without_being_told_is_explained_and_what_it_lacks_is_not() {
    let text = "seal.keys = [\"binding:S\"]\n[credential.a]\nsource = \"http\"\nurl = \"service:RENEWAL/renew\"\n";
    let read = read(text).unwrap();
    assert_eq!(read.config.store, StoreUrl::DurableObject("KEYREEVE".into()));
    assert_eq!(read.config.caches, [CacheTier::Cache]);
    let lines: Vec<String> =
        read.explained.iter().map(|it| format!("{} = {}  ({})", it.path, it.value, it.origin)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn slots_need_no_store_and_so_no_binding_but_the_key() {
    let text = "[credential.a]\nsource = \"apns\"\nkey = \"binding:APNS_KEY\"\nmode = \"slot\"\n\
        params = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\nlife.skew = \"10s\"\n";
    let config = read(text).unwrap().config;
    assert!(!config.needs_store());
    assert_eq!(config.bindings(), Bindings { secrets: names(&["APNS_KEY"]), ..Bindings::default() });
}

#[test]
fn a_bucket_is_a_register_and_no_cache_is_a_choice() {
    let text = EDGE.replace("do:KEYREEVE", "r2:RECORDS").replace("[\"cache\", \"kv:CREDENTIALS\"]", "[]");
    let config = read(&text).unwrap().config;
    assert_eq!((&config.store, config.caches.len()), (&StoreUrl::Bucket("RECORDS".into()), 0));
    let bindings = config.bindings();
    assert_eq!((bindings.bucket.as_deref(), bindings.durable_object, bindings.kv), (Some("RECORDS"), None, None));
}

#[test]
fn a_native_node_reaches_a_worker_by_its_origin() {
    for (written, meant) in [
        ("https://keyreeve.example.org", "https://keyreeve.example.org"),
        ("https://keyreeve.example.org:8443/", "https://keyreeve.example.org:8443"),
        ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
    ] {
        let text = format!("store = {{ url = \"{written}\", key = \"env:REGISTER_KEY\" }}\n");
        let config = Config::read(&text, "node.toml", &BTreeMap::new(), ReadOptions::default()).unwrap().config;
        assert_eq!(config.store, StoreUrl::Remote(meant.into()));
        assert_eq!((config.store.to_string().as_str(), config.caches.len()), (meant, 0));
        assert_eq!(config.store_key, Some(SecretRef::Env("REGISTER_KEY".into())));
    }
}

#[test]
fn a_key_that_signs_nothing_is_pointed_out() {
    let read =
        Config::read("store.key = \"env:KEY\"\n", "node.toml", &BTreeMap::new(), ReadOptions::default()).unwrap();
    assert!(
        read.warnings[0].to_string().starts_with(
            "warning: `store.key` has no effect: only a register at an `https` address asks for it (node.toml:1)\n"
        ),
        "{:?}",
        read.warnings
    );
}

/// What is said about a mistake, after the rules that hold for every message.
fn said(text: &str) -> String {
    let Err(problems) = read(text) else { panic!("this was read: {text}") };
    for problem in &problems {
        assert_eq!(problem.severity, Severity::Error);
        assert!(!problem.hint.is_empty(), "no hint: {problem}");
        assert_eq!(problem.to_string().lines().count(), 2, "{problem}");
        assert!(!problem.to_string().contains("hunter2"), "a secret is shown: {problem}");
    }
    problems.to_string()
}

macro_rules! mistakes {
    ($($name:ident: $text:expr;)+) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), said($text));
        }
    )+};
}

mistakes! {
    a_file_as_the_register_of_a_worker: "store.url = \"sqlite:/var/lib/keyreeve/state.db\"\n";
    memory_as_the_register_of_a_worker: "store.url = \"memory:\"\n";
    another_worker_as_the_register_of_a_worker: "store.url = \"https://keyreeve.example.org\"\n";
    a_kv_namespace_as_a_register: "store.url = \"kv:CREDENTIALS\"\n";
    a_store_that_no_worker_has: "store.url = \"mysql://me:hunter2@db\"\n";
    a_store_of_a_later_worker: "store.url = \"postgres://me:hunter2@db\"\n";
    a_durable_object_without_a_name: "store.url = \"do:\"\n";
    a_bucket_with_a_strange_name: "store.url = \"r2:my-bucket\"\n";
    caches_nobody_knows: "store.caches = [\"redis\", \"kv:my kv\"]\n";
    a_cache_that_is_there_twice: "store.caches = [\"cache\", \"cache\"]\n";
    more_caches_than_there_are: "store.caches = [\"cache\", \"kv:A\", \"kv:B\"]\n";
    an_old_key_alone: "store.old_key = \"binding:OLD\"\n";
    an_old_key_that_is_the_new_one: "store = { key = \"binding:KEY\", old_key = \"binding:KEY\" }\n";
    secrets_that_no_worker_can_read: "store.key = \"name-in:WHICH\"\nseal.keys = [\"file:/etc/keyreeve/seal.key\", \"env:SEAL_KEY\", \"hunter2\"]\n";
    settings_of_a_native_node: "clock.url = \"https://api.github.com/\"\nlimits.connections = 5\n[[listener]]\nbind = \"127.0.0.1:7070\"\n[caller.push]\nuid = 1000\ncan = [\"metrics\"]\n";
    a_script_on_a_worker: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"exec\"\ncommand = [\"/bin/mint\"]\n";
    a_service_without_a_path: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"service:RENEWAL\"\n";
    a_service_with_a_strange_name: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"service:re-new/hunter2\"\n";
    a_service_with_a_strange_path: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"service:RENEWAL/a b#c\"\n";
    a_certificate_for_a_service: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"service:RENEWAL/renew\"\nvia = \"binding:CERTIFICATE\"\n";
    a_certificate_that_is_no_binding: "seal.keys = [\"binding:S\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"https://a.example.org\"\nvia = \"file:/etc/client.pem\"\n";
    one_binding_for_two_things: "store.url = \"do:KEYREEVE\"\nseal.keys = [\"binding:KEYREEVE\"]\n[credential.vendor]\nsource = \"http\"\nurl = \"service:RENEWAL/renew\"\nsecret_headers = { authorization = \"binding:RENEWAL\" }\n";
}
