//! Event streams: bounded, filtered by caller, alive, and honest about what they missed.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use keyreeve::config::{Action, Keep};
use tower::ServiceExt as _;

use crate::http_world::{MINUTE, SECOND, World, pass, request};

struct Stream(Body);

impl Stream {
    async fn open(world: &World, who: &str) -> Self {
        let request = request("GET", "/v1/events", who).body(Body::empty()).unwrap();
        let (head, body) = world.router.clone().oneshot(request).await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        assert_eq!(head.headers["cache-control"], "no-store");
        let mut stream = Self(body);
        assert_eq!(stream.next().await.unwrap(), "retry: 3000\n: following\n\n");
        stream
    }

    /// The next piece; `None` at the end. Waits for ten minutes at the most.
    async fn next(&mut self) -> Option<String> {
        let frame = tokio::time::timeout(Duration::from_secs(600), self.0.frame()).await;
        let frame = frame.expect("the stream is silent")?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// The next event, past all keep-alives.
    async fn event(&mut self) -> Option<String> {
        loop {
            let piece = self.next().await?;
            if piece.starts_with("event: ") {
                return Some(piece);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_of_the_callers_credentials_and_of_no_others() {
    let world = World::new();
    let mut mine = Stream::open(&world, "ops").await;
    let mut others = Stream::open(&world, "elsewhere").await;
    world.get("/v1/credentials/push/token", "worker").await;
    let seen = mine.event().await.unwrap();
    insta::assert_snapshot!(seen);
    assert_eq!(others.next().await.unwrap(), ": keep-alive\n\n");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_every_15_seconds_that_it_is_there() {
    let world = World::new();
    let mut stream = Stream::open(&world, "ops").await;
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        assert_eq!(stream.next().await.unwrap(), ": keep-alive\n\n");
        assert_eq!(before.elapsed().as_secs(), 15);
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_streams_as_the_limit_says_and_a_closed_one_makes_room() {
    let world = World::new();
    let first = Stream::open(&world, "ops").await;
    let _second = Stream::open(&world, "ops").await;
    insta::assert_snapshot!("rate_limited", world.get("/v1/events", "ops").await);
    drop(first);
    Stream::open(&world, "ops").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_behind_is_told_how_much_it_missed() {
    let world = World::new();
    let mut stream = Stream::open(&world, "ops").await;
    world.get("/v1/credentials/acme/lake/token", "ops").await;
    for _ in 0..150 {
        pass(15 * SECOND).await;
        assert_eq!(world.post("/v1/credentials/acme/lake/renew", "ops", "").await.status, 202);
    }
    pass(MINUTE).await;
    let first = stream.event().await.unwrap();
    assert!(first.starts_with("event: lagged\ndata: {\"missed\":"), "{first}");
    assert!(stream.event().await.unwrap().contains("acme/lake"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_a_reload_if_its_caller_still_may() {
    let world = World::new();
    let mut stays = Stream::open(&world, "ops").await;
    let mut goes = Stream::open(&world, "elsewhere").await;
    let mut live = world.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], None);
    live.callers.get_mut("elsewhere").unwrap().can.remove(&Action::Events);
    world.api.reload(live);
    world.get("/v1/credentials/push/token", "worker").await;
    assert!(stays.event().await.unwrap().contains("\"push\""));
    assert_eq!(goes.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn closing_the_surface_ends_every_stream() {
    let world = World::new();
    let mut stream = Stream::open(&world, "ops").await;
    world.api.close();
    assert_eq!(stream.next().await, None);
}
