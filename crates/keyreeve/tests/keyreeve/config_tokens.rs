//! What is said about mistakes with tokens of others: who is trusted, with which keys, for what. Every case is one
//! snapshot. Mistakes in keys themselves are found when they are read, and told in the same form.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyreeve::config::{Config, ReadOptions, SecretRef};
use keyreeve::core::secret::Secret;
use keyreeve::crypto::{LocalCrypto, check};
use keyreeve::inbound::{Parts, verifiers};
use keyreeve::port::Secrets;

use crate::config_mistakes::said;
use crate::http_world::TestHost;
use crate::inbound_world::{Says, TestKey, Web};

const BASE: &str = "store.url = \"memory:\"\n";
const AUTH0: &str = "[verifier.auth0]\nissuer = \"https://tenant.auth0.com/\"\naudience = \"my-client\"\n";
const PARTNER: &str = "[verifier.partner]\nissuer = \"partner\"\naudience = \"orders\"\n";
const GATE: &str = "[gate.orders]\nkind = \"auth\"\n";
const RULE: &str = "[[policy]]\ncan = \"GET /\"\non = \"gate:orders\"\n";

/// What is said when the keys of a right file are read; every `env:NAME` is one of these.
fn said_of_keys(text: &str) -> String {
    let config = Config::read(text, "push.toml", &BTreeMap::new(), ReadOptions::default());
    let config = config.unwrap_or_else(|problems| panic!("{problems}")).config;
    let host = Arc::new(TestHost::new());
    let parts = Parts {
        host: Arc::<TestHost>::clone(&host),
        http: Web::new(&host, Says::Hang),
        crypto: Arc::new(LocalCrypto),
        make: check,
    };
    let problems = match verifiers(&config.verifiers, &Known, &parts, &mut BTreeMap::new()) {
        Err(problems) => problems,
        Ok(_) => panic!("these keys were taken"),
    };
    let text = problems.join("\n");
    assert!(!text.contains("hunter2"), "a secret is shown: {text}");
    text
}

/// Keys by the name of their variable.
struct Known;

impl Secrets for Known {
    fn read(&self, reference: &SecretRef) -> Result<Secret<Vec<u8>>, String> {
        let SecretRef::Env(name) = reference else { return Err(format!("{reference:?} is not there")) };
        let text = match name.as_str() {
            "PUBLIC" => TestKey::new("k1", 1).jwk().to_string(),
            "PRIVATE" => TestKey::new("k1", 1).private_jwk().to_string(),
            "PEM" => "-----BEGIN PUBLIC KEY-----\nhunter2\n".into(),
            "TEXT" => "hunter2".into(),
            "SHORT" => "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI".into(),
            "PADDED" => "aHVudGVyMg==".into(),
            "SECRET_JWK" => {
                r#"{"kty":"oct","alg":"HS256","k":"aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI"}"#.into()
            }
            "WEAK_SET" => r#"{"keys":[{"kty":"RSA","kid":"old","n":"wZ","e":"AQAB"}]}"#.into(),
            "NO_KEYS" => r#"{"keys":[]}"#.into(),
            _ => return Err(format!("`env:{name}` is not set")),
        };
        Ok(Secret::new(text.into_bytes()))
    }
}

macro_rules! mistakes {
    ($say:expr, $count:ident: $($name:ident: [$($part:expr),+ $(,)?];)+) => {
        const $count: usize = [$(stringify!($name)),+].len();
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(stringify!($name), $say(&[$($part),+].concat()));
            }
        )+
    };
}

mistakes! { |text: &str| said(text, &[]), WRITTEN:
    // Whom to believe.
    a_verifier_without_issuer_and_audience: [BASE, "[verifier.auth0]\n"];
    an_empty_audience: [BASE, "[verifier.auth0]\nissuer = \"https://a.example\"\naudience = []\n"];
    an_audience_that_is_no_text: [BASE, "[verifier.auth0]\nissuer = \"https://a.example\"\naudience = [\"a\", 5, \"\"]\n"];
    an_issuer_over_plain_http: [BASE, "[verifier.auth0]\nissuer = \"http://tenant.auth0.com/\"\naudience = \"a\"\n"];
    an_issuer_that_is_no_url: [BASE, PARTNER];
    an_issuer_with_a_query: [BASE, "[verifier.a]\nissuer = \"https://a.example/?tenant=7\"\naudience = \"a\"\n"];
    an_issuer_with_a_space: [BASE, "[verifier.a]\nissuer = \"https://a.example \"\naudience = \"a\"\n"];
    two_verifiers_of_one_issuer: [BASE, AUTH0, "[verifier.again]\nissuer = \"https://tenant.auth0.com/\"\naudience = [\"other\", \"my-client\"]\n"];
    a_verifier_with_a_strange_name: [BASE, "[verifier.\"Auth 0\"]\nissuer = \"https://a.example\"\naudience = \"a\"\n"];
    a_leeway_without_a_unit: [BASE, AUTH0, "leeway = 90\n"];
    a_leeway_of_an_hour: [BASE, AUTH0, "leeway = \"1h\"\n"];
    a_mistyped_typ: [BASE, AUTH0, "typ = \"at+jtw\"\n"];
    // Algorithms.
    an_algorithm_nobody_knows: [BASE, AUTH0, "algorithms = [\"RS265\", \"none\"]\n"];
    no_algorithms: [BASE, AUTH0, "algorithms = []\n"];
    a_secret_algorithm_with_fetched_keys: [BASE, AUTH0, "algorithms = [\"RS256\", \"HS256\"]\n"];
    a_secret_algorithm_with_public_keys: [BASE, PARTNER, "keys = [\"env:PUBLIC\"]\nalgorithms = [\"HS512\"]\n"];
    a_public_algorithm_with_a_secret: [BASE, PARTNER, "secret = \"env:SECRET\"\nalgorithms = [\"ES256\"]\n"];
    // Keys.
    a_secret_and_a_jwks: [BASE, AUTH0, "jwks_url = \"https://tenant.auth0.com/jwks\"\nsecret = \"env:SECRET\"\n"];
    keys_and_a_jwks: [BASE, AUTH0, "keys = [\"env:PUBLIC\"]\njwks_url = \"https://tenant.auth0.com/jwks\"\n"];
    a_jwks_over_plain_http: [BASE, AUTH0, "jwks_url = \"http://tenant.auth0.com/jwks\"\n"];
    a_jwks_of_a_service_outside_a_worker: [BASE, AUTH0, "jwks_url = \"service:AUTH/jwks\"\n"];
    a_secret_in_the_file: [BASE, PARTNER, "secret = \"hunter2\"\n"];
    public_keys_in_the_file: [BASE, PARTNER, "keys = [\"{\\\"kty\\\":\\\"oct\\\",\\\"k\\\":\\\"hunter2\\\"}\"]\n"];
    a_pin_that_is_a_key_id: [BASE, AUTH0, "pins = [\"key-1\"]\n"];
    pins_for_a_secret: [BASE, PARTNER, "secret = \"env:SECRET\"\npins = [\"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\"]\n"];
    a_freshness_shorter_than_the_cooldown: [BASE, AUTH0, "cooldown = \"10m\"\nfresh = \"5m\"\n"];
    a_mistyped_setting_of_a_verifier: [BASE, AUTH0, "jkws_url = \"https://tenant.auth0.com/jwks\"\naud = \"x\"\n"];
    // Gates.
    a_gate_of_a_later_version: [BASE, "[gate.cdn]\nkind = \"s3\"\n"];
    a_gate_of_artifacts_without_anything: [BASE, "[gate.cdn]\nkind = \"artifact\"\n"];
    a_gate_of_artifacts_that_cannot_be: [BASE, "seal.keys = [\"env:SEAL\"]\n[token.cdn]\n[objects.disk]\nurl = \"file:/srv/objects\"\nkey = \"env:KEY\"\n[gate.cdn]\nkind = \"artifact\"\nbind = \"0.0.0.0:7080\"\norigins = [\"disc\", \"disk\"]\ntokens = \"cnd\"\nhedge_after = \"6s\"\ndeliver = \"redirect\"\ncredential = \"x\"\n[gate.cdn2]\nkind = \"artifact\"\nbind = \"127.0.0.1:7080\"\norigins = [\"disk\"]\ndeliver = \"redirect\"\n[gate.cdn3]\nkind = \"artifact\"\nbind = \"127.0.0.1:7080\"\norigins = [\"disk\"]\ncache = \"/a\"\n[gate.cdn4]\nkind = \"artifact\"\nbind = \"127.0.0.1:7080\"\norigins = [\"disk\"]\ncache = \"/a\"\n"];
    objects_that_are_none: [BASE, "[objects.a]\nurl = \"s3://bucket/../other\"\n[objects.b]\nurl = \"file:relative\"\n[objects.c]\nurl = \"az://container\"\n[objects.d]\nurl = \"s3://bucket\"\naccount = \"A\"\nendpoint = \"http://storage.example.org\"\n"];
    a_gate_without_a_kind: [BASE, "[gate.orders]\nproxy = \"nginxx\"\n"];
    a_gate_that_would_answer_with_http_headers: [BASE, GATE, "identity = { Authorization = \"sub\", x-user = \"sub[0]\", \"x user\" = \"sub\" }\n"];
    one_header_for_method_and_path: [BASE, GATE, "method_header = \"X-Original\"\nuri_header = \"x-original\"\n"];
    // Rules.
    a_rule_without_anything: [BASE, GATE, "[[policy]]\n"];
    a_rule_about_nobody: [BASE, AUTH0, GATE, RULE, "who = \"verifier:auth\"\n[[policy]]\nwho = \"issuer:auth0\"\ncan = \"GET /\"\non = \"gate:order\"\n"];
    a_rule_with_a_broken_condition: [BASE, AUTH0, GATE, RULE, "who = \"verifier:auth0[permissions = 'orders:write']\"\n"];
    a_rule_that_says_not: [BASE, AUTH0, GATE, RULE, "who = \"verifier:auth0[not roles has 'guest']\"\n"];
    a_rule_that_mixes_and_with_or: [BASE, AUTH0, GATE, RULE, "who = \"verifier:auth0[a has 'x' and b has 'y' or c has 'z']\"\n"];
    requests_that_none_are: [BASE, AUTH0, GATE, "[[policy]]\nwho = \"verifier:auth0\"\ncan = [\"get /\", \"GET /a/../b\", \"GET /a?x=1\", \"GET /a/**/b\", \"/a\"]\non = \"orders\"\n"];
}

mistakes! { said_of_keys, READ:
    a_secret_that_is_too_short: [BASE, PARTNER, "secret = \"env:SHORT\"\n"];
    a_secret_that_is_not_base64url: [BASE, PARTNER, "secret = \"env:PADDED\"\nalgorithms = [\"HS256\"]\n"];
    a_secret_that_is_not_there: [BASE, PARTNER, "secret = \"env:NOWHERE\"\n"];
    a_key_for_another_algorithm: [BASE, PARTNER, "keys = [\"env:PUBLIC\"]\nalgorithms = [\"ES256\", \"RS256\"]\n"];
    a_private_key_where_a_public_one_belongs: [BASE, PARTNER, "keys = [\"env:PRIVATE\"]\n"];
    a_secret_where_a_public_key_belongs: [BASE, PARTNER, "keys = [\"env:SECRET_JWK\"]\n"];
    a_key_in_pem: [BASE, PARTNER, "keys = [\"env:PEM\"]\n"];
    a_key_that_is_no_json: [BASE, PARTNER, "keys = [\"env:PUBLIC\", \"env:TEXT\"]\n"];
    a_weak_key_in_a_set: [BASE, PARTNER, "keys = [\"env:WEAK_SET\"]\n"];
    a_pin_that_fits_no_key: [BASE, PARTNER, "keys = [\"env:PUBLIC\"]\npins = [\"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\"]\n"];
}

#[test]
fn there_are_at_least_twenty_five_mistakes() {
    const { assert!(WRITTEN >= 25 && READ >= 5) };
}

#[test]
fn what_is_odd_but_harmless_is_a_warning() {
    let text = [
        BASE,
        PARTNER,
        "secret = \"env:SECRET\"\ncooldown = \"1m\"\n",
        GATE,
        "proxy = \"caddy\"\nuri_header = \"x-uri\"\n",
        "[[listener]]\nbind = \"127.0.0.1:0\"\nserve = [\"api\"]\n",
    ];
    let read = Config::read(&text.concat(), "push.toml", &BTreeMap::new(), ReadOptions::default()).unwrap();
    let warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"));
}

#[test]
fn the_file_of_the_api_team_reads_without_a_warning() {
    let text = r#"
store.url = "memory:"
[verifier.auth0]
issuer = "https://tenant.auth0.com/"
audience = "my-client"
[gate.orders]
kind = "auth"
[[policy]]
who = "verifier:auth0[permissions has 'orders:write']"
can = ["POST /orders/*"]
on = "gate:orders"
"#;
    let read = Config::read(text, "api.toml", &BTreeMap::new(), ReadOptions::default()).unwrap();
    assert_eq!(read.warnings, []);
    assert_eq!(read.config.policy.rules().len(), 1);
}
