//! Artifacts published, read and listed by the API.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;
use keyreeve::config::Compat;
use sha2::{Digest as _, Sha256};

use crate::http_artifacts::{Does, Gate, T, V};
use crate::http_world::pass;

fn put(path: &str, who: &str, body: &str) -> Request<Body> {
    crate::http_world::request("PUT", path, who).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_handed_out_at_once() {
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/v1/artifacts/cdn/{T}/sdl");
    assert_eq!(gate.sdl().await.body, "type Query { ok: Boolean }");
    let published = gate.world.send(put(&path, "ops", "type Query { new: Int }")).await;
    assert_eq!((published.status.as_u16(), published.json()["missing_on"].as_array().map(Vec::len)), (201, Some(0)));
    assert_eq!(gate.sdl().await.body, "type Query { new: Int }");
    gate.primary.set(Does::Fail);
    gate.world.send(put(&path, "ops", "type Query { new: Int }")).await;
    assert_eq!(gate.sdl().await.body, "type Query { new: Int }", "the mirror has it too");
    gate.primary.set(Does::Answer);
    assert_eq!(gate.world.get(&path, "ops").await.body, "type Query { new: Int }");
    let listed = gate.world.get(&format!("/v1/artifacts/cdn/{T}?limit=1"), "ops").await.json();
    assert_eq!((listed["artifacts"][0]["path"].as_str(), listed["next"].as_str()), (Some("sdl"), Some("sdl")));
    let listed = gate.world.get(&format!("/v1/artifacts/cdn/{T}?after=sdl"), "ops").await.json();
    assert_eq!((listed["artifacts"][0]["path"].as_str(), listed["next"].as_str()), (Some("services"), None));
    assert_eq!(gate.world.send(put(&path, "elsewhere", "x")).await.status, 404);
    assert_eq!(gate.world.send(put(&path, "idle", "x")).await.status, 403);
    for bad in ["cdn", "cdn/acme", "cdn/acme/..", "cdn/acme/a%2fb", "cdn/acme/a//b", "cdn//a", "nope/acme/sdl"] {
        let answer = gate.world.send(put(&format!("/v1/artifacts/{bad}"), "ops", "x")).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{bad}: {answer}");
    }
    let large = gate.world.send(put(&path, "ops", &"x".repeat(8193))).await;
    assert_eq!((large.status.as_u16(), large.problem().as_str()), (413, "too-large"));
}

#[tokio::test(start_paused = true)]
async fn a_digest_is_checked_before_anything_is_written() {
    use base64::Engine as _;
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/v1/artifacts/cdn/{T}/sdl");
    let digest = |body: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body));
    let send = async |name: &str, value: String| {
        let request = crate::http_world::request("PUT", &path, "ops").header(name, value);
        gate.world.send(request.body(Body::from("right")).unwrap()).await.status.as_u16()
    };
    for name in ["content-digest", "repr-digest"] {
        assert_eq!(send(name, format!("sha-256=:{}:", digest("wrong"))).await, 422);
        assert_eq!(send(name, "sha-256=:short:".into()).await, 400);
        assert_eq!(send(name, "md5=:x:".into()).await, 400);
        assert_eq!(gate.sdl().await.body, "type Query { ok: Boolean }");
    }
    assert_eq!(send("content-digest", format!("md5=:x:, sha-256=:{}:", digest("right"))).await, 201);
    assert_eq!(gate.sdl().await.body, "right");
}

#[tokio::test(start_paused = true)]
async fn a_version_is_published_once() {
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/sdl");
    assert_eq!(gate.world.send(put(&path, "ops", "one")).await.status, 201);
    let again = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!((again.status.as_u16(), again.json()["unchanged"].as_bool()), (200, Some(true)));
    let other = gate.world.send(put(&path, "ops", "two")).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (409, "conflict"));
    assert_eq!(gate.get(&format!("/artifacts/v1/{T}/version/{V}/sdl")).await.body, "one");
    gate.mirror.is_full.store(true, Ordering::SeqCst);
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/services");
    let answer = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["missing_on"][0].as_str()), (201, Some("mirror")));
    gate.mirror.is_full.store(false, Ordering::SeqCst);
    let answer = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["missing_on"].as_array().map(Vec::len)), (200, Some(0)));
    gate.primary.is_full.store(true, Ordering::SeqCst);
    assert_eq!(
        gate.world.send(put(&path, "ops", "one")).await.status,
        200,
        "it is there, and nothing has to be written"
    );
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/metadata");
    let answer = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_at_once_is_bounded_by_its_bytes() {
    let gate = Gate::new(Compat::Own).await;
    let begin = |at: usize| {
        // Nobody says how long it is, and it does not come.
        let body = Body::from_stream(futures::stream::pending::<Result<&[u8], std::io::Error>>());
        let request = crate::http_world::request("PUT", &format!("/v1/artifacts/cdn/{T}/a{at}"), "ops");
        tokio::spawn(tower::ServiceExt::oneshot(gate.world.router.clone(), request.body(body).unwrap()))
    };
    let waiting: Vec<_> = (0..4).map(begin).collect();
    pass(1).await;
    let path = format!("/v1/artifacts/cdn/{T}/sdl");
    let refused = gate.world.send(put(&path, "ops", "x")).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")), "{refused}");
    assert_eq!(gate.sdl().await.status, 200, "who reads is not concerned");
    waiting[0].abort();
    pass(1).await;
    let small = |at: usize| {
        let request = crate::http_world::request("PUT", &format!("/v1/artifacts/cdn/{T}/b{at}"), "ops");
        gate.world.send(request.header("content-length", "1").body(Body::from("x")).unwrap())
    };
    let answers = futures::future::join_all((0..8).map(small)).await;
    assert!(answers.iter().all(|answer| answer.status == 201), "eight small ones have the room of a large one");
    waiting.iter().for_each(|one| one.abort());
}

#[tokio::test(start_paused = true)]
async fn a_version_is_not_overwritten_in_a_bucket_that_heeds_no_conditions() {
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/sdl");
    for bucket in [&gate.primary, &gate.mirror] {
        bucket.is_loose.store(true, Ordering::SeqCst);
    }
    assert_eq!(gate.world.send(put(&path, "ops", "one")).await.status, 201);
    assert_eq!(gate.world.send(put(&path, "ops", "two")).await.status, 409);
    assert_eq!(gate.world.send(put(&path, "ops", "one")).await.status, 200);
    assert_eq!(gate.get(&format!("/artifacts/v1/{T}/version/{V}/sdl")).await.body, "one");
    gate.primary.has_rival.store(true, Ordering::SeqCst);
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/services");
    let answer = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!(answer.status, 409, "somebody else's came after it: {answer}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_there_with_other_bytes_is_a_conflict_whatever_its_size() {
    let gate = Gate::new(Compat::Own).await;
    for (name, there) in [("small", "x".to_owned()), ("huge", "x".repeat(1 << 20))] {
        let name = format!("version/{V}/{name}");
        gate.primary.hold(&format!("artifact/{T}/{name}"), &there).await;
        let answer = gate.world.send(put(&format!("/v1/artifacts/cdn/{T}/{name}"), "ops", "other")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (409, "conflict"), "{name}");
    }
    // A mirror that has something else is no reason to refuse, and is named.
    gate.mirror.hold(&format!("artifact/{T}/version/{V}/sdl"), "other").await;
    let answer = gate.world.send(put(&format!("/v1/artifacts/cdn/{T}/version/{V}/sdl"), "ops", "one")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["missing_on"][0].as_str()), (201, Some("mirror")));
    assert_eq!(answer.json()["missing_on"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_on_over_names_that_are_no_artifacts() {
    let gate = Gate::new(Compat::Own).await;
    for name in ["a b", "b/%41", "b/~c", "c", "d\u{e9}", "version/1/sdl"] {
        gate.primary.hold(&format!("artifact/{T}/{name}"), "x").await;
    }
    let (mut found, mut strange, mut after) = (Vec::new(), Vec::new(), String::new());
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    for _ in 0..20 {
        let escaped: String = after.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let page = gate.world.get(&format!("/v1/artifacts/cdn/{T}?limit=1&after={escaped}"), "ops").await;
        assert_eq!(page.status, 200, "{after}: {page}");
        let page = page.json();
        found.extend(page["artifacts"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned()));
        strange.extend(texts(&page["strange"]));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(found, ["c", "sdl", "services", "version/1/sdl"]);
    assert_eq!(strange, ["a b", "b/%41", "b/~c", "d\u{e9}"]);
    for bad in ["%2e%2e", "a//b", "/a", "a/", "%00", "x%0a"] {
        let answer = gate.world.get(&format!("/v1/artifacts/cdn/{T}?after={bad}"), "ops").await;
        assert_eq!(answer.status, 400, "{bad}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_under_way_does_not_bring_back_what_was_there_before() {
    let gate = Gate::new(Compat::Own).await;
    gate.primary.set(Does::Late(100));
    let path = format!("/v1/artifacts/cdn/{T}/sdl");
    let publish = async {
        pass(50).await;
        gate.primary.set(Does::Answer);
        let published = gate.world.send(put(&path, "ops", "type Query { new: Int }")).await;
        (published.status.as_u16(), gate.sdl().await.body)
    };
    let (_, (status, body)) = futures::future::join(gate.sdl(), publish).await;
    assert_eq!((status, body.as_str()), (201, "type Query { new: Int }"));
    pass(100).await;
    assert_eq!(gate.sdl().await.body, "type Query { new: Int }", "nor when it ends");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_read_publishes_versions_by_the_condition_alone() {
    let gate = Gate::new(Compat::Own).await;
    for bucket in [&gate.primary, &gate.mirror] {
        bucket.is_write_only.store(true, Ordering::SeqCst);
    }
    let path = format!("/v1/artifacts/cdn/{T}/version/{V}/sdl");
    let answer = gate.world.send(put(&path, "ops", "one")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["missing_on"].as_array().map(Vec::len)), (201, Some(0)));
    let again = gate.world.send(put(&path, "ops", "two")).await;
    assert_eq!(again.status, 503, "something is there, and nobody can say what");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_that_of_the_primary() {
    let gate = Gate::new(Compat::Own).await;
    gate.mirror.hold(&format!("artifact/{T}/only-there"), "x").await;
    gate.primary.hold(&format!("artifact/{T}"), "what a console makes of a folder").await;
    let listed = gate.world.get(&format!("/v1/artifacts/cdn/{T}?limit=1"), "ops").await.json();
    assert_eq!((listed["artifacts"][0]["path"].as_str(), listed["next"].as_str()), (Some("sdl"), Some("sdl")));
    gate.primary.set(Does::Hang);
    let listed = gate.world.get(&format!("/v1/artifacts/cdn/{T}"), "ops").await;
    assert_eq!(listed.status, 503, "{listed}");
}
