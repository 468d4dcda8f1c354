//! A policy allows what a rule allows, and says what was missing where none does.

use keyreeve_core::json::Json;
use keyreeve_core::policy::{
    Act, Ask, Claim, Condition, DEPTH_MAX, Decision, LIST_MAX, Literal, PathError, Pattern, Policy, Request,
    RequestPath, Rule, Source, Subject, TESTS_MAX, Test, WHO_BYTES_MAX, Who,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const GATE: &str = "gate:orders";

fn rule(who: &str, can: &[&str]) -> Rule {
    Rule {
        who: Who::parse(who).unwrap_or_else(|error| panic!("{who}: {error}")),
        can: can.iter().map(|act| act.parse().unwrap()).collect(),
        on: vec![GATE.into()],
    }
}

fn decide(policy: &Policy, source: &Source, claims: &Value, (method, path): (&str, &str)) -> Decision {
    let path = RequestPath::parse(path).unwrap();
    let claims = read(claims);
    let subject = Subject { source, claims: claims.root() };
    policy.decide(subject, Request { on: GATE, method, path: &path })
}

/// Claims as a token's payload has them.
fn read(claims: &Value) -> Json {
    Json::parse(claims.to_string().into_bytes()).unwrap()
}

fn gateway() -> Source {
    Source::Issuer("gateway".into())
}

/// Whether a condition holds for claims.
fn holds(condition: &str, claims: &Value) -> bool {
    let who =
        Who::parse(&format!("issuer:gateway[{condition}]")).unwrap_or_else(|error| panic!("{condition}: {error}"));
    who.condition.holds(read(claims).root())
}

fn denied(policy: &Policy, claims: &Value, request: (&str, &str)) -> String {
    match decide(policy, &gateway(), claims, request) {
        Decision::Deny(denial) => denial.to_string(),
        Decision::Allow(rule) => panic!("rule {} allowed it", rule + 1),
    }
}

#[test]
fn nothing_is_allowed_that_no_rule_allows() {
    let claims = json!({ "permissions": ["orders:write"] });
    assert_eq!(
        denied(&Policy::default(), &claims, ("GET", "/")),
        "there is no rule on `gate:orders`, and what no rule allows is denied"
    );
    let policy = Policy::new(vec![rule("issuer:gateway[permissions has 'orders:write']", &["POST /orders/*"])]);
    assert_eq!(decide(&policy, &gateway(), &claims, ("POST", "/orders/7")), Decision::Allow(0));
    let elsewhere = Source::Verifier("gateway".into());
    assert!(matches!(decide(&policy, &elsewhere, &claims, ("POST", "/orders/7")), Decision::Deny(_)));
    let mut other = policy.rules().to_vec();
    other[0].on = vec!["gate:other".into()];
    assert!(matches!(decide(&Policy::new(other), &gateway(), &claims, ("POST", "/orders/7")), Decision::Deny(_)));
}

#[test]
fn text_is_never_searched_as_if_it_were_a_list() {
    for text in ["orders:write", "orders:write admin", "no-orders:write-at-all"] {
        let claims = json!({ "permissions": text, "roles": text });
        for question in [
            "permissions has 'orders:write'",
            "permissions has any ('orders:write', 'admin')",
            "permissions has all ('orders:write')",
            "permissions has like '*'",
            "permissions within ('orders:write')",
            "roles has 'orders:write'",
        ] {
            assert!(!holds(question, &claims), "{question} on {text}");
        }
    }
    let policy = Policy::new(vec![rule("issuer:gateway[permissions has 'w']", &["GET /"])]);
    assert_eq!(
        denied(&policy, &json!({ "permissions": "w" }), ("GET", "/")),
        "no rule allows it: rule 1 would if `permissions` had 'w' (it is text, and no list)"
    );
}

#[test]
fn scopes_are_words_and_an_audience_may_stand_alone() {
    let claims = json!({ "scope": "orders:read  orders:write", "scp": "a b", "aud": "api", "inner": { "scope": "a" } });
    for question in
        ["scope has 'orders:write'", "scope has all ('orders:read', 'orders:write')", "scp has 'a'", "aud has 'api'"]
    {
        assert!(holds(question, &claims), "{question}");
    }
    for question in
        ["scope has 'orders'", "scope has ''", "aud has 'ap'", "inner.scope has 'a'", "scope within ('orders:read')"]
    {
        assert!(!holds(question, &claims), "{question}");
    }
    assert!(holds("aud has 'b'", &json!({ "aud": ["a", "b"] })));
    assert!(holds("scope has 'a'", &json!({ "scope": ["a", "b"] })));
}

#[test]
fn each_question_has_its_answer() {
    let claims = json!({
        "sub": "repo:acme/shop:ref:refs/heads/main", "email_verified": true, "level": 3, "roles": ["admin", "dev"],
        "realm_access": { "roles": ["ops"] }, "https://example.org/groups": ["blue"], "it's": "x", "none": null,
    });
    for question in [
        "roles has 'admin'",
        "roles has any ('root', 'dev')",
        "roles has all ('dev', 'admin')",
        "roles has like 'adm*'",
        "roles within ('admin', 'dev', 'ops')",
        "realm_access.roles has 'ops'",
        "'https://example.org/groups' has 'blue'",
        "sub like 'repo:acme/*:ref:refs/heads/main'",
        "sub is 'repo:acme/shop:ref:refs/heads/main'",
        "email_verified is true",
        "level is 3",
        "'it''s' is 'x'",
        "actor is none",
        "roles has 'root' or (level is 3 and email_verified is true)",
    ] {
        assert!(holds(question, &claims), "{question}");
    }
    for question in [
        "roles has 'adm'",
        "roles has any ('root', 'a')",
        "roles has all ('dev', 'root')",
        "roles has like 'adm'",
        "roles within ('admin')",
        "realm_access has 'ops'",
        "sub like 'repo:acme/'",
        "sub like 'repo:evil/*'",
        "email_verified is 'true'",
        "email_verified is 1",
        "level is '3'",
        "level is 4",
        "none is 'null'",
        "gone within ('a')",
        "gone like '*'",
        "sub has 'repo:acme/shop:ref:refs/heads/main'",
        "roles is 'admin'",
        "actor like '*'",
        "roles has 'root' and level is 3",
    ] {
        assert!(!holds(question, &claims), "{question}");
    }
}

#[test]
fn only_the_present_actor_gives_reasons_and_a_malformed_chain_gives_none() {
    let chain = json!({ "sub": "ann", "act": { "sub": "billing", "act": { "sub": "gateway" } } });
    assert!(holds("actor is 'billing'", &chain) && holds("actor like 'bill*'", &chain));
    assert!(!holds("actor is 'gateway'", &chain) && !holds("actor is none", &chain));
    assert!(holds("actors within ('gateway', 'billing')", &chain));
    assert!(!holds("actors within ('billing')", &chain));
    assert!(holds("actors within ('billing')", &json!({ "sub": "ann" })));
    let mut long = json!({ "sub": "a" });
    for _ in 0..8 {
        long = json!({ "sub": "a", "act": long });
    }
    for act in
        [json!("billing"), json!(null), json!({}), json!({ "sub": 5 }), json!({ "sub": "billing", "act": 1 }), long]
    {
        let claims = json!({ "act": act });
        for question in
            ["actor is 'billing'", "actor is 'a'", "actor is none", "actors within ('billing', 'a')", "actor like '*'"]
        {
            assert!(!holds(question, &claims), "{question} of {claims}");
        }
    }
}

#[test]
fn the_nearest_miss_is_the_rule_that_lacks_least() {
    let policy = Policy::new(vec![
        rule("issuer:gateway[roles has 'admin' and email_verified is true]", &["* /**"]),
        rule("verifier:auth0[roles has 'admin']", &["POST /orders/*"]),
        rule(
            "issuer:gateway[permissions has all ('orders:read', 'orders:write')]",
            &["POST /orders/*", "PUT /orders/*"],
        ),
        rule("issuer:gateway", &["GET /health"]),
    ]);
    let claims = json!({ "permissions": ["orders:read"] });
    let said = |method: &str, path: &str| denied(&policy, &claims, (method, path)).replace("no rule allows it: ", "");
    assert_eq!(said("POST", "/orders/7"), "rule 3 would if `permissions` had 'orders:write'");
    assert_eq!(
        said("DELETE", "/orders/7"),
        "rule 1 would if `roles` had 'admin' (it is not there) and `email_verified` were true (it is not there)"
    );
    assert_eq!(
        said("POST", "/health"),
        "rule 1 would if `roles` had 'admin' (it is not there) and `email_verified` were true (it is not there)"
    );
    let narrow = Policy::new(policy.rules()[1..].to_vec());
    let said = |method: &str, path: &str| denied(&narrow, &claims, (method, path)).replace("no rule allows it: ", "");
    assert_eq!(said("POST", "/health"), "rule 3 would if the method were `GET`");
    assert_eq!(
        said("POST", "/orders/7/items"),
        "rule 2 would if the path were `/orders/*` and `permissions` had 'orders:write'"
    );
    assert_eq!(said("PATCH", "/health"), "rule 3 would if the method were `GET`");
    let far = Policy::new(policy.rules()[1..2].to_vec());
    assert_eq!(
        denied(&far, &claims, ("GET", "/x")),
        "no rule allows it: the one on `gate:orders` is about something else"
    );
    assert_eq!(
        denied(&far, &json!({ "roles": ["admin"] }), ("POST", "/orders/7")),
        "no rule allows it: rule 1 would if the token came from `verifier:auth0`"
    );
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_not_read() {
    use PathError::{Ambiguous, Dots, Empty, Encoding, Relative};
    for (path, error) in [
        ("", Relative),
        ("*", Relative),
        ("https://example.org/", Relative),
        ("/orders/../admin", Dots),
        ("/orders/..", Dots),
        ("/./orders", Dots),
        ("/orders/%2e%2E/admin", Dots),
        ("/orders/.%2e", Dots),
        ("/orders/..;x=1/admin", Dots),
        ("/orders/..%3bx/admin", Dots),
        ("//orders", Empty),
        ("/orders//7", Empty),
        ("/orders%2f7", Ambiguous),
        ("/orders%2F..%2Fadmin", Ambiguous),
        ("/orders/%252e%252e/admin", Ambiguous),
        ("/orders/%25%32e", Ambiguous),
        ("/orders\\..\\admin", Ambiguous),
        ("/orders%5c7", Ambiguous),
        ("/orders/7%00", Ambiguous),
        ("/orders/7%0d%0a", Ambiguous),
        ("/orders#x", Ambiguous),
        ("/orders%23x", Ambiguous),
        ("/orders/%", Encoding),
        ("/orders/%zz", Encoding),
        ("/orders/%ff", Encoding),
    ] {
        assert_eq!(RequestPath::parse(path).map(|path| path.as_str().to_owned()), Err(error), "{path}");
    }
    let long = format!("/{}", "a".repeat(8192));
    assert_eq!(RequestPath::parse(&long), Err(PathError::TooLong));
    assert!(RequestPath::parse(&format!("/{}", "a".repeat(8191))).is_ok());
    for (sent, read) in [
        ("/", "/"),
        ("/a?x=../..", "/a"),
        ("/a%20b/", "/a b/"),
        ("/100%25", "/100%"),
        ("/%C3%A9", "/é"),
        ("/...", "/..."),
    ] {
        assert_eq!(RequestPath::parse(sent).unwrap().as_str(), read);
    }
}

#[test]
fn a_star_stays_within_its_part_of_the_path_and_two_go_on_below() {
    let fits = |act: &str, path: &str| act.parse::<Act>().unwrap().has_path(&RequestPath::parse(path).unwrap());
    for (act, path, is_fit) in [
        ("GET /", "/", true),
        ("GET /", "/a", false),
        ("GET /orders", "/orders", true),
        ("GET /orders", "/orders/", false),
        ("GET /orders/", "/orders/", true),
        ("GET /orders/*", "/orders/7", true),
        ("GET /orders/*", "/orders/", false),
        ("GET /orders/*", "/orders", false),
        ("GET /orders/*", "/orders/7/items", false),
        ("GET /orders/*/items", "/orders/7/items", true),
        ("GET /orders/o-*.json", "/orders/o-7.json", true),
        ("GET /orders/o-*.json", "/orders/o-.json", false),
        ("GET /orders/o-*.json", "/orders/o-7.json.exe", false),
        ("GET /orders/a*b*c", "/orders/axbyc", true),
        ("GET /orders/a*b*c", "/orders/abxc", false),
        ("GET /orders/a*b*c", "/orders/axbxbc", true),
        ("GET /orders/**", "/orders/", true),
        ("GET /orders/**", "/orders/7/items", true),
        ("GET /orders/**", "/orders", false),
        ("GET /orders/**", "/orders-of-others", false),
        ("GET /**", "/", true),
        ("GET /**", "/a/b", true),
    ] {
        assert_eq!(fits(act, path), is_fit, "{act} {path}");
    }
    for bad in [
        "",
        "GET",
        "GET/",
        "get /",
        "GET  /",
        "GET /a//b",
        "GET /a/../b",
        "GET /a/**/b",
        "GET /a**",
        "GET /a?x",
        "GET /a%20b",
        "GET a",
        "GET /a#b",
        "GET|POST /",
        "GET //**",
        " /",
        "GET /\u{7}",
    ] {
        assert!(bad.parse::<Act>().is_err(), "{bad}");
    }
    let read: Act = "GET /x".parse().unwrap();
    assert!(read.has_method("GET") && read.has_method("HEAD") && !read.has_method("get") && !read.has_method("POST"));
    let any: Act = "* /x".parse().unwrap();
    assert!(any.has_method("PURGE"));
}

fn refused(text: &str) -> String {
    let error = Who::parse(text).expect_err(text);
    assert!(!error.hint.is_empty());
    error.to_string()
}

#[test]
fn what_is_wrong_with_a_rule_is_said_with_its_column() {
    for (text, said) in [
        ("", "expected `issuer:` or `verifier:`, found the end at column 1"),
        ("gateway", "expected `issuer:` or `verifier:`, found `gateway` at column 1"),
        ("issuer gateway", "expected `:`, found `gateway` at column 8"),
        ("issuer:", "expected a name of a-z, 0-9, `.`, `_` and `-`, found the end at column 8"),
        ("issuer:Gateway", "expected a name of a-z, 0-9, `.`, `_` and `-`, found `Gateway` at column 8"),
        ("issuer:gateway permissions", "expected `[` or the end, found `permissions` at column 16"),
        ("issuer:gateway[]", "expected a claim, found `]` at column 16"),
        ("issuer:gateway[permissions]", "expected a question, found `]` at column 27"),
        ("issuer:gateway[permissions = 'x']", "expected a question, found `=` at column 28"),
        ("issuer:gateway[permissions has x]", "expected text, `any`, `all` or `like`, found `x]` at column 32"),
        ("issuer:gateway[permissions has 'x]", "a quote is not closed at column 32"),
        ("issuer:gateway[permissions has any 'x']", "expected `(`, found `'x']` at column 36"),
        ("issuer:gateway[permissions has any ('x' 'y')]", "expected `,` or `)`, found `'y')]` at column 41"),
        ("issuer:gateway[permissions has 'x'", "expected `]`, `and` or `or`, found the end at column 35"),
        ("issuer:gateway[permissions has 'x'] or", "expected the end, found `or` at column 37"),
        ("issuer:gateway[a has 'x' and b has 'y' or c has 'z']", "`and` and `or` stand side by side at column 40"),
        ("issuer:gateway[not a has 'x']", "there is no `not` at column 16"),
        ("issuer:gateway[sub is none]", "only `actor` can be asked whether it is none at column 16"),
        ("issuer:gateway[actors has 'x']", "`actors` can only be asked `within` at column 23"),
        ("issuer:gateway[actor has 'x']", "`actor` can only be asked `is`, `like` or `is none` at column 22"),
        (
            "issuer:gateway[level is 03]",
            "expected text, a whole number, `true`, `false` or `none`, found `03]` at column 25",
        ),
        ("issuer:gateway['é' is 'é' x]", "expected `]`, `and` or `or`, found `x]` at column 27"),
    ] {
        assert_eq!(refused(text), said, "{text}");
    }
}

#[test]
fn each_limit_of_a_rule_holds_at_its_edge() {
    let many = |count: usize| format!("issuer:g[{}]", vec!["a is 1"; count].join(" or "));
    assert!(Who::parse(&many(TESTS_MAX)).is_ok());
    assert!(refused(&many(TESTS_MAX + 1)).contains("more than 64 questions"));
    let list = |count: usize| format!("issuer:g[a has any ({})]", vec!["'x'"; count].join(","));
    assert!(Who::parse(&list(LIST_MAX)).is_ok());
    assert!(refused(&list(LIST_MAX + 1)).contains("more than 64 entries"));
    let deep = |depth: usize| format!("issuer:g[{}a is 1{}]", "(".repeat(depth), ")".repeat(depth));
    assert!(Who::parse(&deep(DEPTH_MAX)).is_ok());
    assert!(refused(&deep(DEPTH_MAX + 1)).contains("more than 8 deep"));
    let long = |bytes: usize| format!("issuer:g[a is '{}']", "x".repeat(bytes - 17));
    assert!(Who::parse(&long(WHO_BYTES_MAX)).is_ok());
    assert!(refused(&long(WHO_BYTES_MAX + 1)).contains("the most is 2048"));
    assert!(refused(&format!("issuer:g[{} is 1]", ["a"; 9].join("."))).contains("more than 8 names deep"));
}

// --- properties ---------------------------------------------------------------------------------------------------

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c:*']{0,4}", Just("orders:write".to_owned()), "\\PC{0,3}"]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(text(), 1..4)
}

fn claim_path() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![Just("permissions".to_owned()), Just("roles".to_owned()), Just("not".to_owned()), text()];
    proptest::collection::vec(name, 1..3)
}

/// Questions that more claims can only bring nearer to yes.
fn growing_test() -> impl Strategy<Value = Test> {
    let ask = prop_oneof![
        text().prop_map(Ask::Has),
        texts().prop_map(Ask::HasAny),
        texts().prop_map(Ask::HasAll),
        text().prop_map(|text| Ask::HasLike(Pattern::new(text))),
    ];
    (claim_path(), ask).prop_map(|(path, ask)| Test { claim: Claim::Named(path), ask })
}

fn any_test() -> impl Strategy<Value = Test> {
    let literal = prop_oneof![
        text().prop_map(Literal::Text),
        any::<i64>().prop_map(Literal::Number),
        any::<bool>().prop_map(Literal::Flag)
    ];
    let ask = prop_oneof![
        texts().prop_map(Ask::Within),
        literal.prop_map(Ask::Is),
        text().prop_map(|text| Ask::Like(Pattern::new(text)))
    ];
    prop_oneof![
        growing_test(),
        (claim_path(), ask).prop_map(|(path, ask)| Test { claim: Claim::Named(path), ask }),
        texts().prop_map(|texts| Test { claim: Claim::Actors, ask: Ask::Within(texts) }),
        text().prop_map(|text| Test { claim: Claim::Actor, ask: Ask::Is(Literal::Text(text)) }),
        Just(Test { claim: Claim::Actor, ask: Ask::IsNone }),
    ]
}

fn condition(test: impl Strategy<Value = Test> + 'static) -> impl Strategy<Value = Condition> {
    test.prop_map(Condition::Test).prop_recursive(3, 12, 3, |inner| {
        let parts = proptest::collection::vec(inner, 2..4);
        (parts, any::<bool>())
            .prop_map(|(parts, is_all)| if is_all { Condition::All(parts) } else { Condition::Any(parts) })
    })
}

fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let list = texts().prop_map(Value::from);
    let value = prop_oneof![3 => list, 1 => text().prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from)];
    proptest::collection::vec((claim_path(), value), 0..4).prop_map(|entries| {
        let mut claims = Map::new();
        for (path, value) in entries {
            claims.insert(path[0].clone(), value);
        }
        claims
    })
}

proptest! {
    #[test]
    fn a_rule_that_is_written_out_is_read_as_the_same_rule(condition in condition(any_test())) {
        let who = Who { source: Source::Verifier("auth0".into()), condition };
        let text = who.to_string();
        prop_assume!(text.len() <= WHO_BYTES_MAX);
        prop_assert_eq!(Who::parse(&text), Ok(who), "{}", text);
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused_at_a_column_of_its_own(text in "(issuer:a\\[)?[\\PC'()\\[\\]a-c ]{0,40}") {
        if let Err(error) = Who::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}", error);
        }
        let _ = text.parse::<Act>();
        let _ = RequestPath::parse(&text);
    }

    #[test]
    fn one_more_entry_in_a_list_never_turns_yes_into_no(
        condition in condition(growing_test()), claims in claims(), at in any::<proptest::sample::Index>(), more in text(),
    ) {
        let mut richer = claims.clone();
        let mut lists: Vec<_> = richer.values_mut().filter_map(Value::as_array_mut).collect();
        if !lists.is_empty() {
            let at = at.index(lists.len());
            lists[at].push(more.into());
        }
        let holds = |claims: Map<String, Value>| condition.holds(read(&Value::Object(claims)).root());
        prop_assert!(!holds(claims) || holds(richer));
    }

    #[test]
    fn a_denial_always_names_what_is_missing_and_an_allowing_rule_allows_alone(
        conditions in proptest::collection::vec(condition(any_test()), 1..4), claims in claims(),
    ) {
        let rules: Vec<Rule> = conditions
            .into_iter()
            .map(|condition| Rule { who: Who { source: gateway(), condition }, can: vec!["GET /x".parse().unwrap()], on: vec![GATE.into()] })
            .collect();
        let claims = Value::Object(claims);
        match decide(&Policy::new(rules.clone()), &gateway(), &claims, ("GET", "/x")) {
            Decision::Allow(index) => {
                let alone = Policy::new(vec![rules[index].clone()]);
                prop_assert_eq!(decide(&alone, &gateway(), &claims, ("GET", "/x")), Decision::Allow(0));
            }
            Decision::Deny(denial) => {
                let nearest = denial.nearest.unwrap();
                prop_assert!(!nearest.lacks.is_empty());
                let alone = Policy::new(vec![rules[nearest.rule].clone()]);
                prop_assert!(matches!(decide(&alone, &gateway(), &claims, ("GET", "/x")), Decision::Deny(_)));
            }
        }
    }

    #[test]
    fn a_path_that_is_read_has_no_way_up(path in "/[a-c./%25eE2;\\\\]{0,16}") {
        if let Ok(read) = RequestPath::parse(&path) {
            prop_assert!(!read.as_str().split('/').any(|part| part == ".." || part == "."));
            prop_assert!(!read.as_str().contains("//") && !read.as_str().contains('\\'));
        }
    }
}
