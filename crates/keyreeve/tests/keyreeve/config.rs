//! What is read from a right configuration: the examples of the guide, defaults, presets, the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keyreeve::config::{
    Action, Bind, Config, ConfigRead, Plan, Proof, ReadOptions, SecretRef, SourceConfig, StoreUrl, Surface,
};
use keyreeve_core::rules::{Mode, OnDoubt, Rules};

/// The push team's file.
pub(crate) const PUSH: &str = r#"
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

pub(crate) fn read(text: &str) -> ConfigRead {
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
