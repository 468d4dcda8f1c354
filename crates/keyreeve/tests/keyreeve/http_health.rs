//! Probes and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use insta::assert_snapshot;
use keyreeve::config::{Keep, Surface};
use keyreeve::core::record::FaultClass;
use keyreeve::http::router;
use tower::ServiceExt as _;

use crate::http_world::{Behaviour, HOUR, MINUTE, SECOND, World, pass, request};

#[tokio::test(start_paused = true)]
async fn the_process_is_alive_whatever_else_is_wrong() {
    let world = World::new();
    world.unplug_store();
    assert_snapshot!("livez", world.get("/livez", "").await);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_its_store_is_degraded_while_it_can_serve_and_unready_when_it_cannot() {
    let world = World::new();
    world.get("/v1/credentials/push/token", "worker").await;
    assert_snapshot!("ready_to_strangers", world.get("/readyz", "").await);
    assert_snapshot!("ready_to_callers", world.get("/readyz", "ops").await);

    pass(MINUTE).await;
    world.unplug_store();
    pass(2 * SECOND).await;
    assert_snapshot!("degraded_to_strangers", world.get("/readyz", "").await);
    assert_snapshot!("degraded_to_callers", world.get("/readyz", "ops").await);
    // Since when does not move.
    pass(10 * MINUTE).await;
    let since = world.get("/readyz", "ops").await.json()["store"]["since"].clone();
    assert_eq!(since, "2026-11-22T00:01:02.2Z");

    pass(HOUR).await;
    let unready = world.get("/readyz", "").await;
    assert!(!unready.body.contains("push"));
    assert_snapshot!("unready_to_strangers", unready);
    assert_snapshot!("unready_to_operators", world.get("/readyz", "ops").await);
    let worker = world.get("/readyz", "worker").await;
    assert!(!worker.body.contains("/var/lib"), "{worker}");
    assert_snapshot!("unready_to_callers", worker);
    assert!(!world.get("/v1/credentials/push", "worker").await.body.contains("/var/lib"));
    let others = world.get("/readyz", "elsewhere").await;
    assert!(!others.body.contains("push"), "{others}");

    world.plug_store();
    pass(MINUTE).await;
    assert_eq!(world.get("/readyz", "").await.json(), serde_json::json!({ "status": "ready" }));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_always_kept_and_cannot_be_minted_makes_a_node_unready() {
    let world = World::new();
    world.upstream("push").set(Behaviour::Fail(FaultClass::Terminal, None, "the upstream answered 403"));
    world.api.reload(world.node.live(Keep::Always, [7; 32], None));
    pass(SECOND).await;
    let answer = world.get("/readyz", "ops").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "not-ready"));
    assert_eq!(answer.json()["unserved"][0]["name"], "push");
    // Nobody has asked for a thing on a fresh node that renews on demand: it is ready.
    assert_eq!(World::new().get("/readyz", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn many_probes_at_once_ask_the_store_once_a_second() {
    let world = World::new();
    let before = world.node.wire.reads.load(Ordering::SeqCst);
    for _ in 0..50 {
        world.get("/readyz", "").await;
    }
    assert_eq!(world.node.wire.reads.load(Ordering::SeqCst) - before, 1);
    pass(SECOND).await;
    world.get("/readyz", "").await;
    assert_eq!(world.node.wire.reads.load(Ordering::SeqCst) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_listener_serves_its_surfaces_only() {
    let world = World::new();
    let ask = async |surfaces: &[Surface], path: &str| {
        let router = router(Arc::clone(&world.api), &surfaces.iter().copied().collect());
        let request = request("GET", path, "ops").body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    };
    for (path, api, metrics) in [("/v1/credentials", 200, 404), ("/metrics", 404, 200), ("/livez", 200, 200)] {
        assert_eq!(ask(&[Surface::Api], path).await, api, "{path}");
        assert_eq!(ask(&[Surface::Metrics], path).await, metrics, "{path}");
    }
    assert_eq!(ask(&[], "/readyz").await, 200);
}

#[tokio::test(start_paused = true)]
async fn metrics_show_states_and_counts_and_never_a_secret() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new();
    for _ in 0..3 {
        world.get("/v1/credentials/push/token", "worker").await;
    }
    world.get("/v1/credentials/push/token", "").await;
    world.get("/nothing", "").await;
    world.upstream("refresh").set(Behaviour::LoseAnswer);
    world.get("/v1/credentials/refresh/token", "ops").await;
    assert_snapshot!("metrics_answer", world.get("/metrics", "ops").await);
    let rendered = page.render();
    assert!(!rendered.contains("secret-"));
    let mut lines: Vec<_> = rendered.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    lines.sort_unstable();
    let of_interest =
        |line: &&&str| ["http_requests", "push\"", "refresh\"", "build_info"].iter().any(|part| line.contains(part));
    let lines: Vec<_> = lines.iter().filter(of_interest).copied().collect();
    assert_snapshot!("metrics", lines.join("\n"));
    // What a reload takes out is in no state any more.
    let mut live = world.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], None);
    live.outbound = keyreeve::outbound::Outbound::start(world.node.parts([7; 32]), Vec::new(), None);
    world.api.reload(live);
    let ready =
        |page: &str| page.lines().filter(|line| line.contains("credential_state") && line.ends_with(" 1")).count();
    assert_eq!(ready(&page.render()), 0);
}
