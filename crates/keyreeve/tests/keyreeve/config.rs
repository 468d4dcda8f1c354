//! What is read from a right configuration: the examples of the guide, defaults, presets, the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keyreeve::config::{
    Action, Algorithm, Bind, Config, ConfigRead, Keep, Origin, Plan, Proof, ReadOptions, SecretRef, SourceConfig,
    StoreUrl, Surface,
};
use keyreeve_core::rules::{Mode, OnDoubt, Rules};

/// The push team's file.
const PUSH: &str = r#"
# push.toml
store.url = "sqlite:/var/lib/keyreeve/state.db"
seal.keys = ["file:/etc/keyreeve/seal.key"]
[[listener]]
bind = "127.0.0.1:7070"
serve = ["api", "metrics"]
[credential.apns-prod]
source = "apns"
key = "file:/etc/keyreeve/AuthKey_ABC123DEFG.p8"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
life = { max = "55m", min_interval = "20m", lead = "10m" }
mode = "replay"
[caller.push]
key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
can = ["token", "report"]
credentials = ["apns-*"]
"#;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

fn read(text: &str) -> ConfigRead {
    read_with(text, &[])
}

fn read_with(text: &str, env: &[(&str, &str)]) -> ConfigRead {
    let env: BTreeMap<String, String> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Config::read(text, "push.toml", &env, ReadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn rules<'c>(read: &'c ConfigRead, name: &str) -> &'c Rules {
    match &read.config.credentials[name].plan {
        Plan::Fleet(rules) => rules,
        Plan::Slot(slots) => panic!("{name} is in slot mode: {slots:?}"),
    }
}

#[test]
fn the_push_teams_file_reads_without_a_warning() {
    let read = read(PUSH);
    assert_eq!(read.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let config = &read.config;
    assert_eq!(config.store, StoreUrl::Sqlite(PathBuf::from("/var/lib/keyreeve/state.db")));
    assert_eq!(config.seal_keys, [SecretRef::File(PathBuf::from("/etc/keyreeve/seal.key"))]);
    assert_eq!(config.listeners[0].bind, Bind::Tcp("127.0.0.1:7070".parse().unwrap()));
    assert!(config.listeners[0].serve.contains(&Surface::Api));
    assert_eq!(
        config.credentials["apns-prod"].source,
        SourceConfig::Apns {
            key: SecretRef::File(PathBuf::from("/etc/keyreeve/AuthKey_ABC123DEFG.p8")),
            team_id: "DEF123GHIJ".into(),
            key_id: "ABC123DEFG".into(),
        }
    );
    let rules = rules(&read, "apns-prod");
    assert_eq!((rules.mode, rules.on_doubt), (Mode::Replay, OnDoubt::RetrySame));
    assert_eq!(rules.life_ms, 55 * MINUTE);
    assert_eq!(config.callers["push"].can.iter().collect::<Vec<_>>(), [&Action::Token, &Action::Report]);
    assert!(matches!(config.callers["push"].proof, Proof::KeySha256(hash) if hash[..2] == [0x9f, 0x86]));
}

#[test]
fn numbers_that_nobody_wrote_are_those_of_the_reference() {
    let read = read(PUSH);
    let rules = rules(&read, "apns-prod");
    assert_eq!((rules.lease_ms, rules.takeover_ms), (20 * SECOND, 25 * SECOND));
    assert_eq!((rules.send_ms, rules.answer_ms, rules.poll_ms), (5 * SECOND, 10 * SECOND, SECOND));
    assert_eq!((rules.skew_ms, rules.is_clock_trusted), (2 * SECOND, false));
    assert_eq!((rules.backdate_ms, rules.handover_ms), (60 * SECOND, 5 * MINUTE));
    assert_eq!((rules.wake_spread_ms, rules.refresh_jitter_ms), (150 * SECOND, 150 * SECOND));
    assert_eq!((rules.hold_ms, rules.hold_ms_max), (SECOND, 60 * SECOND));
    assert_eq!((rules.hard_hold_ms, rules.hard_hold_ms_max), (30 * SECOND, 15 * MINUTE));
    assert_eq!((rules.history_max, rules.stale_ms, rules.first_mint_waits), (16, 0, false));
    assert!(rules.check().is_empty());
    let credential = &read.config.credentials["apns-prod"];
    assert_eq!((credential.wait_ms, credential.keep), (1500, Keep::OnDemand { lifetimes: 3 }));
    let limits = read.config.limits;
    assert_eq!((limits.body_bytes_max, limits.request_ms_max), (65_536, 30 * SECOND));
    assert_eq!((limits.connections_max, limits.event_streams_max), (10_000, 64));
    assert_eq!((read.config.store_ms, &read.config.clock_url), (2 * SECOND, &None));
}

#[test]
fn a_store_may_take_longer_and_a_clock_may_be_measured() {
    for (timeout, ms) in [("50ms", 50), ("30s", 30 * SECOND)] {
        assert_eq!(read(&format!("store.timeout = \"{timeout}\"")).config.store_ms, ms);
    }
    for url in ["https://api.github.com/", "http://127.0.0.1:8080/"] {
        let read = read(&format!("clock.url = \"{url}\""));
        assert_eq!(read.config.clock_url.as_deref(), Some(url));
    }
    let env = [("KEYREEVE__STORE__TIMEOUT", "5s"), ("KEYREEVE__CLOCK__URL", "https://time.example.org")];
    let config = read_with("", &env).config;
    assert_eq!((config.store_ms, config.clock_url.as_deref()), (5 * SECOND, Some("https://time.example.org")));
}

#[test]
fn a_skew_that_is_written_is_vouched_for() {
    let read = read(&PUSH.replace("lead = \"10m\"", "lead = \"10m\", skew = \"5s\", upstream_skew = \"40s\""));
    let rules = rules(&read, "apns-prod");
    assert!(rules.is_clock_trusted);
    // The upstream's clock is one of those that the rules speak of.
    assert_eq!((rules.skew_ms, rules.backdate_ms), (40 * SECOND, 60 * SECOND));
}

#[test]
fn a_longer_call_gets_a_longer_lease_by_itself() {
    let read = read(&PUSH.replace("lead = \"10m\"", "lead = \"10m\", timeout = \"40s\""));
    let rules = rules(&read, "apns-prod");
    assert_eq!((rules.lease_ms, rules.takeover_ms), (50 * SECOND, 62_500));
}

const SOURCES: &str = r#"
store.url = "memory:"
seal.keys = ["env:SEAL", "name-in:SEAL_NAME"]
[credential.gh]
source = "jwt"
preset = "github-app-jwt"
key = "env:GH_KEY"
params.app_id = 12345
[credential."acme/store"]
source = "jwt"
preset = "app-store-connect"
key = "env:ASC_KEY"
params = { issuer_id = "57246542-96fe-1a63-e053-0824d011072a", key_id = "2X9R4HXF34", scope = ["GET /v1/apps"] }
keep = "always"
[credential.api]
source = "jwt"
key = "env:KEY"
[credential.api.params]
alg = "EdDSA"
header = { typ = "JWT", kid = "k" }
[credential.api.params.claims]
sub = "me"
aud = ["b", "a"]
exp = "{exp}"
act = { zebra = 1, ape = 2.5 }
[credential.script]
source = "exec"
command = ["/bin/mint", "--json"]
pass = ["PATH"]
secrets = { PASSWORD = "file:/p" }
keep = 7
life.stale = "1h"
[credential.vendor]
source = "http"
url = "http://127.0.0.1:8080/renew/{generation}"
secret_headers = { Authorization = "env:AUTH" }
body = '{"until": "{expires_at}"}'
idempotent = true
[credential.once]
source = "http"
url = "https://tokens.example.org/renew"
map = { fields = { id = "/a/id", key = "/a/key" }, expires_at = "/exp" }
mode = "exclusive"
life = { max = "1h", min_interval = "20m", lead = "30m" }
on_doubt = "reauth"
"#;

#[test]
fn presets_say_what_the_upstream_wants_in_a_fixed_order() {
    let read = read(SOURCES);
    let claims = |name: &str| match &read.config.credentials[name].source {
        SourceConfig::Jwt { algorithm, header, claims, .. } => {
            (*algorithm, serde_json::to_string(header).unwrap(), serde_json::to_string(claims).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let github = r#"{"iat":"{iat}","exp":"{exp}","iss":"12345"}"#;
    assert_eq!(claims("gh"), (Algorithm::Rs256, r#"{"typ":"JWT"}"#.into(), github.into()));
    let (algorithm, header, store) = claims("acme/store");
    assert_eq!((algorithm, header.as_str()), (Algorithm::Es256, r#"{"kid":"2X9R4HXF34","typ":"JWT"}"#));
    assert_eq!(
        store,
        r#"{"iss":"57246542-96fe-1a63-e053-0824d011072a","iat":"{iat}","exp":"{exp}","aud":"appstoreconnect-v1","scope":["GET /v1/apps"]}"#
    );
    // Claims keep the order of the file: they are signed as they stand.
    assert_eq!(claims("api").2, r#"{"sub":"me","aud":["b","a"],"exp":"{exp}","act":{"zebra":1,"ape":2.5}}"#);
    assert_eq!((rules(&read, "gh").life_ms, rules(&read, "gh").backdate_ms), (9 * MINUTE, MINUTE));
    assert_eq!(rules(&read, "acme/store").life_ms, 15 * MINUTE);
    assert_eq!(read.config.credentials["acme/store"].keep, Keep::Always);
}

#[test]
fn what_a_source_can_do_decides_how_the_fleet_coordinates() {
    let read = read(SOURCES);
    let modes = |name: &str| (rules(&read, name).mode, rules(&read, name).on_doubt);
    assert_eq!(modes("api"), (Mode::Replay, OnDoubt::RetrySame));
    assert_eq!(modes("vendor"), (Mode::Replay, OnDoubt::RetrySame));
    assert_eq!(modes("script"), (Mode::Lease, OnDoubt::Wait));
    assert_eq!(modes("once"), (Mode::Exclusive, OnDoubt::Reauthorize));
    // What is minted elsewhere has no second credential to hand over to, and no date of ours.
    for name in ["vendor", "script", "once"] {
        assert_eq!((rules(&read, name).handover_ms, rules(&read, name).backdate_ms), (0, 0), "{name}");
    }
    let once = rules(&read, "once");
    assert_eq!((once.wake_spread_ms, once.first_mint_waits, once.faults_absorbed()), (2 * SECOND, true, 1));
    assert_eq!(rules(&read, "script").stale_ms, 60 * MINUTE);
    assert_eq!(read.config.credentials["script"].keep, Keep::OnDemand { lifetimes: 7 });
}

#[test]
fn scripts_and_services_are_read_whole() {
    let read = read(SOURCES);
    assert_eq!(
        read.config.credentials["script"].source,
        SourceConfig::Exec {
            argv: vec!["/bin/mint".into(), "--json".into()],
            pass: vec!["PATH".into()],
            secrets: BTreeMap::from([("PASSWORD".into(), SecretRef::File("/p".into()))]),
            output_bytes_max: 65_536,
        }
    );
    let SourceConfig::Http { method, secret_headers, mapping, is_idempotent, .. } =
        &read.config.credentials["vendor"].source
    else {
        panic!("`vendor` is a service")
    };
    assert_eq!((method.as_str(), *is_idempotent), ("POST", true));
    // Names of headers have no case; ours is the lower one.
    assert_eq!(secret_headers["authorization"], SecretRef::Env("AUTH".into()));
    assert_eq!(mapping.token.as_deref(), Some("/access_token"));
    assert_eq!((mapping.expires_in.as_deref(), &mapping.expires_at), (Some("/expires_in"), &None));
    let SourceConfig::Http { mapping, .. } = &read.config.credentials["once"].source else { panic!("a service") };
    assert_eq!((&mapping.token, mapping.fields["key"].as_str()), (&None, "/a/key"));
    assert_eq!((mapping.expires_at.as_deref(), &mapping.expires_in), (Some("/exp"), &None));
}

#[test]
fn what_holds_but_closely_is_a_warning_with_its_line() {
    let warnings = read(SOURCES).warnings;
    insta::assert_snapshot!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_store_in_postgres_has_its_password_by_reference_and_other_stores_need_none() {
    let store = |url: &str| format!("store = {{ url = \"{url}\", password = \"env:P\", ca = \"file:/ca.pem\" }}\n");
    let found = read(&store("postgres://k@db.example.org,b:5433/keyreeve"));
    assert_eq!(found.config.store.to_string(), "postgres://k@db.example.org,b:5433/keyreeve");
    assert_eq!(found.config.store_password, Some(SecretRef::Env("P".into())));
    assert_eq!(found.config.store_ca, Some("/ca.pem".into()));
    assert_eq!(found.warnings.len(), 1, "only that there is nothing to do");
    let warned: Vec<_> = read(&store("memory:")).warnings.iter().map(|warning| warning.setting.clone()).collect();
    assert!(["store.password", "store.ca"].iter().all(|name| warned.iter().any(|found| found == name)), "{warned:?}");
}

#[test]
fn an_empty_file_listens_on_loopback_and_says_that_there_is_nothing_to_do() {
    let read = read("");
    assert_eq!(read.config.store, StoreUrl::Sqlite("/var/lib/keyreeve/state.db".into()));
    assert_eq!(read.config.listeners[0].bind, Bind::Tcp("127.0.0.1:7070".parse().unwrap()));
    assert_eq!(read.warnings.len(), 1);
    assert!(read.warnings[0].to_string().starts_with("warning: there is no credential to renew (push.toml)"));
}

#[test]
fn the_environment_wins_over_the_file_and_is_named_as_the_origin() {
    let read = read_with(
        PUSH,
        &[
            ("KEYREEVE__STORE__URL", "memory:"),
            ("KEYREEVE__SEAL__KEYS", "env:NEW, env:OLD"),
            ("KEYREEVE__CREDENTIAL__APNS_PROD__LIFE__LEAD", "12m"),
            ("KEYREEVE__CREDENTIAL__APNS_PROD__KEEP", "2"),
            ("KEYREEVE__LISTENER__0__BIND", "127.0.0.1:8080"),
            ("KEYREEVE__LISTENER__1__BIND", "unix:/run/keyreeve.sock"),
            ("KEYREEVE__LIMITS__CONNECTIONS", "5"),
            ("KEYREEVE_LOG", "not ours"),
        ],
    );
    assert_eq!(read.config.store, StoreUrl::Memory);
    assert_eq!(read.config.seal_keys, [SecretRef::Env("NEW".into()), SecretRef::Env("OLD".into())]);
    assert_eq!(rules(&read, "apns-prod").lead_ms, 12 * MINUTE);
    assert_eq!(read.config.credentials["apns-prod"].keep, Keep::OnDemand { lifetimes: 2 });
    assert_eq!(read.config.limits.connections_max, 5);
    assert_eq!(read.config.listeners[0].bind, Bind::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(read.config.listeners[1].bind, Bind::Unix("/run/keyreeve.sock".into()));
    let origin = |path: &str| read.explained.iter().find(|it| it.path == path).map(|it| it.origin.to_string());
    assert_eq!(origin("store.url").as_deref(), Some("environment KEYREEVE__STORE__URL"));
    assert_eq!(origin("credential.apns-prod.life.max").as_deref(), Some("line 12"));
    assert_eq!(origin("limits.body").as_deref(), Some("default"));
}

#[test]
fn every_effective_value_is_explained_once_and_none_is_a_secret() {
    let text = SOURCES.replace("env:GH_KEY", "hunter2").replace("file:/p\"", "hunter2\"");
    let options = ReadOptions { allow_literals: true, ..ReadOptions::default() };
    let read = Config::read(&text, "dev.toml", &BTreeMap::new(), options).unwrap();
    let SourceConfig::Jwt { key: SecretRef::Literal(key), .. } = &read.config.credentials["gh"].source else {
        panic!("a literal key is read under `keyreeve dev`")
    };
    assert_eq!(key.expose(), "hunter2");
    let lines: Vec<String> =
        read.explained.iter().map(|it| format!("{} = {}  ({})", it.path, it.value, it.origin)).collect();
    let text = lines.join("\n");
    assert!(!text.contains("hunter2") && !format!("{read:?}").contains("hunter2"));
    let mut paths: Vec<_> = read.explained.iter().map(|it| &it.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), lines.len());
    assert!(read.explained.iter().all(|it| !it.doc.is_empty()));
    assert!(read.explained.iter().any(|it| it.origin == Origin::Preset("github-app-jwt")));
    insta::assert_snapshot!(text);
}

const SLOTS: &str = r#"
[credential.push]
source = "apns"
key = "env:KEY"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
mode = "slot"
life = { max = "60m", slot = "SLOT", skew = "1m", backdate = "2m", flight = "30s" }
"#;

#[test]
fn slots_that_just_add_up_are_read_and_a_second_more_or_less_is_refused() {
    let slots = |slot: &str| {
        let text = SLOTS.replace("SLOT", slot);
        Config::read(&text, "slots.toml", &BTreeMap::new(), ReadOptions::default())
    };
    // 60m - backdate 2m - skew 1m - upstream skew 1m - flight 30s, and 20m + 2 x skew 1m + flight 30s. No store, no seal.
    for slot in ["55m 30s", "22m 30s"] {
        let read = slots(slot).unwrap();
        assert!(matches!(&read.config.credentials["push"].plan, Plan::Slot(slots) if slots.check().is_empty()));
        assert!(read.config.seal_keys.is_empty() && read.warnings.is_empty(), "{:?}", read.warnings);
    }
    let longer = slots("55m 31s").unwrap_err().to_string();
    assert!(longer.contains("slot 55m 31s + backdate 2m + skew 1m + upstream skew 1m + flight 30s = 1h 1s > max 1h"));
    let shorter = slots("22m 29s").unwrap_err().to_string();
    assert!(shorter.contains("slot 22m 29s is less than min_interval 20m + 2 x skew 1m + flight 30s = 22m 30s"));
}

#[test]
fn what_slot_mode_has_no_use_for_is_pointed_out() {
    let text = SLOTS.replace("SLOT", "30m").replace("flight", "lead = \"5m\", flight") + "first_mint = \"wait\"\n";
    let warnings: Vec<_> = read(&text).warnings.iter().map(|it| it.setting.clone()).collect();
    assert_eq!(warnings, ["credential.push.life.lead", "credential.push.first_mint"]);
}

#[test]
fn a_plain_address_is_a_decision_and_a_socket_needs_none() {
    let listener = |more: &str| format!("[[listener]]\nbind = \"10.0.0.1:7070\"\n{more}");
    let none = BTreeMap::new();
    assert!(Config::read(&listener(""), "l.toml", &none, ReadOptions::default()).is_err());
    assert_eq!(read(&listener("allow_plaintext = true\nserve = [\"metrics\"]")).config.listeners.len(), 1);
    assert_eq!(read("[[listener]]\nbind = \"unix:/run/k.sock\"\n").config.listeners.len(), 1);
}

#[test]
fn r15_a_lease_outlives_the_call_it_covers_by_construction() {
    let with = |more: &str| PUSH.replace("lead = \"10m\"", &format!("lead = \"10m\", {more}"));
    for timeout in ["1ms", "10s", "59s", "2m"] {
        let read = read(&with(&format!("timeout = \"{timeout}\"")));
        let rules = rules(&read, "apns-prod");
        assert!(rules.lease_ms >= rules.send_ms + rules.answer_ms + 5 * SECOND, "{rules:?}");
        assert!(rules.takeover_ms * 4 >= rules.lease_ms * 5, "{rules:?}");
    }
    // The edge itself: send 5s + timeout 10s.
    assert_eq!(rules(&read(&with("lease = \"15s\"")), "apns-prod").lease_ms, 15 * SECOND);
    let text = with("lease = \"14999ms\"");
    let problems = Config::read(&text, "push.toml", &BTreeMap::new(), ReadOptions::default()).unwrap_err();
    assert!(problems.to_string().contains("lease 14s 999ms is less than send 5s + timeout 10s = 15s"), "{problems}");
}

#[test]
fn r19_a_life_of_nothing_or_no_longer_than_its_lead_is_refused() {
    let refused = |life: &str| {
        let text = PUSH.replace("max = \"55m\", min_interval = \"20m\", lead = \"10m\"", life);
        Config::read(&text, "push.toml", &BTreeMap::new(), ReadOptions::default()).unwrap_err().to_string()
    };
    assert!(refused("max = \"0s\"").contains("must be between 1s and 366d, not `0s`"));
    assert!(refused("max = \"\"").contains("must be a number with its unit"));
    assert!(refused("max = \"50m\", lead = \"50m\"").contains("lead 50m is not shorter than max 50m"));
    assert!(refused("max = \"60m 1s\"").contains("must be at most 1h for `apns`, not 1h 1s"));
}
