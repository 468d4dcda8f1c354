//! What is shared is shared only between requests that ask for the same, in everything.

use std::collections::{BTreeMap, BTreeSet};

use keyreeve::config::{Config, CredentialConfig, ReadOptions};
use keyreeve::core::id::CredentialName;
use keyreeve::crypto::LocalCrypto;
use keyreeve::outbound::record_key;
use keyreeve::source::Identity;
use proptest::prelude::*;

fn read(text: &str) -> CredentialConfig {
    let text = format!("seal.keys = [\"env:SEAL\"]\n{text}");
    let read = Config::read(&text, "test.toml", &BTreeMap::new(), ReadOptions::default());
    read.unwrap_or_else(|problems| panic!("{problems}\n{text}")).config.credentials["c"].clone()
}

/// Where the record of a credential of this name and configuration lies.
fn key(name: &str, config: &CredentialConfig) -> String {
    record_key(&LocalCrypto, &CredentialName::parse(name).unwrap(), Identity::of(config)).as_str().to_owned()
}

/// A request to STS: everything that decides what its answer is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ask {
    name: String,
    role: String,
    region: String,
    session: String,
    policy: Option<String>,
    arns: Vec<String>,
    minutes: u64,
    endpoint: Option<String>,
    /// Where the web identity is read from, or the claims that are signed: `sub` and `aud`.
    assertion: Result<String, (String, String)>,
}

impl Ask {
    fn key(&self) -> String {
        let policy = self.policy.as_ref().map(|text| format!("policy = '{text}'\n")).unwrap_or_default();
        let arns: Vec<_> = self.arns.iter().map(|name| format!("\"arn:aws:iam::aws:policy/{name}\"")).collect();
        let endpoint = self.endpoint.as_ref().map(|url| format!("endpoint = \"{url}\"\n")).unwrap_or_default();
        let (identity, assertion) = match &self.assertion {
            Ok(file) => (String::new(), format!("file:{file}")),
            Err((subject, audience)) => {
                let identity = format!(
                    "[credential.identity]\nsource = \"jwt\"\nkey = \"env:KEY\"\nparams = {{ alg = \"ES256\", claims = {{ sub = \"{subject}\", aud = \"{audience}\", exp = \"{{exp}}\" }} }}\n"
                );
                (identity, "credential:identity".to_owned())
            }
        };
        let config = read(&format!(
            "{identity}[credential.c]\nsource = \"aws-web-identity\"\nlife.max = \"{}m\"\n[credential.c.params]\nrole_arn = \"arn:aws:iam::123456789012:role/{}\"\nregion = \"{}\"\nsession_name = \"{}\"\n{policy}{endpoint}policy_arns = [{}]\nassertion = \"{assertion}\"\n",
            self.minutes,
            self.role,
            self.region,
            self.session,
            arns.join(", ")
        ));
        key(&self.name, &config)
    }
}

/// Few values each, so that two requests are often the same in most of them.
fn ask() -> impl Strategy<Value = Ask> {
    (
        prop::sample::select(vec!["lake", "acme/lake", "other/lake"]),
        prop::sample::select(vec!["lake", "lake2"]),
        prop::sample::select(vec!["eu-central-1", "us-east-1"]),
        prop::sample::select(vec!["keyreeve", "other"]),
        prop::sample::select(vec![None, Some("{}"), Some("{\"Version\":\"2012-10-17\"}")]),
        prop::sample::select(vec![vec![], vec!["A"], vec!["A", "B"], vec!["B", "A"]]),
        prop::sample::select(vec![15_u64, 60]),
        prop::sample::select(vec![None, Some("https://sts.example.org/"), Some("https://sts.example.com/")]),
        prop::sample::select(vec![
            Ok("/a"),
            Ok("/b"),
            Err(("a", "x")),
            Err(("b", "x")),
            Err(("a", "y")),
            // What would be the same if the parts ran into each other.
            Err(("ax", "")),
            Err(("", "ax")),
        ]),
    )
        .prop_map(|(name, role, region, session, policy, arns, minutes, endpoint, assertion)| Ask {
            name: name.into(),
            role: role.into(),
            region: region.into(),
            session: session.into(),
            policy: policy.map(str::to_owned),
            arns: arns.into_iter().map(str::to_owned).collect(),
            minutes,
            endpoint: endpoint.map(str::to_owned),
            assertion: assertion
                .map(str::to_owned)
                .map_err(|(subject, audience)| (subject.to_owned(), audience.to_owned())),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn two_requests_share_a_credential_only_where_they_are_the_same(one in ask(), other in ask()) {
        prop_assert_eq!(one.key() == other.key(), one == other, "{:?} {:?}", one, other);
    }

    #[test]
    fn one_difference_is_enough(one in ask(), other in ask(), which in 0..7_u8) {
        let mut mixed = one.clone();
        match which {
            0 => mixed.policy = other.policy,
            1 => mixed.name = other.name,
            2 => mixed.minutes = other.minutes,
            3 => mixed.endpoint = other.endpoint,
            4 => mixed.assertion = other.assertion,
            5 => mixed.arns = other.arns,
            _ => mixed.role = other.role,
        }
        prop_assert_eq!(one.key() == mixed.key(), one == mixed, "{:?} {:?}", one, mixed);
    }
}

#[test]
fn claims_audience_scope_and_endpoint_tell_requests_apart() {
    let exchange = |claims: &str, params: &str| {
        let text = format!(
            "[credential.identity]\nsource = \"jwt\"\nkey = \"env:KEY\"\nparams = {{ alg = \"ES256\", claims = {{ {claims}, exp = \"{{exp}}\" }} }}\n[credential.c]\nsource = \"token-exchange\"\nparams = {{ {params} client_id = \"me\", assertion = \"credential:identity\" }}\n"
        );
        key("c", &read(&text))
    };
    let url = "token_url = \"https://auth.example.org/token\",";
    let keys: BTreeSet<String> = [
        exchange("sub = \"a\"", url),
        exchange("sub = \"b\"", url),
        exchange("sub = \"a\", aud = \"x\"", url),
        exchange("sub = \"a\"", "token_url = \"https://auth.example.com/token\","),
        exchange("sub = \"a\"", &format!("{url} audience = \"x\",")),
        exchange("sub = \"a\"", &format!("{url} scopes = [\"x\"],")),
        exchange("sub = \"a\"", &format!("{url} resource = \"https://x.example.org/\",")),
        exchange("sub = \"a\"", &format!("{url} requested_token_type = \"urn:ietf:params:oauth:token-type:jwt\",")),
    ]
    .into();
    assert_eq!(keys.len(), 8);
    assert!(keys.contains(&exchange("sub = \"a\"", url)), "the same twice is the same");
}

#[test]
fn credentials_that_are_known_by_their_name_stay_where_they_are() {
    let apns = "[credential.c]\nsource = \"apns\"\nkey = \"env:KEY\"\nparams = { team_id = \"DEF123GHIJ\", key_id = \"ABC123DEFG\" }\n";
    assert_eq!(Identity::of(&read(apns)), None);
    // The place of the record of version 1: to change it would mint a second token.
    assert_eq!(key("c", &read(apns)), "cr/9bfd00913e8d81d219681c64ab16a6a1");
    // A chain of refresh tokens outlives a change of what is asked for.
    let refresh = "[credential.c]\nsource = \"oauth2-refresh\"\nparams = { token_url = \"https://auth.example.org/token\", client_id = \"me\", refresh_token = \"env:T\" }\n";
    assert_eq!(Identity::of(&read(refresh)), None);
}

#[test]
fn the_place_of_a_record_with_an_identity_stays_the_same() {
    let text = "[credential.c]\nsource = \"oauth2-client\"\nparams = { token_url = \"https://auth.example.org/token\", client_id = \"me\", client_secret = \"env:S\" }\n";
    assert_eq!(key("c", &read(text)), "cr/efe29b2152fd87c14068b63bb0dc7819");
    // A new secret of the same client is no other client.
    assert_eq!(key("c", &read(&text.replace("env:S", "env:T"))), key("c", &read(text)));
}
