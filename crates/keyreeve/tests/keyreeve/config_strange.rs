//! Strange files: whatever the text, reading it ends in settings that add up or in problems.

use std::collections::BTreeMap;

use keyreeve::config::{Bindings, Config, Home, Plan, ReadOptions};
use proptest::prelude::*;

/// Keys and values that are right somewhere, and wrong almost everywhere else: random text never gets this deep.
const KEYS: &str = "store url seal keys listener bind serve caller push uid can credential source key params team_id claims \
    life max lead slot skew mode keep map fields headers command preset limits body via caches old_key \"a/b\" \"\" x 0";
const VALUES: &str = "\"apns\" | \"jwt\" | \"exec\" | \"http\" | \"slot\" | \"exclusive\" | \"10m\" | \"0s\" | \"1h 1h\" | \
    \"366d\" | \"64KiB\" | \"env:A\" | \"file:/a\" | \"memory:\" | [] | {} | [[]] | [{}] | \"do:X\" | \"service:X/y\" | \"binding:X\" | [\"kv:X\"] | true | -1 | 1e400 | nan | 0x_1 | \
    99999999999999999999 | 2026-01-01 | \"\u{e9}\\u0000\" | [\"*\"] | [\"token\"] | \"github-app-jwt\" | \"\" | \
    { max = \"1s\", lead = \"366d\" } | { exp = \"{exp}\", \"\" = [[{}]] }";

fn lines() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(KEYS.split_whitespace().collect::<Vec<_>>());
    let values = prop::sample::select(VALUES.split('|').map(str::trim).collect::<Vec<_>>());
    let key = prop::collection::vec(keys, 1..4).prop_map(|keys| keys.join("."));
    let line = prop_oneof![
        6 => (key.clone(), values).prop_map(|(key, value)| format!("{key} = {value}\n")),
        1 => key.clone().prop_map(|key| format!("[{key}]\n")),
        1 => key.prop_map(|key| format!("[[{key}]]\n")),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

fn check(text: &str, env: &BTreeMap<String, String>) {
    for home in [Home::Native, Home::Worker] {
        check_at(home, text, env);
    }
}

fn check_at(home: Home, text: &str, env: &BTreeMap<String, String>) {
    let options = ReadOptions { allow_literals: text.len().is_multiple_of(2), home };
    match Config::read(text, "strange.toml", env, options) {
        Ok(read) => {
            let bindings = read.config.bindings();
            assert!(home == Home::Worker || bindings == Bindings::default(), "{bindings:?}");
            for credential in read.config.credentials.values() {
                match &credential.plan {
                    Plan::Fleet(rules) => assert!(rules.check().is_empty()),
                    Plan::Slot(slots) => assert!(slots.check().is_empty()),
                }
            }
        }
        Err(problems) => {
            assert!(problems.iter().count() > 0);
            assert!(problems.iter().all(|problem| problem.to_string().lines().count() == 2), "{problems}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_fall(text in "\\PC{0,200}") {
        check(&text, &BTreeMap::new());
    }

    #[test]
    fn no_toml_makes_the_reader_fall_and_what_is_read_adds_up(
        text in lines(),
        variable in "(STORE|CREDENTIAL|LISTENER|CALLER|LIMITS)__[A-Z0-9_]{0,12}(__[A-Z]{1,6}){0,2}",
        value in ".{0,12}",
    ) {
        check(&text, &BTreeMap::new());
        check(&text, &BTreeMap::from([(format!("KEYREEVE__{variable}"), value)]));
    }

    #[test]
    fn no_numbers_of_a_life_are_read_that_do_not_add_up(
        max in 1u64..7200, lead in 1u64..7200, least in 0u64..3600, skew in 0u64..120, slot in 1u64..7200,
        mode in prop::sample::select(vec!["slot", "replay", "lease", "exclusive"]),
    ) {
        let text = format!(
            "seal.keys = [\"env:S\"]\n[credential.a]\nsource = \"apns\"\nkey = \"env:K\"\nmode = \"{mode}\"\n\
             params = {{ team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }}\n\
             life = {{ max = \"{max}s\", lead = \"{lead}s\", min_interval = \"{least}s\", skew = \"{skew}s\", slot = \"{slot}s\" }}\n"
        );
        check(&text, &BTreeMap::new());
    }
}
