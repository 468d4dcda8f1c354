//! One gate of artifacts over each kind of bucket: the same is asked of all of them, and each server checks who asks.

use std::fs;

use http::Method;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, LAST_MODIFIED, RETRY_AFTER,
};
use serde_json::{Value, json};

use crate::access::{config, create};
use crate::node::{Node, Place, answer, random_hex};
use crate::private::Private;

const T: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const V: &str = "version/0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6/sdl";
/// More than a gate of this test keeps, so that it is read of the bucket each time, in the ranges that are asked for.
const LARGE: usize = 3000;

/// A bucket of some cloud, on a server of this test's own.
struct Cloud {
    server: Private,
    url: &'static str,
    /// Settings of `[objects.NAME]`, `@KEY@` for the file with what opens it.
    settings: String,
    key: String,
    /// A key of the right form that opens nothing.
    wrong_key: String,
    /// The host that signed URLs are made for, where that is not the one that is asked.
    signed_host: Option<&'static str>,
    /// What a signed URL is good for, as it says so, and something wider that must not work.
    life: (&'static str, &'static str),
}

/// S3 as this program has it.
fn s3(program: &str) -> Cloud {
    let server = Private::start(program, &["--bucket", "artifacts"]);
    let settings = format!(
        "endpoint = \"{}\"\nregion = \"{}\"\naccount = \"{}\"\nkey = \"file:@KEY@\"\n",
        server.text("endpoint"),
        server.text("region"),
        server.text("access_key_id")
    );
    let key = server.text("secret_access_key").to_owned();
    let life = ("X-Amz-Expires=60", "X-Amz-Expires=600");
    Cloud { server, url: "s3://", settings, key, wrong_key: "another secret".into(), signed_host: None, life }
}

fn google() -> Cloud {
    let (server, other) = (Private::start("gcs.py", &["--bucket", "artifacts"]), Private::start("gcs.py", &[]));
    let settings = format!("endpoint = \"{}\"\nkey = \"file:@KEY@\"\n", server.text("endpoint"));
    let (key, wrong_key) = (server.text("key").to_owned(), other.text("key").to_owned());
    let life = ("X-Goog-Expires=60", "X-Goog-Expires=600");
    Cloud { server, url: "gs://", settings, key, wrong_key, signed_host: Some("storage.googleapis.com"), life }
}

fn azure() -> Cloud {
    let server = Private::start("azure.mjs", &["--container", "artifacts"]);
    let settings = format!(
        "endpoint = \"{}\"\naccount = \"{}\"\nkey = \"file:@KEY@\"\n",
        server.text("endpoint"),
        server.text("account")
    );
    let key = server.text("key").to_owned();
    let wrong_key = format!("{}{}", if key.starts_with('A') { 'B' } else { 'A' }, key.get(1..).unwrap());
    Cloud { server, url: "az://", settings, key, wrong_key, signed_host: None, life: ("sp=r", "sp=rw") }
}

/// A node with five gates over that cloud: `keep`, and `link` that redirects; `lost` and `nowhere`, the same where the bucket is
/// not there; and `stranger`, whose key opens nothing.
struct Gates {
    cloud: Cloud,
    node: Node,
    token: String,
    client: reqwest::Client,
    _place: Place,
}

#[derive(Clone, Copy)]
enum Gate {
    Keep = 1,
    Link = 2,
    Lost = 3,
    Nowhere = 4,
    Stranger = 5,
}

impl Gates {
    async fn new(cloud: Cloud) -> Self {
        let place = Place::new();
        let (key, wrong) = (place.secret("right.key", &cloud.key), place.secret("wrong.key", &cloud.wrong_key));
        let mut text = String::new();
        for (name, bucket, key, more) in [
            ("keep", "artifacts", &key, ""),
            ("link", "artifacts", &key, "deliver = \"redirect\"\n"),
            ("lost", "elsewhere", &key, ""),
            ("nowhere", "elsewhere", &key, "deliver = \"redirect\"\n"),
            ("stranger", "artifacts", &wrong, ""),
        ] {
            let settings = cloud.settings.replace("@KEY@", &key.display().to_string());
            text += &format!("[objects.{name}]\nurl = \"{}{bucket}/cdn\"\n{settings}", cloud.url);
            text += &format!(
                "[gate.{name}]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"{name}\"]\nfresh = \"0s\"\nkept = \"1KiB\"\n{more}"
            );
        }
        let config = config(&place, &text);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("\"grant\"", "\"grant\", \"publish\", \"artifacts\"")).unwrap();
        let mut node = place.node(&config, "one", &[]);
        (0..5).for_each(|_| node.wait_until_listening());
        let (token, _) = create(&node, T).await;
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { cloud, node, token, client, _place: place }
    }

    async fn publish(&self, gate: &str, path: &str, body: &str) -> (u16, Value) {
        let put = self.node.request(Method::PUT, &format!("/v1/artifacts/{gate}/{T}/{path}"));
        answer(put.header(CONTENT_TYPE, "application/graphql").body(body.to_owned())).await
    }

    fn request(&self, gate: Gate, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/artifacts/v1/{T}/{path}", self.node.urls()[gate as usize]);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// Status, headers and body.
    async fn told(&self, request: reqwest::RequestBuilder) -> (u16, http::HeaderMap, String) {
        let got = request.send().await.unwrap();
        let (status, headers) = (got.status().as_u16(), got.headers().clone());
        (status, headers, got.text().await.unwrap())
    }

    async fn get(&self, gate: Gate, path: &str) -> (u16, http::HeaderMap, String) {
        self.told(self.request(gate, Method::GET, path)).await
    }

    async fn range(&self, path: &str, range: &str) -> (u16, String, String) {
        let asked = self.request(Gate::Keep, Method::GET, path).header("range", range);
        let (status, headers, body) = self.told(asked).await;
        (status, headers.get(CONTENT_RANGE).map_or("", |value| value.to_str().unwrap()).to_owned(), body)
    }
}

async fn published_once_and_replaced(gates: &Gates) {
    for (body, status) in
        [("type Query { a: Int }", 201), ("type Query { a: Int }", 200), ("type Query { b: Int }", 409)]
    {
        let (got, said) = gates.publish("keep", V, body).await;
        assert_eq!(got, status, "{said}\n{}", gates.node.log_text());
    }
    let (status, headers, body) = gates.get(Gate::Keep, V).await;
    assert_eq!((status, body.as_str()), (200, "type Query { a: Int }"), "{}", gates.node.log_text());
    assert_eq!(headers[CONTENT_TYPE], "application/graphql", "the bucket knows what it is");
    assert_eq!(gates.publish("keep", "sdl", "one").await.0, 201);
    let (_, first, body) = gates.get(Gate::Keep, "sdl").await;
    assert_eq!(body, "one");
    // By another gate, so that this one hears of it from the bucket.
    assert_eq!(gates.publish("link", "sdl", "two").await.0, 201);
    let (_, second, body) = gates.get(Gate::Keep, "sdl").await;
    assert_eq!(body, "two");
    assert_ne!(first[ETAG], second[ETAG]);
}

async fn asked_again_by_its_tag(gates: &Gates) {
    let (_, headers, _) = gates.get(Gate::Keep, "sdl").await;
    assert!(headers.contains_key(LAST_MODIFIED));
    gates.cloud.server.ask("score");
    let asked = gates.request(Gate::Keep, Method::GET, "sdl").header("if-none-match", &headers[ETAG]);
    let (status, same, body) = gates.told(asked).await;
    assert_eq!((status, &same[ETAG], body.as_str()), (304, &headers[ETAG], ""));
    let score: Value = serde_json::from_str(&gates.cloud.server.ask("score")).unwrap();
    assert_eq!(score, json!({ "GET": 1 }), "the bucket was asked");
    let (status, head, body) = gates.told(gates.request(Gate::Keep, Method::HEAD, "sdl")).await;
    assert_eq!((status, &head[ETAG], body.as_str()), (200, &headers[ETAG], ""));
    assert_eq!(head[CONTENT_LENGTH], "3");
}

async fn read_in_ranges(gates: &Gates) {
    let large: String = (0..LARGE).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
    assert_eq!(gates.publish("keep", "large", &large).await.0, 201);
    let (status, headers, body) = gates.get(Gate::Keep, "large").await;
    assert_eq!((status, body.as_str()), (200, large.as_str()), "{}", gates.node.log_text());
    assert_eq!(headers[ACCEPT_RANGES], "bytes");
    let (status, head, body) = gates.told(gates.request(Gate::Keep, Method::HEAD, "large")).await;
    assert_eq!((status, &head[ETAG], body.as_str()), (200, &headers[ETAG], ""));
    assert_eq!(head[CONTENT_LENGTH], LARGE.to_string().as_str());
    for (range, span) in [("bytes=10-19", 10..20), ("bytes=2990-", 2990..LARGE), ("bytes=-7", LARGE - 7..LARGE)] {
        let shown = format!("bytes {}-{}/{LARGE}", span.start, span.end - 1);
        assert_eq!(gates.range("large", range).await, (206, shown, large.get(span).unwrap().to_owned()), "{range}");
    }
    assert_eq!(gates.range("large", "bytes=3000-").await, (416, format!("bytes */{LARGE}"), String::new()));
    assert_eq!(gates.range("sdl", "bytes=1-1").await, (206, "bytes 1-1/3".into(), "w".into()), "one that is kept");
}

async fn listed_in_pages(gates: &Gates) {
    let names = ["large", "sdl", V];
    let mut found = Vec::new();
    let mut after = String::new();
    for _ in 0..=names.len() {
        let (status, page) = gates.node.get(&format!("/v1/artifacts/keep/{T}?limit=1{after}")).await;
        assert_eq!(status, 200, "{page}\n{}", gates.node.log_text());
        found.extend(page["artifacts"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found, names, "each once");
}

async fn what_fails_is_never_a_refusal(gates: &Gates) {
    assert_eq!(gates.get(Gate::Keep, "gone").await.0, 404);
    assert_eq!(gates.get(Gate::Link, "gone").await.0, 404);
    for gate in [Gate::Lost, Gate::Nowhere, Gate::Stranger] {
        for method in [Method::GET, Method::HEAD] {
            let (status, headers, body) = gates.told(gates.request(gate, method.clone(), "sdl")).await;
            assert_eq!((status, headers.contains_key(RETRY_AFTER)), (503, true), "{method} {} {body}", gate as usize);
        }
    }
    assert_eq!(gates.publish("lost", "sdl", "x").await.0, 503);
    assert_eq!(gates.publish("stranger", "sdl", "x").await.0, 503);
    gates.cloud.server.tell("status 403");
    let (status, headers, body) = gates.get(Gate::Keep, "sdl").await;
    assert_eq!((status, body.as_str(), headers.contains_key("warning")), (200, "two", true));
    assert_eq!(gates.get(Gate::Keep, "gone").await.0, 503);
    gates.cloud.server.tell("go");
    assert_eq!(gates.get(Gate::Keep, "gone").await.0, 404, "and no failure is kept");
}

async fn handed_out_by_a_signed_url(gates: &Gates) {
    let (status, headers, _) = gates.get(Gate::Link, "sdl").await;
    assert_eq!(status, 302, "{}", gates.node.log_text());
    let location = headers["location"].to_str().unwrap().to_owned();
    let (life, longer) = gates.cloud.life;
    assert!(location.starts_with(gates.cloud.server.text("endpoint")) && location.contains(life), "{location}");
    let fetch = async |url: &str| {
        let mut request = gates.client.get(url);
        if let Some(host) = gates.cloud.signed_host {
            request = request.header(HOST, host);
        }
        let got = request.send().await.unwrap();
        (got.status().as_u16(), got.text().await.unwrap())
    };
    assert_eq!(fetch(&location).await, (200, "two".into()));
    assert_eq!(fetch(&location.replace("sdl", "large")).await.0, 403, "the URL is for this object");
    assert_eq!(fetch(&location.replace(life, longer)).await.0, 403, "and for reading it for a minute");
    let secret = location.split_once('?').unwrap().1;
    assert!(!gates.node.log_text().contains(secret), "no signed URL is logged");
}

async fn all_of_it(cloud: Cloud) -> Gates {
    let gates = Gates::new(cloud).await;
    published_once_and_replaced(&gates).await;
    asked_again_by_its_tag(&gates).await;
    read_in_ranges(&gates).await;
    listed_in_pages(&gates).await;
    what_fails_is_never_a_refusal(&gates).await;
    assert!(!gates.node.log_text().contains(&gates.cloud.key), "no key is logged");
    gates
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_s3_is_read_published_to_and_handed_out() {
    handed_out_by_a_signed_url(&all_of_it(s3("s3.py")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_s3_as_others_have_it_is_read_and_published_to() {
    all_of_it(s3("s3_moto.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_google_is_read_published_to_and_handed_out() {
    handed_out_by_a_signed_url(&all_of_it(google()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_azure_is_read_published_to_and_handed_out() {
    handed_out_by_a_signed_url(&all_of_it(azure()).await).await;
}

#[test]
fn a_key_of_the_wrong_form_is_a_sentence_at_the_start() {
    for (url, settings, said) in [
        ("gs://artifacts", "", "`key` is no service account of Google in JSON"),
        ("az://artifacts", "account = \"keyreevetest\"\n", "`key` is no key of a storage account, which is base64"),
    ] {
        let place = Place::new();
        let key = place.secret("bucket.key", &format!("not a key: {}", random_hex()));
        let text = format!("[objects.cloud]\nurl = \"{url}\"\n{settings}key = \"file:{}\"\n", key.display());
        let gate = "[gate.cdn]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\norigins = [\"cloud\"]\n";
        let config = config(&place, &format!("{text}{gate}"));
        let output = std::process::Command::new(crate::node::PROGRAM)
            .args(["serve", "--node", "one", "-c", config.to_str().unwrap()])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(said) && !told.contains("not a key"), "{told}");
    }
}
