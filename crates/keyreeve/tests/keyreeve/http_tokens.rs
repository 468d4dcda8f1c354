//! Access tokens over HTTP: whose are whose, what is answered, and what is refused before anything is done.

use serde_json::{Value, json};

use crate::http_world::{Answer, World, pass};
use crate::issuer_world::{self, ISSUER};

fn world() -> World {
    issuer_world::world(&format!("{ISSUER}{}", issuer_world::clients()))
}

async fn post(world: &World, path: &str, who: &str, body: Value) -> Answer {
    world.post(path, who, &body.to_string()).await
}

async fn create(world: &World, target: &str) -> Value {
    let answer = post(world, "/v1/tokens", "ops", json!({ "target": target, "alias": "ci" })).await;
    assert_eq!(answer.status, 201, "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shown_once_and_listed_without_its_secret() {
    let world = world();
    let made = create(&world, "acme").await;
    let (token, id) = (text(&made, "token"), text(&made, "id"));
    let secret = token.split('_').nth(2).unwrap();
    for path in [format!("/v1/tokens/{id}"), "/v1/tokens?target=acme&family=cdn&limit=5".to_owned()] {
        let answer = world.get(&path, "ops").await;
        assert!(answer.status == 200 && answer.body.contains(id) && !answer.body.contains(secret), "{answer}");
    }
    insta::assert_snapshot!(
        "created",
        world.get(&format!("/v1/tokens/{id}"), "ops").await.to_string().replace(id, "TOKEN")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_of_others_is_answered_as_one_that_is_not_there() {
    let world = world();
    let id = create(&world, "acme").await["id"].as_str().unwrap().to_owned();
    let other = "aaaaaaaa-0000-4000-8000-000000000000";
    for (method, rest) in [("GET", ""), ("POST", "/roll"), ("POST", "/duplicate"), ("POST", "/revoke")] {
        let ask = async |id: &str| {
            let path = format!("/v1/tokens/{id}{rest}");
            let answer = if method == "GET" {
                world.get(&path, "elsewhere").await
            } else {
                post(&world, &path, "elsewhere", json!({})).await
            };
            assert_eq!(answer.status, 404);
            answer.to_string()
        };
        assert_eq!(ask(&id).await.replace(&id, "ID"), ask(other).await.replace(other, "ID"), "{rest}");
    }
    // Families and targets that are not the caller's, and those that are not there.
    let mine = post(&world, "/v1/tokens/verify", "elsewhere", json!({ "target": "acme", "token": "x" })).await;
    let none =
        post(&world, "/v1/tokens/verify", "ops", json!({ "target": "acme", "token": "x", "family": "no" })).await;
    assert_eq!((mine.status.as_u16(), mine.to_string()), (404, none.to_string()));
    assert_eq!(world.get("/v1/tokens?target=acme", "elsewhere").await.status, 404);
    assert_eq!(post(&world, "/v1/tokens/drop-target", "elsewhere", json!({ "target": "acme" })).await.status, 404);
    assert_eq!(text(&world.get(&format!("/v1/tokens/{id}"), "ops").await.json(), "state"), "active");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_revoked_with_its_target_or_without_and_only_where_that_is_the_callers() {
    let world = world();
    let id = create(&world, "acme").await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{id}/revoke");
    let status = async |who: &str, body: Value| post(&world, &path, who, body).await.status.as_u16();
    assert_eq!(status("elsewhere", json!({ "target": "acme" })).await, 404);
    assert_eq!(status("ops", json!({ "target": "other" })).await, 404);
    assert_eq!(status("ops", json!({ "target": "acme", "family": "no" })).await, 404);
    assert_eq!(status("ops", json!({ "family": "cdn" })).await, 400);
    assert_eq!(status("ops", json!({ "target": 1 })).await, 400);
    assert_eq!(text(&world.get(&format!("/v1/tokens/{id}"), "ops").await.json(), "state"), "active");
    let revoked = post(&world, &path, "ops", json!({ "target": "acme", "family": "cdn" })).await.json();
    assert_eq!((text(&revoked, "state"), text(&revoked, "id")), ("revoked", id.as_str()));
}

#[tokio::test(start_paused = true)]
async fn pages_follow_one_another() {
    let world = world();
    let mut made = Vec::new();
    for _ in 0..7 {
        made.insert(0, text(&create(&world, "acme").await, "id").to_owned());
        pass(5).await;
    }
    let (mut listed, mut path) = (Vec::new(), "/v1/tokens?target=acme&limit=3".to_owned());
    loop {
        let page = world.get(&path, "ops").await.json();
        listed.extend(page["tokens"].as_array().unwrap().iter().map(|token| text(token, "id").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/tokens?target=acme&limit=3&cursor={cursor}");
    }
    assert_eq!(listed, made);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_rolled_duplicated_revoked_and_dropped() {
    let world = world();
    let made = create(&world, "acme").await;
    let id = text(&made, "id");
    let rolled = post(&world, &format!("/v1/tokens/{id}/roll"), "ops", json!({ "grace": "2h" })).await;
    assert_eq!((rolled.status.as_u16(), text(&rolled.json(), "copied_from")), (201, id));
    let shown = world.get(&format!("/v1/tokens/{id}"), "ops").await.json();
    assert_eq!((text(&shown, "state"), text(&shown, "rolled_to")), ("rolling", text(&rolled.json(), "id")));
    let again = world.post(&format!("/v1/tokens/{id}/roll"), "ops", "").await;
    assert_eq!(again.status, 409, "{again}");
    let copy = post(&world, &format!("/v1/tokens/{id}/duplicate"), "ops", json!({ "alias": "copy" })).await;
    assert_eq!((copy.status.as_u16(), text(&copy.json(), "alias")), (201, "copy"));
    let revoked = world.post(&format!("/v1/tokens/{id}/revoke"), "ops", "").await.json();
    assert_eq!((text(&revoked, "state"), text(&revoked, "revoked_by")), ("revoked", "ops"));
    let check = async |token: &Value| {
        let body =
            json!({ "target": "acme", "token": text(token, "token"), "path": "/sdl", "type": "sdl", "address": "::1" });
        post(&world, "/v1/tokens/verify", "ops", body).await.json()
    };
    assert_eq!(text(&check(&made).await, "code"), "revoked");
    assert_eq!(check(&copy.json()).await["valid"], true);
    let dropped = post(&world, "/v1/tokens/drop-target", "ops", json!({ "target": "acme" })).await.json();
    assert_eq!(dropped["revoked"], 3);
    assert_eq!(text(&check(&copy.json()).await, "code"), "revoked");
    let early = post(&world, "/v1/tokens", "ops", json!({ "target": "acme", "alias": "ci" })).await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (409, Some("60")));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_named_and_nothing_is_made() {
    let world = world();
    let good = json!({ "target": "acme", "alias": "ci" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, status, said) in [
        (json!({ "alias": "ci" }), 400, "`target` is missing"),
        (with("target", json!("a/b")), 422, "`target` must be"),
        (with("target", json!(7)), 400, "`target` must be a string"),
        (with("alias", json!("")), 422, "`alias`"),
        (with("life", json!("soon")), 422, "`life` must be a duration"),
        (with("life", json!(90)), 400, "`life` must be a string"),
        (with("scope", json!([])), 400, "`scope` must be an object"),
        (with("scope", json!({ "path": ["/"] })), 400, "`scope` has"),
        (with("scope", json!({ "paths": "/" })), 400, "`scope.paths` must be an array"),
        (with("scope", json!({ "networks": ["10.0.0.1/8"] })), 422, "bits set"),
        (with("hash", json!("x")), 400, "unknown field `hash`"),
        (with("family", json!("no")), 404, "no access tokens of this family"),
    ] {
        let answer = post(&world, "/v1/tokens", "ops", body).await;
        assert!(answer.status == status && answer.body.contains(said), "{said}: {answer}");
    }
    for (path, status) in [
        ("/v1/tokens?target=acme&limit=x", 400),
        ("/v1/tokens?target=acme&limit=0", 422),
        ("/v1/tokens?target=acme&cursor=x", 422),
        ("/v1/tokens?target=..", 422),
        ("/v1/tokens/7", 404),
        ("/v1/tokens/AAAAAAAA-0000-4000-8000-000000000000", 404),
    ] {
        assert_eq!(world.get(path, "ops").await.status, status, "{path}");
    }
    let body = json!({ "target": "acme", "token": "x", "address": "here" });
    assert_eq!(post(&world, "/v1/tokens/verify", "ops", body).await.status, 422);
    let listed = world.get("/v1/tokens?target=acme", "ops").await;
    assert_eq!(listed.json(), json!({ "tokens": [] }));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_an_answer_of_its_own() {
    let world = world();
    let made = create(&world, "acme").await;
    world.unplug_store();
    let path = format!("/v1/tokens/{}", text(&made, "id"));
    for answer in [
        world.get(&path, "ops").await,
        world.get("/v1/tokens?target=acme", "ops").await,
        post(&world, "/v1/tokens", "ops", json!({ "target": "acme", "alias": "ci" })).await,
        post(&world, "/v1/tokens/drop-target", "ops", json!({ "target": "acme" })).await,
        post(&world, "/v1/tokens/verify", "ops", json!({ "target": "acme", "token": text(&made, "token") })).await,
    ] {
        assert_eq!(answer.status, 503, "{answer}");
        assert!(answer.header("retry-after").is_some() && !answer.body.contains("unplugged"), "{answer}");
    }
}
