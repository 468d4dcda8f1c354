//! What is said about mistakes in the settings of issuers and clients, and what right ones come to.

use std::collections::BTreeMap;

use keyreeve::config::{ClientProof, Config, Grant, ReadOptions, SecretRef, Surface, Trusted};

use crate::config_mistakes::said;

const BASE: &str = "store.url = \"sqlite:/var/lib/keyreeve/state.db\"\nseal.keys = [\"file:/etc/keyreeve/seal.key\"]\n";
const ISSUER: &str = "[issuer.gateway]\nurl = \"https://gateway.example.org\"\naudience = [\"internal-api\"]\n";
const CLIENT: &str = "[client.orders]\nissuer = \"gateway\"\n";
const SHA: &str = "secret_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n";
const CAN: &str = "can = [\"client-credentials\"]\n";

const CERTIFICATE: &str = "certificate_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n";
const TLS: &str = "tls.certificate = \"file:/etc/keyreeve/server.pem\"\ntls.key = \"file:/etc/keyreeve/server.key\"\n";
/// The same as `BASE`, for files whose first lines are a table.
const BASE_TABLES: &str = "[store]\nurl = \"memory:\"\n[credential.c]\nsource = \"exec\"\ncommand = [\"/bin/true\"]\n[seal]\nkeys = [\"file:/etc/keyreeve/seal.key\"]\n";

macro_rules! mistakes {
    ($($name:ident: [$($part:expr),+ $(,)?];)+) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(stringify!($name), said(&[$($part),+].concat(), &[]));
            }
        )+
    };
}

mistakes! {
    an_issuer_over_http: [BASE, "[issuer.gateway]\nurl = \"http://gateway.example.org\"\naudience = [\"api\"]\n"];
    an_issuer_that_ends_with_a_slash: [BASE, "[issuer.gateway]\nurl = \"https://gateway.example.org/\"\naudience = [\"api\"]\n"];
    an_issuer_without_an_audience: [BASE, "[issuer.gateway]\nurl = \"https://gateway.example.org\"\n"];
    an_issuer_for_nobody: [BASE, "[issuer.gateway]\nurl = \"https://gateway.example.org\"\naudience = []\n"];
    an_issuer_with_an_hmac: [BASE, ISSUER, "keys = { alg = \"HS512\" }\n"];
    an_issuer_without_a_seal_key: [ISSUER];
    an_issuer_with_a_strange_name: [BASE, "[issuer.\"acme/gateway\"]\nurl = \"https://gateway.example.org\"\naudience = [\"api\"]\n"];
    two_issuers_with_one_url: [BASE, ISSUER, "[issuer.other]\nurl = \"https://gateway.example.org\"\naudience = [\"api\"]\n"];
    an_overlap_shorter_than_caches_keep: [BASE, ISSUER, "keys = { overlap = \"5m\", max_age = \"5m\" }\n"];
    a_node_that_signs_on_for_longer_than_the_overlap: [BASE, ISSUER, "keys = { stale = \"2h\" }\n"];
    a_node_that_stops_at_one_slow_answer: [BASE, ISSUER, "keys = { stale = \"2s\" }\n"];
    a_rotation_faster_than_its_overlap: [BASE, ISSUER, "keys = { rotate = \"1h\" }\n"];
    a_rotation_with_too_many_keys: [BASE, ISSUER, "ttl = \"1d\"\nkeys = { rotate = \"2h\" }\n"];
    a_life_of_half_a_second: [BASE, ISSUER, "ttl = \"1500ms\"\n"];
    a_client_of_nobody: [BASE, ISSUER, "[client.orders]\nissuer = \"gatway\"\n", SHA, CAN];
    a_client_without_proof: [BASE, ISSUER, CLIENT, CAN];
    a_client_with_two_proofs: [BASE, ISSUER, CLIENT, SHA, "jwks = \"file:/etc/keyreeve/orders.jwks.json\"\n", CAN];
    a_client_secret_in_the_file: [BASE, ISSUER, CLIENT, "secret_sha256 = \"hunter2\"\n", CAN];
    a_client_that_may_nothing: [BASE, ISSUER, CLIENT, SHA, "can = []\n"];
    a_client_for_a_foreign_audience: [BASE, ISSUER, CLIENT, SHA, CAN, "audience = [\"elsewhere\"]\n"];
    a_client_that_says_who_it_is: [BASE, ISSUER, CLIENT, SHA, CAN, "claims = { sub = \"admin\", roles = [\"x\"] }\n"];
    a_client_that_trusts_nobody_known: [BASE, ISSUER, CLIENT, SHA, "can = [\"token-exchange\"]\ntrusts = [\"verifier:auth0\"]\n"];
    a_client_that_speaks_without_a_key: [BASE, ISSUER, CLIENT, SHA, "can = [\"jwt-bearer\"]\nsubjects = [\"user-*\"]\n"];
    two_clients_with_one_secret: [BASE, ISSUER, CLIENT, SHA, CAN, "[client.other]\nissuer = \"gateway\"\n", SHA, CAN];
    a_certificate_name_of_no_kind: [BASE, ISSUER, CLIENT, "certificate_name = \"orders.internal\"\n", CAN];
    a_certificate_name_with_a_pattern: [BASE, ISSUER, CLIENT, "certificate_name = \"dns:*.internal\"\n", CAN];
    a_certificate_by_name_and_by_hash: [BASE, ISSUER, CLIENT, "certificate_name = \"dns:orders.internal\"\n", CERTIFICATE, CAN];
    a_listener_with_half_of_its_tls: ["[[listener]]\nbind = \"0.0.0.0:7443\"\ntls = { certificate = \"file:/etc/keyreeve/server.pem\" }\n", BASE_TABLES];
    a_private_key_in_the_file: ["[[listener]]\nbind = \"127.0.0.1:7443\"\ntls = { certificate = \"file:/s.pem\", key = \"hunter2\" }\n", BASE_TABLES];
    a_socket_of_this_machine_with_tls: ["[[listener]]\nbind = \"unix:/run/keyreeve.sock\"\n", TLS, BASE_TABLES];
    a_tls_setting_that_nobody_knows: ["[[listener]]\nbind = \"127.0.0.1:7443\"\n", TLS, "tls.client_cas = \"file:/c.pem\"\n", BASE_TABLES];
    revocations_of_no_authority: ["[[listener]]\nbind = \"127.0.0.1:7443\"\n", TLS, "tls.crl = [\"file:/c.crl\"]\n", BASE_TABLES];
    a_caller_of_keys_without_issuers: [BASE, ISSUER, "[caller.ops]\nkey_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\ncan = [\"rotate\"]\n"];
}

fn read(text: &str) -> keyreeve::config::ConfigRead {
    Config::read(text, "api.toml", &BTreeMap::new(), ReadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let text = [
        BASE,
        ISSUER,
        "ttl = \"15m\"\nkeys = { alg = \"EdDSA\", rotate = \"30d\", overlap = \"1h\" }\n",
        CLIENT,
        SHA,
        CAN,
    ];
    let config = read(&text.concat()).config;
    let issuer = &config.issuers["gateway"];
    assert_eq!((issuer.rules.algorithm.as_str(), issuer.rules.rotate_ms), ("EdDSA", 30 * 86_400_000));
    assert_eq!((issuer.rules.overlap_ms, issuer.rules.stale_ms, issuer.max_age_ms), (3_600_000, 3_600_000, 300_000));
    assert_eq!((issuer.poll_ms, issuer.rules.ttl_ms, issuer.rules.skew_ms), (1000, 900_000, 60_000));
    let client = &config.clients["orders"];
    assert_eq!(client.audience, ["internal-api"]);
    assert!(client.can.contains(&Grant::ClientCredentials) && client.scopes.is_empty() && client.trusts.is_empty());
    assert!(matches!(client.proof, ClientProof::SecretSha256(_)));
    assert!(config.needs_store() && config.listeners[0].serve.contains(&Surface::Oauth2));
}

#[test]
fn a_client_that_exchanges_trusts_its_own_issuer_and_whom_it_is_told_to() {
    let verifier = "[verifier.auth0]\nissuer = \"https://tenant.auth0.com/\"\naudience = \"my-client\"\n";
    let text = |trusts: &str| [BASE, ISSUER, verifier, CLIENT, SHA, "can = [\"token-exchange\"]\n", trusts].concat();
    let own = Trusted::Issuer(keyreeve::core::id::IssuerName::parse("gateway").unwrap());
    assert_eq!(read(&text("")).config.clients["orders"].trusts, [own]);
    let told = read(&text("trusts = [\"verifier:auth0\"]\n"));
    assert_eq!(told.config.clients["orders"].trusts, [Trusted::Verifier("auth0".into())]);
}

#[test]
fn what_does_nothing_is_a_warning() {
    let warned = |text: &str| read(text).warnings.iter().map(ToString::to_string).collect::<String>();
    let unserved = format!("{BASE}[[listener]]\nbind = \"127.0.0.1:0\"\nserve = [\"api\"]\n{ISSUER}");
    assert!(warned(&unserved).contains("no listener serves `oauth2`"));
    let two = format!("{BASE}{ISSUER}[issuer.b]\nurl = \"https://b.example.org/issuer/b\"\naudience = [\"api\"]\n");
    let said = warned(&two);
    assert!(said.contains("issuer.gateway.url") && !said.contains("issuer.b.url"), "{said}");
    let named = "certificate_name = \"dns:orders.internal\"\n";
    let with = |tls: &str, proof: &str| {
        let listener = format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{tls}");
        warned(&[BASE, &listener, ISSUER, CLIENT, proof, CAN].concat())
    };
    assert!(with("", CERTIFICATE).contains("no listener that serves `oauth2` has `tls`"));
    assert!(with(TLS, named).contains("no listener that serves `oauth2` has `tls.client_ca`"));
    assert_eq!(with(TLS, CERTIFICATE), "");
    assert_eq!(with(&format!("{TLS}tls.client_ca = \"file:/etc/keyreeve/clients.pem\"\n"), named), "");
    assert!(with(&format!("{TLS}allow_plaintext = true\n"), CERTIFICATE).contains("the listener has `tls`"));
}

#[test]
fn a_listener_with_tls_may_be_reached_by_other_machines() {
    let text = format!("{BASE}[[listener]]\nbind = \"0.0.0.0:7443\"\n{TLS}{ISSUER}");
    let config = read(&text).config;
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.key, SecretRef::File("/etc/keyreeve/server.key".into()));
    assert_eq!(tls.client_ca, None);
}
