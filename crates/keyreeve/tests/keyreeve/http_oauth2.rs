//! What clients ask of an issuer over HTTP: who may do what, and what strangers hear.

use std::collections::BTreeMap;

use axum::body::Body;
use http::Request;
use keyreeve::core::jwt::{Expected, JwkSet, Unverified};
use keyreeve::crypto::check;
use keyreeve::http::{Access, ClientCertificate, ROUTES};
use keyreeve::jwt::{Verifier, key_set};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http_world::{Answer, EPOCH_MS, MINUTE, SECOND, World, pass};
use crate::inbound_world::TestKey;
use crate::issuer_world::{ISSUER, clients, encoded, hex, post, token, world, world_trusting};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn new() -> World {
    world(&format!("{ISSUER}{}", clients()))
}

/// What a token says, and its header; nothing is verified here.
fn said(token: &str) -> (Value, Value) {
    let token = Unverified::parse(token).unwrap();
    let json = |json: keyreeve::core::json::Json| {
        let mut text = String::new();
        json.root().write(&mut text);
        serde_json::from_str(&text).unwrap()
    };
    (json(token.header_json().unwrap()), json(token.unverified_claims().unwrap()))
}

fn error(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert!(body["error_description"].is_string(), "{answer}");
    (answer.status.as_u16(), body["error"].as_str().unwrap().to_owned())
}

async fn is_active(world: &World, token: &str) -> bool {
    let answer = post(world, "/oauth2/introspect", "orders", &[("token", token)]).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.json()["active"].as_bool().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_an_access_token_with_what_it_may_have_and_no_more() {
    let world = new();
    let form = [GRANT, ("scope", "read"), ("audience", "other")];
    let answer = post(&world, "/oauth2/token", "orders", &form).await;
    assert_eq!(answer.status, 200, "{answer}");
    let body = answer.json();
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["scope"]),
        (&"Bearer".into(), &900.into(), &"read".into())
    );
    let (header, claims) = said(body["access_token"].as_str().unwrap());
    assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &"EdDSA".into()));
    let iat = EPOCH_MS / 1000;
    assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    let mut claims = claims;
    claims["jti"] = Value::Null;
    let expected = json!({
        "iss": "https://push.example", "sub": "orders", "client_id": "orders", "aud": "other", "iat": iat,
        "exp": iat + 900, "scope": "read", "roles": ["service"], "jti": null,
    });
    assert_eq!(claims, expected);
    // The defaults: all of its scopes, the first of its audiences.
    let (_, claims) = said(&token(&world, "billing", &[]).await);
    assert_eq!((&claims["aud"], &claims["scope"]), (&"other".into(), &"read".into()));
    for (form, wanted) in [
        ([GRANT, ("scope", "admin")], "invalid_scope"),
        ([GRANT, ("scope", "read admin")], "invalid_scope"),
        ([GRANT, ("audience", "elsewhere")], "invalid_target"),
        ([GRANT, ("resource", "https://elsewhere")], "invalid_target"),
        ([("grant_type", "password"), ("username", "x")], "unsupported_grant_type"),
        ([("grant_type", ""), ("scope", "read")], "invalid_request"),
    ] {
        let answer = post(&world, "/oauth2/token", "orders", &form).await;
        assert_eq!(error(&answer), (400, wanted.to_owned()), "{form:?}");
    }
    let answer = post(&world, "/oauth2/token", "billing", &[GRANT, ("audience", "api")]).await;
    assert_eq!(error(&answer), (400, "invalid_target".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn every_route_of_clients_refuses_strangers_and_clients_that_may_not() {
    let two = format!("{ISSUER}{}[issuer.second]\nurl = \"https://second.example\"\naudience = [\"api\"]\n", clients());
    let second = world(&two);
    let first = new();
    let routes: Vec<_> = ROUTES.iter().filter(|route| route.access == Access::Clients).collect();
    assert_eq!(routes.len(), 6);
    for route in routes {
        let path = route.path.replace("{name}", "push");
        let (form, may, may_not): (&[(&str, &str)], _, _) = match path.rsplit('/').next().unwrap() {
            "token" => (&[GRANT], "orders", "idle"),
            "introspect" => (&[("token", "x")], "idle", "billing"),
            _ => (&[("token", "x")], "orders", "idle"),
        };
        assert_eq!(post(&first, &path, may, form).await.status, 200, "{path} as {may}");
        assert_eq!(error(&post(&first, &path, may_not, form).await), (400, "unauthorized_client".into()), "{path}");
        for nobody in ["", "nobody", "signer", "bound"] {
            assert_eq!(
                error(&post(&first, &path, nobody, form).await),
                (401, "invalid_client".into()),
                "{path} as {nobody}"
            );
        }
        // A client of one issuer is nobody to another one; and with two of them there is no route without a name.
        if path.starts_with("/issuer/") {
            let other = route.path.replace("{name}", "second");
            assert_eq!(error(&post(&second, &other, may, form).await), (401, "invalid_client".into()), "{other}");
            assert_eq!(post(&second, &path, may, form).await.status, 200, "{path}");
            let none = route.path.replace("{name}", "third");
            assert_eq!(post(&second, &none, may, form).await.status, 404, "{none}");
        } else {
            assert_eq!(post(&second, &path, may, form).await.status, 404, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_hear_one_sentence() {
    let world = new();
    let send = async |authorization: &str, form: &[(&str, &str)]| {
        let mut request = Request::post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        world.send(request.body(Body::from(encoded(form))).unwrap()).await.json().to_string()
    };
    let first = send("", &[GRANT]).await;
    assert!(first.contains("invalid_client"), "{first}");
    for (authorization, form) in [
        // orders:wrong, nobody:secret-nobody, no colon, not base64, another scheme.
        ("Basic b3JkZXJzOndyb25n", &[GRANT][..]),
        ("Basic bm9ib2R5OnNlY3JldC1ub2JvZHk=", &[GRANT]),
        ("Basic b3JkZXJz", &[GRANT]),
        ("Basic !!", &[GRANT]),
        ("Bearer key-ops", &[GRANT]),
        ("", &[GRANT, ("client_id", "orders")]),
        ("", &[GRANT, ("client_id", "orders"), ("client_secret", "wrong")]),
        ("", &[GRANT, ("client_id", "nobody"), ("client_secret", "secret-orders")]),
        ("", &[GRANT, ("client_assertion_type", ASSERTION), ("client_assertion", "a.b.c")]),
        ("", &[GRANT, ("client_id", "orders"), ("client_assertion_type", ASSERTION), ("client_assertion", "x")]),
    ] {
        assert_eq!(send(authorization, form).await, first, "{authorization} {form:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_read_strictly() {
    let world = new();
    let send = async |kind: &str, body: String| {
        let request = Request::post("/oauth2/token").header("content-type", kind);
        let request = request.header("authorization", "Basic b3JkZXJzOnNlY3JldC1vcmRlcnM=");
        world.send(request.body(Body::from(body)).unwrap()).await
    };
    let form = "application/x-www-form-urlencoded";
    for (kind, body) in [
        ("application/json", "{}"),
        (form, "grant_type=client_credentials&grant_type=client_credentials"),
        (form, "grant_type=client_credentials&scope=%zz"),
        (form, "grant_type=client_credentials&client_secret=secret-orders&client_id=orders"),
        (form, "grant_type=client_credentials&client_id=billing"),
        (form, ""),
    ] {
        assert_eq!(error(&send(kind, body.into()).await), (400, "invalid_request".to_owned()), "{body}");
    }
    let many: String = (0..70).map(|n| format!("p{n}=1&")).collect();
    assert_eq!(error(&send(form, many).await), (400, "invalid_request".to_owned()));
    assert_eq!(send(form, "x".repeat(9000)).await.status, 413);
    // RFC 6749 3.2: what is unknown is ignored, and what is empty is not there.
    let fine = "grant_type=client_credentials&nonsense=1&scope=&audience=api&audience=other&client_id=orders";
    let answer = send("application/x-www-form-urlencoded; charset=utf-8", fine.into()).await;
    assert_eq!(answer.status, 200, "{answer}");
    let (_, claims) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["aud"], json!(["api", "other"]));
}

#[tokio::test(start_paused = true)]
async fn a_client_proves_itself_by_a_signed_assertion_once() {
    let world = new();
    let key = TestKey::new("s1", 9);
    let now_s = EPOCH_MS / 1000;
    let assertion = |change: Value| {
        let mut claims = json!({
            "iss": "signer", "sub": "signer", "aud": "https://push.example/oauth2/token", "iat": now_s, "exp": now_s + 120,
            "jti": "one",
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        key.signed_as("s1", &claims)
    };
    let ask = async |assertion: &str| {
        let form = [GRANT, ("client_assertion_type", ASSERTION), ("client_assertion", assertion)];
        post(&world, "/oauth2/token", "", &form).await
    };
    let good = assertion(json!({}));
    assert_eq!(ask(&good).await.status, 200);
    assert_eq!(error(&ask(&good).await), (401, "invalid_client".into()), "shown before");
    assert_eq!(ask(&assertion(json!({ "jti": "two", "aud": "https://push.example" }))).await.status, 200);
    for wrong in [
        json!({ "jti": "a", "sub": "orders" }),
        json!({ "jti": "a", "iss": "orders" }),
        json!({ "jti": "a", "aud": "https://elsewhere.example" }),
        json!({ "jti": "a", "exp": now_s + 3600 }),
        json!({ "jti": "a", "exp": now_s - 120 }),
        json!({ "jti": null }),
    ] {
        assert_eq!(error(&ask(&assertion(wrong.clone())).await), (401, "invalid_client".into()), "{wrong}");
    }
    let stranger = TestKey::new("s1", 10).signed_as(
        "s1",
        &json!({
            "iss": "signer", "sub": "signer", "aud": "https://push.example", "exp": now_s + 60, "jti": "b",
        }),
    );
    assert_eq!(ask(&stranger).await.status, 401);
    let form = [GRANT, ("client_assertion_type", "saml"), ("client_assertion", good.as_str())];
    assert_eq!(error(&post(&world, "/oauth2/token", "", &form).await), (400, "invalid_request".into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_proves_itself_by_a_certificate_and_its_token_is_bound_to_it() {
    let world = new();
    let send_as = async |client: &str, sha256: Option<[u8; 32]>, names: &[&str]| {
        let mut request = Request::post("/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
        if let Some(sha256) = sha256 {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            request = request.extension(ClientCertificate { sha256, names });
        }
        world.send(request.body(Body::from(encoded(&[GRANT, ("client_id", client)]))).unwrap()).await
    };
    let send = async |sha256: Option<[u8; 32]>| send_as("bound", sha256, &[]).await;
    let answer = send(Some([5; 32])).await;
    assert_eq!(answer.status, 200, "{answer}");
    let (_, claims) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["cnf"], json!({ "x5t#S256": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU" }));
    // In other hands it is worth nothing, to be exchanged for one that is not bound neither.
    let bound = answer.json()["access_token"].as_str().unwrap().to_owned();
    let form = [("grant_type", EXCHANGE), ("subject_token", bound.as_str()), ("subject_token_type", ACCESS)];
    assert_eq!(error(&post(&world, "/oauth2/token", "orders", &form).await), (400, "invalid_request".into()));
    for wrong in [None, Some([6; 32])] {
        assert_eq!(error(&send(wrong).await), (401, "invalid_client".into()));
    }
    // By a name that is vouched for, whichever certificate has it: the token is bound to this one all the same.
    let names = ["subject:CN=x", "dns:named.internal"];
    let answer = send_as("named", Some([7; 32]), &names).await;
    assert_eq!(answer.status, 200, "{answer}");
    let (_, claims) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["cnf"], json!({ "x5t#S256": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc" }));
    for wrong in [&[][..], &["dns:other.internal"], &["uri:named.internal"], &["dns:named.internal.evil"]] {
        assert_eq!(error(&send_as("named", Some([7; 32]), wrong).await), (401, "invalid_client".into()));
    }
    assert_eq!(error(&send_as("named", None, &names).await), (401, "invalid_client".into()));
    // One way for each client: a name is nothing to somebody who is known by the hash, and a hash nothing to a secret.
    assert_eq!(error(&send_as("bound", Some([7; 32]), &names).await), (401, "invalid_client".into()));
    assert_eq!(error(&send_as("orders", Some([5; 32]), &names).await), (401, "invalid_client".into()));
}

#[tokio::test(start_paused = true)]
async fn an_exchanged_token_names_who_acts_gains_nothing_and_does_not_outlive_the_first() {
    let world = new();
    let first = token(&world, "orders", &[]).await;
    pass(5 * MINUTE).await;
    let exchange = async |client: &str, subject: &str, more: &[(&str, &str)]| {
        let form =
            [&[("grant_type", EXCHANGE), ("subject_token", subject), ("subject_token_type", ACCESS)], more].concat();
        post(&world, "/oauth2/token", client, &form).await
    };
    let answer = exchange("billing", &first, &[]).await;
    assert_eq!(answer.status, 200, "{answer}");
    let body = answer.json();
    assert_eq!((&body["issued_token_type"], &body["expires_in"]), (&ACCESS.into(), &600.into()));
    let second = body["access_token"].as_str().unwrap().to_owned();
    let (_, claims) = said(&second);
    assert_eq!(
        (&claims["sub"], &claims["client_id"], &claims["aud"]),
        (&"orders".into(), &"billing".into(), &"other".into())
    );
    assert_eq!((&claims["act"], &claims["scope"]), (&json!({ "sub": "billing" }), &"read".into()));
    assert_eq!(claims["roles"], json!(["service"]));
    // A chain, the newest actor outside.
    let answer = exchange("orders", &second, &[]).await;
    let (_, claims) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["act"], json!({ "sub": "orders", "act": { "sub": "billing" } }));
    assert_eq!(claims["scope"], "read", "`write` was lost on the way and stays so");
    // An actor token is one of the client's own.
    let mine = token(&world, "billing", &[]).await;
    let types = [("actor_token_type", ACCESS), ("actor_token", mine.as_str())];
    assert_eq!(exchange("billing", &first, &types).await.status, 200);
    let theirs = [("actor_token_type", ACCESS), ("actor_token", first.as_str())];
    assert_eq!(error(&exchange("billing", &first, &theirs).await), (400, "invalid_request".into()));
    let widened = exchange("billing", &first, &[("scope", "write")]).await;
    assert_eq!(error(&widened), (400, "invalid_scope".into()));
    for (client, subject) in [("billing", "x.y.z"), ("billing", ""), ("idle", first.as_str())] {
        assert_eq!(exchange(client, subject, &[]).await.status, 400);
    }
    pass(11 * MINUTE).await;
    assert_eq!(error(&exchange("billing", &first, &[]).await), (400, "invalid_request".into()), "it is over");
}

#[tokio::test(start_paused = true)]
async fn an_assertion_brings_a_token_for_whom_the_client_speaks() {
    let world = new();
    let key = TestKey::new("s1", 9);
    let now_s = EPOCH_MS / 1000;
    let count = std::cell::Cell::new(0);
    let ask = async |change: Value| {
        count.set(count.get() + 1);
        let sign = |claims: &Value| key.signed_as("s1", claims);
        let client = json!({
            "iss": "signer", "sub": "signer", "aud": "https://push.example", "exp": now_s + 60, "jti": format!("c{}", count.get()),
        });
        let mut claims = json!({
            "iss": "signer", "sub": "user-7", "aud": "https://push.example", "exp": now_s + 60, "jti": format!("a{}", count.get()),
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (client, assertion) = (sign(&client), sign(&claims));
        let form = [
            ("grant_type", BEARER),
            ("assertion", assertion.as_str()),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", client.as_str()),
        ];
        post(&world, "/oauth2/token", "", &form).await
    };
    let answer = ask(json!({})).await;
    assert_eq!(answer.status, 200, "{answer}");
    let (_, claims) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!((&claims["sub"], &claims["client_id"]), (&"user-7".into(), &"signer".into()));
    assert_eq!(claims["scope"], "read", "all that the client may have, unless the assertion says less");
    let (_, claims) = said(ask(json!({ "scope": "write" })).await.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["scope"], Value::Null);
    for wrong in [
        json!({ "sub": "admin" }),
        json!({ "sub": null }),
        json!({ "iss": "orders" }),
        json!({ "iss": "https://push.example" }),
        json!({ "aud": "elsewhere" }),
        json!({ "exp": now_s - 120 }),
        json!({ "jti": "a1" }),
        json!({ "act": { "sub": "billing" } }),
    ] {
        assert_eq!(error(&ask(wrong.clone()).await), (400, "invalid_grant".into()), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_somebody_else_is_exchanged_by_whom_it_is_trusted_to() {
    let key = TestKey::new("auth0-1", 3);
    let keys = json!({ "keys": [key.jwk()] }).to_string();
    let (keys, _) = key_set(&JwkSet::parse_public(keys.as_bytes()).unwrap(), check);
    let expected = Expected::new(["https://auth0.example"], ["front"]).unwrap();
    let verifiers = BTreeMap::from([("auth0".to_owned(), Verifier::with_keys(expected, keys))]);
    let text = clients()
        .replace("scopes = [\"read\"]\naudience", "scopes = [\"read\"]\ntrusts = [\"verifier:auth0\"]\naudience");
    let text = format!("{ISSUER}[verifier.auth0]\nissuer = \"https://auth0.example\"\naudience = \"front\"\n{text}");
    let world = world_trusting(&text, verifiers);
    let now_s = EPOCH_MS / 1000;
    let claims = |aud: &str, exp: u64| {
        json!({ "iss": "https://auth0.example", "sub": "alice", "aud": aud, "iat": now_s, "exp": exp, "scope": "read write",
            "email": "alice@example.org", "secret": "x" })
    };
    let exchange = async |client: &str, subject: &str| {
        let form = [("grant_type", EXCHANGE), ("subject_token", subject), ("subject_token_type", ACCESS)];
        post(&world, "/oauth2/token", client, &form).await
    };
    let good = key.signed_as("auth0-1", &claims("front", now_s + 300));
    let answer = exchange("billing", &good).await;
    assert_eq!(answer.status, 200, "{answer}");
    let (_, said) = said(answer.json()["access_token"].as_str().unwrap());
    assert_eq!(
        (&said["iss"], &said["sub"], &said["act"]),
        (&"https://push.example".into(), &"alice".into(), &json!({ "sub": "billing" }))
    );
    assert_eq!(
        (&said["exp"], &said["scope"], &said["email"]),
        (&(now_s + 300).into(), &"read".into(), &"alice@example.org".into())
    );
    assert!(said["secret"].is_null(), "only what is known to be harmless is taken over");
    // Another audience, another client, a forger, an expired one: one answer.
    let forged = TestKey::new("auth0-1", 4).signed_as("auth0-1", &claims("front", now_s + 300));
    let elsewhere = key.signed_as("auth0-1", &claims("elsewhere", now_s + 300));
    let over = key.signed_as("auth0-1", &claims("front", now_s - 300));
    let first = error(&exchange("orders", &good).await);
    assert_eq!(first, (400, "invalid_request".into()));
    for wrong in [forged, elsewhere, over] {
        assert_eq!(error(&exchange("billing", &wrong).await), first);
    }
}

/// A world with clients that may bring assertions of an outside issuer, and that issuer's key. One client is named as it is.
fn world_of_assertions() -> (World, TestKey) {
    let key = TestKey::new("auth0-1", 3);
    let keys = json!({ "keys": [key.jwk()] }).to_string();
    let (keys, _) = key_set(&JwkSet::parse_public(keys.as_bytes()).unwrap(), check);
    let expected = Expected::new(["namesake"], ["front"]).unwrap();
    let verifiers = BTreeMap::from([("auth0".to_owned(), Verifier::with_keys(expected, keys))]);
    let client = |name: &str| {
        let secret = hex(&Sha256::digest(format!("secret-{name}")));
        let can =
            "can = [\"jwt-bearer\", \"token-exchange\"]\nscopes = [\"read\", \"write\"]\ntrusts = [\"verifier:auth0\"]";
        format!("[client.{name}]\nissuer = \"push\"\nsecret_sha256 = \"{secret}\"\n{can}\n")
    };
    let verifier =
        "[verifier.auth0]\nissuer = \"namesake\"\njwks_url = \"https://auth0.example/keys\"\naudience = \"front\"\n";
    let clients = format!("{}{}", client("bearer"), client("namesake"));
    (world_trusting(&format!("{ISSUER}{verifier}{clients}"), verifiers), key)
}

#[tokio::test(start_paused = true)]
async fn a_token_for_an_assertion_of_somebody_else_says_no_more_than_that_does() {
    let (world, key) = world_of_assertions();
    let now_s = EPOCH_MS / 1000;
    let ask = async |client: &str, change: Value, more: &[(&str, &str)]| {
        let mut claims = json!({ "iss": "namesake", "sub": "alice", "aud": "front", "exp": now_s + 300 });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let assertion = key.signed_as("auth0-1", &claims);
        let form = [&[("grant_type", BEARER), ("assertion", assertion.as_str())], more].concat();
        post(&world, "/oauth2/token", client, &form).await
    };
    let given = async |client: &str, change: Value| {
        let answer = ask(client, change, &[]).await;
        assert_eq!(answer.status, 200, "{answer}");
        said(answer.json()["access_token"].as_str().unwrap()).1
    };
    for (scope, expected) in [
        (json!("read"), json!("read")),
        (json!("admin write read"), json!("read write")),
        (json!("admin"), Value::Null),
        (json!(["read"]), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let claims = given("bearer", json!({ "scope": scope })).await;
        assert_eq!((&claims["sub"], &claims["scope"]), (&"alice".into(), &expected), "{scope}");
    }
    let wider = ask("bearer", json!({ "scope": "read" }), &[("scope", "write")]).await;
    assert_eq!(error(&wider), (400, "invalid_scope".into()));
    // Whoever acts for the subject acts on.
    let act = json!({ "sub": "robot", "act": { "sub": "older" } });
    assert_eq!(given("bearer", json!({ "act": act })).await["act"], act);
    let may_act = json!({ "sub": "bearer" });
    assert_eq!(given("bearer", json!({ "may_act": may_act })).await["may_act"], may_act);
    let refused = ask("bearer", json!({ "may_act": { "sub": "billing" } }), &[]).await;
    assert_eq!(error(&refused), (400, "invalid_grant".into()));
    // A client that is called as somebody else's issuer has no assertions of its own, and no longer lives.
    assert_eq!(given("namesake", json!({ "scope": "read" })).await["exp"], now_s + 300);
}

#[tokio::test(start_paused = true)]
async fn only_an_actor_whom_the_token_names_may_act() {
    let (world, key) = world_of_assertions();
    let now_s = EPOCH_MS / 1000;
    for (may_act, is_allowed) in [
        (Value::Null, true),
        (json!({ "sub": "bearer" }), true),
        (json!({ "sub": "bearer", "iss": "https://push.example" }), true),
        // RFC 8693 4.4: somebody else by the same name.
        (json!({ "sub": "bearer", "iss": "https://auth0.example" }), false),
        (json!({ "sub": "bearer", "iss": ["https://push.example"] }), false),
        (json!({ "sub": "billing" }), false),
        (json!({ "iss": "https://push.example" }), false),
        (json!({}), false),
        (json!("bearer"), false),
        (json!([]), false),
    ] {
        let mut claims = json!({ "iss": "namesake", "sub": "alice", "aud": "front", "exp": now_s + 300 });
        if !may_act.is_null() {
            claims["may_act"] = may_act.clone();
        }
        let subject = key.signed_as("auth0-1", &claims);
        let form = [("grant_type", EXCHANGE), ("subject_token", subject.as_str()), ("subject_token_type", ACCESS)];
        let answer = post(&world, "/oauth2/token", "bearer", &form).await;
        match is_allowed {
            true => assert_eq!(answer.status, 200, "{may_act}: {answer}"),
            false => assert_eq!(error(&answer), (400, "invalid_request".into()), "{may_act}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn introspection_says_what_an_active_token_says_and_nothing_about_others() {
    let world = new();
    let token = token(&world, "billing", &[]).await;
    let answer = post(&world, "/oauth2/introspect", "idle", &[("token", &token)]).await;
    let body = answer.json();
    assert_eq!(
        (&body["active"], &body["sub"], &body["client_id"]),
        (&true.into(), &"billing".into(), &"billing".into())
    );
    assert_eq!((&body["scope"], &body["token_type"]), (&"read".into(), &"Bearer".into()));
    let (start, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{start}.{}", signature.chars().rev().collect::<String>());
    for other in [forged.as_str(), "", "x", "a.b.c", &"x".repeat(900)] {
        let answer =
            post(&world, "/oauth2/introspect", "idle", &[("token", other), ("token_type_hint", "refresh_token")]).await;
        match other {
            "" => assert_eq!(error(&answer), (400, "invalid_request".into())),
            _ => assert_eq!(answer.json(), json!({ "active": false }), "{other}"),
        }
    }
    pass(15 * MINUTE).await;
    assert!(!is_active(&world, &token).await, "no leeway: it says when it ends");
}

#[tokio::test(start_paused = true)]
async fn a_client_revokes_its_own_tokens_and_no_others() {
    let world = new();
    let (mine, other) = (token(&world, "orders", &[]).await, token(&world, "billing", &[]).await);
    assert!(is_active(&world, &mine).await);
    let revoke = async |token: &str| post(&world, "/oauth2/revoke", "orders", &[("token", token)]).await;
    assert_eq!(revoke(&mine).await.status, 200);
    assert!(!is_active(&world, &mine).await);
    assert_eq!(revoke(&mine).await.status, 200, "twice is once");
    assert_eq!(error(&revoke(&other).await), (400, "unauthorized_client".into()));
    assert!(is_active(&world, &other).await);
    assert_eq!(revoke("nonsense").await.status, 200, "RFC 7009 2.2");
    // Nobody acts with it either.
    let form = [("grant_type", EXCHANGE), ("subject_token", mine.as_str()), ("subject_token_type", ACCESS)];
    assert_eq!(error(&post(&world, "/oauth2/token", "billing", &form).await), (400, "invalid_request".into()));
    world.unplug_store();
    let answer = revoke(&token(&world, "orders", &[]).await).await;
    assert_eq!(error(&answer), (503, "temporarily_unavailable".into()), "never a 200 that is not true");
    assert!(answer.header("retry-after").is_some() && !answer.body.contains("unplugged"));
}

#[tokio::test(start_paused = true)]
async fn keys_and_documents_are_published_with_their_age() {
    let world = new();
    let jwks = world.get("/.well-known/jwks.json", "").await;
    assert_eq!(jwks.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(jwks.header("access-control-allow-origin"), Some("*"));
    let keys = jwks.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert!(keys["keys"][0]["d"].is_null() && keys["keys"][0]["use"] == "sig");
    let request =
        |etag: &str| Request::get("/.well-known/jwks.json").header("if-none-match", etag).body(Body::empty()).unwrap();
    let etag = jwks.header("etag").unwrap().to_owned();
    let same = world.send(request(&etag)).await;
    assert_eq!((same.status.as_u16(), same.body.as_str(), same.header("etag")), (304, "", Some(etag.as_str())));
    world.post("/v1/issuers/push/rotate", "ops", "{}").await;
    assert_eq!(world.send(request(&etag)).await.status, 200, "the next key is there");
    let document = world.get("/.well-known/openid-configuration", "").await;
    assert_eq!(document.json()["jwks_uri"], "https://push.example/.well-known/jwks.json");
    assert_eq!(document.json()["issuer"], "https://push.example");
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/issuer/push",
        "/issuer/push/.well-known/openid-configuration",
    ] {
        assert_eq!(world.get(path, "").await.json(), document.json(), "{path}");
    }
    assert_eq!(world.get("/issuer/nobody/.well-known/jwks.json", "").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn operators_see_rotate_and_retire_keys() {
    let world = new();
    let kid = world.get("/.well-known/jwks.json", "").await.json()["keys"][0]["kid"].as_str().unwrap().to_owned();
    let leaked = token(&world, "orders", &[]).await;
    let state = world.get("/v1/issuers/push", "ops").await.json();
    assert_eq!((&state["keys"][0]["kid"], &state["keys"][0]["phase"]), (&kid.as_str().into(), &"active".into()));
    assert_eq!(state["bound_ms"], 1000 + 2 * 2000);
    let listed = world.get("/v1/issuers", "ops").await.json();
    assert_eq!(listed["issuers"][0]["name"], "push");
    assert_eq!(world.get("/v1/issuers", "elsewhere").await.json()["issuers"], json!([]));
    assert_eq!(world.post("/v1/issuers/push/rotate", "ops", "{}").await.status, 202);
    assert_eq!(world.post("/v1/issuers/push/rotate", "ops", "{}").await.problem(), "conflict");
    for wrong in [r#"{}"#, r#"{"kid":7}"#, r#"{"kid":"x","force":true}"#] {
        assert_eq!(world.post("/v1/issuers/push/retire", "ops", wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(world.post("/v1/issuers/push/retire", "ops", r#"{"kid":"x"}"#).await.problem(), "not-found");
    let retired = world.post("/v1/issuers/push/retire", "ops", &json!({ "kid": kid }).to_string()).await;
    assert_eq!(retired.status, 202, "{retired}");
    assert_eq!(retired.json()["history"].as_array().unwrap().last().unwrap()["kind"], "promoted");
    assert!(!is_active(&world, &leaked).await);
    assert!(is_active(&world, &token(&world, "orders", &[]).await).await);
    world.unplug_store();
    let answer = world.post("/v1/issuers/push/rotate", "ops", "{}").await;
    assert_eq!(answer.problem(), "store-unavailable");
    pass(2 * SECOND).await;
    assert_eq!(world.get("/.well-known/jwks.json", "").await.status, 200, "from memory");
}
