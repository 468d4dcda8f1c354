//! Artifacts that are too large to be kept.

use http::Request;
use keyreeve::config::{ArtifactConfig, Compat, Deliver};
use sha2::{Digest as _, Sha256};

use crate::http_artifacts::{Bucket, Does, Gate, T, config, key};
use crate::http_world::{SECOND, pass};

/// So many letters of the alphabet, from `first` on.
fn letters(first: u8, count: usize) -> String {
    (0..count).map(|at| char::from(b'a' + ((usize::from(first) + at) % 26) as u8)).collect()
}

async fn gate(compat: Compat, body: &str) -> (Gate, String) {
    let gate = Gate::new(compat).await;
    gate.primary.hold(&format!("artifact/{T}/big.bin"), body).await;
    (gate, format!("/artifacts/v1/{T}/big.bin"))
}

#[tokio::test(start_paused = true)]
async fn what_is_large_is_streamed_each_time() {
    let body = letters(0, 5000);
    let (gate, path) = gate(Compat::Own, &body).await;
    for _ in 0..2 {
        let answer = gate.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, Some("5000")));
        assert!(answer.body == body);
    }
    let answer = gate.send(key(&path, "good").header("range", "bytes=4998-")).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (206, body.get(4998..).unwrap()));
    assert_eq!(answer.header("content-range"), Some("bytes 4998-4999/5000"));
    assert_eq!(gate.send(key(&path, "good").header("range", "bytes=5000-")).await.status, 416);
    let etag = answer.header("etag").unwrap().to_owned();
    assert_eq!(gate.send(key(&path, "good").header("if-none-match", etag)).await.status, 304);
    let head = gate.send(Request::head(&path).header("x-hive-cdn-key", "good")).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.as_str()), (200, Some("5000"), ""));
    gate.both(Does::Fail);
    assert_eq!(gate.get(&path).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_download_is_resumed_only_where_it_is_still_the_same() {
    let body = letters(0, 5000);
    let (gate, path) = gate(Compat::Own, &body).await;
    let resumed = |range: &str, tag: &str| key(&path, "good").header("range", range).header("if-range", tag);
    let first = gate.send(key(&path, "good").header("range", "bytes=0-2499")).await;
    let tag = first.header("etag").unwrap().to_owned();
    let rest = gate.send(resumed("bytes=2500-", &tag)).await;
    assert_eq!((rest.status.as_u16(), rest.header("etag")), (206, Some(tag.as_str())));
    assert!(format!("{}{}", first.body, rest.body) == body);
    for other in [
        "W/\"x\"",
        &format!("W/{tag}"),
        "\"x\"",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        rest.header("last-modified").unwrap(),
    ] {
        let whole = gate.send(resumed("bytes=2500-", other)).await;
        assert_eq!((whole.status.as_u16(), whole.body.len()), (200, 5000), "{other}");
    }
    // It changes while it is remembered what it was.
    let new = letters(1, 5000);
    gate.primary.hold(&format!("artifact/{T}/big.bin"), &new).await;
    let whole = gate.send(resumed("bytes=2500-", &tag)).await;
    assert_eq!((whole.status.as_u16(), whole.header("content-range")), (200, None), "{:?}", whole.headers);
    assert!(whole.body == new && whole.header("etag") != Some(tag.as_str()));
    let rest = gate.send(resumed("bytes=2500-", whole.header("etag").unwrap())).await;
    assert_eq!((rest.status.as_u16(), rest.body.as_str()), (206, new.get(2500..).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_range_beyond_what_has_become_shorter_is_no_failure_of_its_bucket() {
    let (gate, path) = gate(Compat::Own, &letters(0, 5000)).await;
    gate.mirror.set(Does::Fail);
    for at in 0..8 {
        gate.primary.hold(&format!("artifact/{T}/big.bin"), &letters(0, 5000)).await;
        pass(2 * SECOND).await;
        assert_eq!(gate.send(key(&path, "good").header("range", "bytes=4900-4999")).await.status, 206, "{at}");
        gate.primary.hold(&format!("artifact/{T}/big.bin"), &letters(0, 4800)).await;
        let beyond = gate.send(key(&path, "good").header("range", "bytes=4900-4999")).await;
        assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, Some("bytes */4800")), "{at}");
    }
    assert_eq!(gate.mirror.reads(), 0, "nobody else was asked");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_it_is_answered_without_a_read() {
    let (gate, path) = gate(Compat::Own, &letters(0, 5000)).await;
    let tag = gate.get(&path).await.header("etag").unwrap().to_owned();
    let reads = gate.primary.reads();
    let head = gate.send(Request::head(&path).header("x-hive-cdn-key", "good")).await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length"), head.header("etag")),
        (200, Some("5000"), Some(tag.as_str()))
    );
    assert_eq!(gate.send(key(&path, "good").header("if-none-match", &tag)).await.status, 304);
    assert_eq!(gate.primary.reads(), reads);
    pass(2 * SECOND).await;
    assert_eq!(gate.send(key(&path, "good").header("if-none-match", &tag)).await.status, 304);
    assert_eq!(gate.primary.reads(), reads + 1, "one question whether it is still the one");
}

#[tokio::test(start_paused = true)]
async fn hives_old_ways_hold_for_what_is_large_and_with_redirects() {
    for (deliver, size) in [(Deliver::Stream, 5000), (Deliver::Redirect, 5000), (Deliver::Redirect, 50)] {
        let settings = ArtifactConfig { deliver, ..config(Compat::Hive) };
        let gate = Gate::with(settings, (Bucket::new(), Bucket::new())).await;
        let services = letters(0, size);
        gate.primary.hold(&format!("artifact/{T}/services"), &services).await;
        let hash = keyreeve::hex::encode(&Sha256::digest(format!("target:{T}:services|{services}")));
        let answer = gate.get(&format!("/{T}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, Some(format!("\"{hash}\"").as_str())));
        assert!(answer.body == services);
        let same = gate.send(key(&format!("/{T}"), "good").header("if-none-match", format!("\"{hash}\""))).await;
        assert_eq!((same.status.as_u16(), same.header("etag")), (304, answer.header("etag")));
        for first in [0, 1] {
            let mesh = format!("[{{\"$ref\":\"#/definitions/_schema\",\"x\":\"{}\"}}]", letters(first, size));
            // The second one comes while it is remembered what the first one was.
            gate.primary.hold(&format!("artifact/{T}/metadata"), &mesh).await;
            for path in [format!("/{T}/metadata"), format!("/artifacts/v1/{T}/metadata")] {
                if first == 1 && size < 4096 {
                    pass(2 * SECOND).await;
                }
                let answer = gate.get(&path).await;
                assert_eq!((answer.status.as_u16(), answer.header("content-range")), (200, None), "{path}");
                assert!(answer.body == mesh.trim_matches(['[', ']']), "{path} {first} {size}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_who_ask_for_an_old_shape_at_once_one_reads_for_it() {
    let (gate, _) = gate(Compat::Hive, "").await;
    gate.primary.hold(&format!("artifact/{T}/services"), &letters(0, 5000)).await;
    let path = format!("/{T}");
    let answers = futures::future::join_all((0..10).map(|_| gate.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == letters(0, 5000)));
    assert_eq!(gate.primary.reads(), 1 + 1 + 10, "what it is, its shape, and each of them");
}
