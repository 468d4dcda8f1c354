//! Gates of artifacts on real nodes: over folders, with real tokens.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::access::{config, create};
use crate::node::{Node, Place, answer};

const T: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/// Two gates over one folder: `hive` that answers as Hive does, and `own`.
fn gates(place: &Place, more: &str) -> PathBuf {
    let folder = place.path("objects");
    fs::create_dir_all(folder.join("artifact").join(T)).unwrap();
    fs::write(folder.join("artifact").join(T).join("sdl"), "type Query { ok: Boolean }").unwrap();
    let gate = |name: &str, compat: &str| {
        format!(
            "[gate.{name}]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"disk\"]\ncompat = \"{compat}\"\n{more}\n"
        )
    };
    let objects = format!("[objects.disk]\nurl = \"file:{}\"\n", folder.display());
    config(place, &format!("{objects}{}{}", gate("hive", "hive"), gate("own", "none")))
}

/// A node whose three sockets listen.
fn node(place: &Place, config: &std::path::Path) -> Node {
    let mut node = place.node(config, "one", &[]);
    node.wait_until_listening();
    node.wait_until_listening();
    node
}

/// Plain HTTP/1.1, as most clients of gates speak.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_handed_out_by_both_gates_and_asked_for_again_by_its_tag() {
    let place = Place::new();
    let node = node(&place, &gates(&place, ""));
    let (token, id) = create(&node, T).await;
    let client = client();
    let (hive, own) = (&node.urls()[1], &node.urls()[2]);
    for (url, header, value) in [
        (hive, "x-hive-cdn-key", token.clone()),
        (own, "x-hive-cdn-key", token.clone()),
        (own, "authorization", format!("Bearer {token}")),
    ] {
        let url = format!("{url}/artifacts/v1/{T}/sdl");
        let got = client.get(&url).header(header, &value).send().await.unwrap();
        let etag = got.headers().get("etag").expect("an entity tag").clone();
        assert_eq!((got.status().as_u16(), got.headers()["content-type"].to_str().unwrap()), (200, "text/plain"));
        assert_eq!(got.text().await.unwrap(), "type Query { ok: Boolean }");
        let same = client.get(&url).header(header, &value).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!((same.status().as_u16(), same.headers().get("etag")), (304, Some(&etag)));
    }
    let other = format!("{hive}/artifacts/v1/00000000-7dec-11d0-a765-00a0c91e6bf6/sdl");
    let (status, said) = answer(client.get(&other).header("x-hive-cdn-key", &token)).await;
    assert_eq!((status, said["code"].as_str()), (403, Some("INVALID_AUTH_KEY")));
    let (status, _) = node.post(&format!("/v1/tokens/{id}/revoke"), json!(null)).await;
    assert_eq!(status, 200);
    let refused = client.get(format!("{hive}/artifacts/v1/{T}/sdl")).header("x-hive-cdn-key", &token);
    assert_eq!(answer(refused).await.0, 403);
    let refused = client.get(format!("{own}/artifacts/v1/{T}/sdl")).bearer_auth(&token);
    assert_eq!(answer(refused).await.0, 401);
}
