//! What the API answers when all is well.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;
use insta::assert_snapshot;
use keyreeve::config::{Keep, Surface};
use keyreeve::http::Site;

use crate::http_world::{Answer, Behaviour, HOUR, MINUTE, SECOND, World, local_request, pass, request};

const TOKEN: &str = "/v1/credentials/push/token";

/// The generation of an answer, which its `ETag` names too.
fn generation(answer: &Answer) -> u64 {
    let generation = answer.json()["generation"].as_u64().unwrap();
    assert!(answer.header("etag").unwrap().starts_with(&format!("\"g{generation}-")));
    generation
}

#[tokio::test(start_paused = true)]
async fn a_cold_caller_waits_for_the_mint_and_gets_the_token() {
    let world = World::new();
    assert_snapshot!(world.get(TOKEN, "worker").await);
}

#[tokio::test(start_paused = true)]
async fn named_fields_have_no_header_of_their_own() {
    let world = World::new();
    assert_snapshot!(world.get("/v1/credentials/acme%2Flake/token", "worker").await);
}

#[tokio::test(start_paused = true)]
async fn a_slot_token_needs_no_store() {
    let world = World::new();
    world.unplug_store();
    assert_snapshot!(world.get("/v1/credentials/slotted/token", "ops").await);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_name_is_one_segment_or_two() {
    let world = World::new();
    let one = world.get("/v1/credentials/acme%2Flake/token", "worker").await;
    let two = world.get("/v1/credentials/acme/lake/token", "worker").await;
    let escaped = world.get("/v1/credentials/%61cme%2flake/token", "worker").await;
    assert_eq!((one.status.as_u16(), &one.body), (200, &two.body));
    assert_eq!(one.body, escaped.body);
    for action in ["", "/history"] {
        let one = world.get(&format!("/v1/credentials/acme%2Flake{action}"), "ops").await;
        let two = world.get(&format!("/v1/credentials/acme/lake{action}"), "ops").await;
        assert_eq!((one.status.as_u16(), &one.body), (200, &two.body));
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_etag_is_answered_with_304_by_weak_comparison_lists_and_star() {
    let world = World::new();
    let first = world.get(TOKEN, "worker").await;
    let tag = first.header("etag").unwrap();
    for known in ["ETAG", "W/ETAG", "*", "\"g0\", ETAG", "\"x\" ,  W/ETAG"] {
        let request = request("GET", TOKEN, "worker").header("if-none-match", known.replace("ETAG", tag));
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 304, "{known}");
        assert_eq!(answer.body, "");
        assert_eq!(answer.header("etag"), Some(tag));
        assert!(answer.header("cache-control").unwrap().starts_with("private, max-age="));
    }
    // As older nodes named it; of another generation; of the same one, issued at another time.
    let of_another_time = tag.replace("-", "-1");
    for other in ["\"g1\"", "W/\"g1\"", "\"g2\"", "g1", tag.trim_matches('"'), &of_another_time, ""] {
        let request = request("GET", TOKEN, "worker").header("if-none-match", other);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &first.body), "{other}");
    }
}

/// While a change of what a credential is for is rolled out, two nodes have two of them under one name, and each counts by itself.
/// So do two stores.
#[tokio::test(start_paused = true)]
async fn who_goes_to_a_node_with_another_store_is_not_told_that_nothing_has_changed() {
    let (world, other) = (World::new(), World::new());
    let first = world.get(TOKEN, "worker").await;
    pass(7).await;
    let request = request("GET", TOKEN, "worker").header("if-none-match", first.header("etag").unwrap());
    let answer = other.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), generation(&answer), generation(&first)), (200, 1, 1), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_token_may_be_kept_until_its_renewal_falls_due_and_no_longer() {
    let world = World::new();
    let max_age = async || {
        let answer = world.get(TOKEN, "worker").await;
        let cache = answer.header("cache-control").unwrap().to_owned();
        let seconds: u64 = cache.strip_prefix("private, max-age=").unwrap().parse().unwrap();
        (answer.json()["generation"].as_u64().unwrap(), seconds)
    };
    let (_, first) = max_age().await;
    assert!((1798..=1800).contains(&first), "{first}");
    pass(29 * MINUTE).await;
    assert_eq!(max_age().await, (1, first - 29 * 60));
    // The upstream is down at renewal: the token is served on, and nobody is told to keep it.
    world.upstream("push").set(Behaviour::Hang);
    pass(2 * MINUTE).await;
    assert_eq!(max_age().await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_successor_waits_may_be_kept_until_the_switch() {
    let world = World::new();
    let path = "/v1/credentials/push-handover/token";
    world.get(path, "ops").await;
    let mut before = 0;
    for _ in 0..HOUR / SECOND {
        pass(SECOND).await;
        let answer = world.get(path, "ops").await;
        let shown = world.get("/v1/credentials/push-handover", "ops").await.json();
        if shown["next"]["generation"] == 2 && before == 0 {
            let cache = answer.header("cache-control").unwrap().to_owned();
            before = cache.strip_prefix("private, max-age=").unwrap().parse().unwrap();
            let before_switch = generation(&answer);
            assert_eq!(before_switch, 1);
            assert!((290..=300).contains(&before), "{before}");
            pass(before * SECOND).await;
            assert_eq!(generation(&world.get(path, "ops").await), 1);
            pass(SECOND).await;
            assert_eq!(generation(&world.get(path, "ops").await), 2);
            return;
        }
    }
    panic!("no next generation was published");
}

/// R7
#[tokio::test(start_paused = true)]
async fn r7_an_expired_token_is_served_only_by_policy_and_says_so() {
    let world = World::new();
    for name in ["stretched", "push"] {
        assert_eq!(world.get(&format!("/v1/credentials/{name}/token"), "ops").await.status, 200);
        world.upstream(name).set(Behaviour::Hang);
    }
    let known = world.get("/v1/credentials/stretched/token", "ops").await.header("etag").unwrap().to_owned();
    pass(HOUR + MINUTE).await;
    let stale = world.get("/v1/credentials/stretched/token", "ops").await;
    assert_snapshot!("stale_answer", stale);
    // A client that knows the generation is told as well.
    let request = request("GET", "/v1/credentials/stretched/token", "ops").header("if-none-match", known);
    let known = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((known.status.as_u16(), known.header("keyreeve-stale")), (200, Some("1")));
    // With a floor on its life, or without the policy, nothing expired is served.
    assert_eq!(world.get("/v1/credentials/stretched/token?min_ttl=1s", "ops").await.status, 503);
    assert_eq!(world.get(TOKEN, "ops").await.status, 503);
    pass(HOUR).await;
    assert_eq!(world.get("/v1/credentials/stretched/token", "ops").await.status, 503);
}

/// R5
#[tokio::test(start_paused = true)]
async fn r5_nobody_waits_while_a_valid_token_exists() {
    let world = World::new();
    world.get(TOKEN, "worker").await;
    world.upstream("push").set(Behaviour::Hang);
    world.unplug_store();
    pass(59 * MINUTE).await;
    let before = tokio::time::Instant::now();
    let answer = world.get(TOKEN, "worker").await;
    assert_eq!((answer.status.as_u16(), generation(&answer)), (200, 1));
    // The clock is paused: whatever waits for anything lets it move.
    assert_eq!(before.elapsed().as_millis(), 0);
}

#[tokio::test(start_paused = true)]
async fn min_ttl_is_met_or_refused() {
    let world = World::new();
    assert_eq!(world.get(&format!("{TOKEN}?min_ttl=30m"), "worker").await.status, 200);
    assert_eq!(world.get(&format!("{TOKEN}?min_ttl=59m"), "worker").await.status, 200);
    let refused = world.get(&format!("{TOKEN}?min_ttl=1h"), "worker").await;
    assert_eq!(refused.problem(), "life-too-short");
    for unit in ["60s", "60000ms", "1m", "0h", "%36%30s"] {
        assert_eq!(world.get(&format!("{TOKEN}?min_ttl={unit}"), "worker").await.status, 200, "{unit}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_answers_as_get_without_a_body() {
    let world = World::new();
    for (path, who) in [(TOKEN, "worker"), ("/v1/credentials", "worker"), ("/livez", ""), ("/readyz", "")] {
        let get = world.get(path, who).await;
        let head = world.send(request("HEAD", path, who).body(Body::empty()).unwrap()).await;
        assert_eq!((get.status, head.status, head.body.as_str()), (head.status, get.status, ""), "{path}");
        let length = get.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");
        assert_eq!(get.header("content-type"), head.header("content-type"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_on_a_unix_socket_is_known_by_its_uid_unless_it_sends_a_key() {
    use crate::http_world::LOCAL_UID;
    let world = World::new();
    let status = async |uid: u32, key: Option<&str>| {
        let mut request = local_request("GET", TOKEN, uid);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        world.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    assert_eq!(status(LOCAL_UID, None).await, 200);
    assert_eq!(status(LOCAL_UID + 1, None).await, 401);
    assert_eq!(status(0, None).await, 401);
    assert_eq!(status(LOCAL_UID, Some("key-worker")).await, 200);
    assert_eq!(status(LOCAL_UID, Some("wrong")).await, 401);
    assert_eq!(status(0, Some("key-worker")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_list_shows_what_the_caller_may_see_and_no_secret() {
    let world = World::new();
    world.get(TOKEN, "worker").await;
    world.get("/v1/credentials/acme/lake/token", "worker").await;
    let mine = world.get("/v1/credentials", "worker").await;
    assert!(!mine.body.contains("secret-"));
    assert_snapshot!("list_of_a_worker", mine);
    assert_snapshot!("one_state", world.get("/v1/credentials/push", "worker").await);
    let none = world.get("/v1/credentials", "elsewhere").await;
    assert_eq!(none.json(), serde_json::json!({ "credentials": [] }));
}

#[tokio::test(start_paused = true)]
async fn the_list_comes_in_pages() {
    let world = World::new();
    let mut after = String::new();
    let mut names = Vec::new();
    loop {
        let page = world.get(&format!("/v1/credentials?limit=2&after={after}"), "ops").await.json();
        let page_names = page["credentials"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
        names.extend(page_names.map(str::to_owned));
        let Some(next) = page["next_after"].as_str() else { break };
        after = next.replace('/', "%2F");
    }
    assert_eq!(names, ["acme/lake", "push", "push-handover", "refresh", "slotted", "stretched"]);
}

#[tokio::test(start_paused = true)]
async fn the_history_tells_every_step_and_no_secret() {
    let world = World::new();
    world.get(TOKEN, "worker").await;
    world.upstream("push").set(Behaviour::LoseAnswer);
    pass(31 * MINUTE).await;
    let in_doubt = world.get("/v1/credentials/push/history", "ops").await;
    assert!(!in_doubt.body.contains("secret-"));
    assert_snapshot!("history_in_doubt", in_doubt);
    assert_snapshot!("history_of_a_slot", world.get("/v1/credentials/slotted/history", "ops").await);
    assert_snapshot!("history_of_nothing", world.get("/v1/credentials/refresh/history", "ops").await);
}

#[tokio::test(start_paused = true)]
async fn a_report_renews_waits_for_the_floor_or_is_stale() {
    let world = World::new();
    let path = "/v1/credentials/push/report";
    let report = |generation: u64| {
        format!(r#"{{"generation":{generation},"upstream_status":403,"reason":"ExpiredProviderToken"}}"#)
    };
    world.get(TOKEN, "worker").await;
    pass(5 * MINUTE).await;
    assert_snapshot!("report_floor_wait", world.post(path, "worker", &report(1)).await);
    pass(16 * MINUTE).await;
    assert_eq!(generation(&world.get(TOKEN, "worker").await), 2);
    assert_snapshot!("report_stale", world.post(path, "worker", &report(1)).await);
    pass(21 * MINUTE).await;
    assert_snapshot!("report_renewing", world.post(path, "worker", &report(2)).await);
    pass(SECOND).await;
    assert_eq!(generation(&world.get(TOKEN, "worker").await), 3);
}

#[tokio::test(start_paused = true)]
async fn an_operator_renews_with_or_without_an_empty_body() {
    let world = World::new();
    let path = "/v1/credentials/acme/lake/renew";
    world.get("/v1/credentials/acme/lake/token", "ops").await;
    pass(MINUTE).await;
    assert_snapshot!("renewing", world.post(path, "ops", "{}").await);
    pass(MINUTE).await;
    let bare = request("POST", path, "ops").body(Body::empty()).unwrap();
    assert_eq!(world.send(bare).await.status, 202);
    pass(MINUTE).await;
    assert_eq!(generation(&world.get("/v1/credentials/acme/lake/token", "ops").await), 3);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_recorded_with_its_caller() {
    let world = World::new();
    world.upstream("refresh").set(Behaviour::LoseAnswer);
    assert_eq!(world.get("/v1/credentials/refresh/token", "ops").await.problem(), "needs-reauth");
    world.upstream("refresh").set(Behaviour::Mint);
    let path = "/v1/credentials/refresh/resolve";
    assert_snapshot!("resolved", world.post(path, "ops", r#"{"decision":"discard"}"#).await);
    pass(SECOND).await;
    assert_eq!(world.get("/v1/credentials/refresh/token", "ops").await.status, 200);
    let history = world.get("/v1/credentials/refresh/history", "ops").await.json();
    let resolved = history["history"].as_array().unwrap().iter().find(|entry| entry["kind"] == "resolved").unwrap();
    assert_eq!(resolved["detail"], "discard by ops");
}

#[tokio::test(start_paused = true)]
async fn every_answer_has_its_own_request_id_and_takes_none_from_outside() {
    let world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let request = request("GET", TOKEN, "worker").header("x-request-id", "0123456789abcdef");
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(id.len(), 16);
        assert_ne!(id, "0123456789abcdef");
        assert!(seen.insert(id));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_answered_at_once_as_it_is_in_time() {
    let world = World::new();
    let site = Site::new(Arc::clone(&world.api), &BTreeSet::from([Surface::Api]));
    let at_once = |method: &str, path: &str, who: &str, known: &str| {
        let mut request = request(method, path, who);
        if !known.is_empty() {
            request = request.header("if-none-match", known);
        }
        request.body(Body::empty()).unwrap()
    };
    let text = async |answer: keyreeve::http::Answer| {
        let (head, body) = answer.into_parts();
        let id = head.headers["x-request-id"].to_str().unwrap().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        format!("{} {:?} {body:?}", head.status, head.headers).replace(&id, "ID")
    };
    let cold = at_once("GET", TOKEN, "worker", "").into_parts().0;
    assert!(site.answer_now(&cold).is_none(), "a mint takes its time");
    let tag = world.get(TOKEN, "worker").await.header("etag").unwrap().to_owned();
    for (method, path, who, known) in [
        ("GET", TOKEN, "worker", ""),
        ("GET", TOKEN, "worker", tag.as_str()),
        ("HEAD", TOKEN, "worker", ""),
        ("GET", "/v1/credentials/push/token?min_ttl=5m", "ops", "\"g0\""),
        ("GET", "/livez", "", ""),
    ] {
        let now = site.answer_now(&at_once(method, path, who, known).into_parts().0).unwrap();
        let later = site.answer(at_once(method, path, who, known)).await;
        assert_eq!(text(now).await, text(later).await, "{method} {path} {known}");
    }
    // Whatever takes time, and whatever is refused: that is logged and counted once, by `answer`.
    for (method, path, who) in [
        ("GET", TOKEN, ""),
        ("GET", TOKEN, "nobody"),
        ("GET", TOKEN, "idle"),
        ("GET", TOKEN, "elsewhere"),
        ("POST", TOKEN, "worker"),
        ("GET", "/v1/credentials/push/token?min_ttl=2h", "worker"),
        ("GET", "/v1/credentials/push/token?ttl=2h", "worker"),
        ("GET", "/v1/credentials/push", "worker"),
        ("GET", "/v1/credentials", "worker"),
        ("GET", "/v1/nothing", "worker"),
        ("GET", "/readyz", ""),
    ] {
        assert!(site.answer_now(&at_once(method, path, who, "").into_parts().0).is_none(), "{method} {path} {who}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_serves_on_without_a_gap() {
    let world = World::new();
    let before = world.get(TOKEN, "worker").await;
    world.unplug_store();
    let mut live = world.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], Some(&world.outbound));
    live.callers.remove("elsewhere");
    world.api.reload(live);
    let after = world.get(TOKEN, "worker").await;
    assert_eq!((after.status.as_u16(), after.body), (200, before.body));
    assert_eq!(world.get(TOKEN, "elsewhere").await.status, 401);
}
