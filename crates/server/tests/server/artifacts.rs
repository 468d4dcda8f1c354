//! Gates of artifacts on real nodes: over folders, with real tokens.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::access::{config, create};
use crate::node::{Node, Place, answer, until};
use crate::private::Private;

const V: &str = "0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6";
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_some_networks_opens_nothing_from_another_address() {
    let place = Place::new();
    let node = node(&place, &gates(&place, ""));
    let client = client();
    for (network, wanted) in [("127.0.0.0/8", [200, 200]), ("203.0.113.0/24", [403, 403])] {
        let scope = json!({ "target": T, "alias": "ci", "scope": { "networks": [network] } });
        let (status, made) = node.post("/v1/tokens", scope).await;
        assert_eq!(status, 201, "{made}");
        let mut got = [0; 2];
        for (got, url) in got.iter_mut().zip(&node.urls()[1..]) {
            let asked = client.get(format!("{url}/artifacts/v1/{T}/sdl"));
            let asked = asked.header("x-hive-cdn-key", made["token"].as_str().unwrap());
            *got = asked.send().await.unwrap().status().as_u16();
        }
        assert_eq!(got, wanted, "{network}");
    }
}

/// A primary and a mirror that speak S3 and check signatures, in front of one gate that answers as Hive's CDN does.
struct Buckets {
    primary: Private,
    mirror: Private,
    node: Node,
    url: String,
    token: String,
    client: reqwest::Client,
}

const SDL: &str = "type Query { ok: Boolean }";

impl Buckets {
    async fn new(place: &Place, more: &str) -> Self {
        let start = || Private::start("s3.py", &["--bucket", "artifacts"]);
        let (primary, mirror) = (start(), start());
        let objects = |name: &str, bucket: &Private| {
            let key = place.secret(&format!("{name}.key"), bucket.text("secret_access_key"));
            format!(
                "[objects.{name}]\nurl = \"s3://artifacts/cdn\"\nendpoint = \"{}\"\nregion = \"{}\"\naccount = \"{}\"\nkey = \"file:{}\"\n",
                bucket.text("endpoint"),
                bucket.text("region"),
                bucket.text("access_key_id"),
                key.display()
            )
        };
        let gate = format!(
            "[gate.cdn]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\ncompat = \"hive\"\norigins = [\"primary\", \"mirror\"]\ncache = \"{}\"\n{more}\n",
            place.path("cache").display()
        );
        let config = config(place, &format!("{}{}{gate}", objects("primary", &primary), objects("mirror", &mirror)));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("\"grant\"", "\"grant\", \"publish\", \"artifacts\"")).unwrap();
        let node = Self::start(place, &config);
        let (token, _) = create(&node, T).await;
        let url = node.urls()[1].clone();
        let buckets = Self { primary, mirror, node, url, token, client: client() };
        let (status, said) = buckets.publish("sdl", SDL).await;
        assert_eq!((status, said["missing_on"].as_array().map(Vec::len)), (201, Some(0)), "{said}");
        buckets
    }

    fn start(place: &Place, config: &std::path::Path) -> Node {
        let mut node = place.node(config, "one", &[]);
        node.wait_until_listening();
        node
    }

    async fn publish(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        let put = self.node.request(http::Method::PUT, &format!("/v1/artifacts/cdn/{T}/{path}"));
        answer(put.body(body.to_owned())).await
    }

    fn tell(&self, order: &str) {
        self.primary.tell(order);
        self.mirror.tell(order);
    }

    /// Status, headers, body, and how long it took in milliseconds.
    async fn get(&self, path: &str) -> (u16, http::HeaderMap, String, u128) {
        let begun = std::time::Instant::now();
        let request = self.client.get(format!("{}/artifacts/v1/{T}/{path}", self.url));
        let got = request.header("x-hive-cdn-key", &self.token).send().await.unwrap();
        let ms = begun.elapsed().as_millis();
        (got.status().as_u16(), got.headers().clone(), got.text().await.unwrap(), ms)
    }
}

/// What a deadline is exceeded by on a machine that does other things too, in milliseconds.
const SLACK_MS: u128 = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_answers_for_a_primary_that_hangs_or_says_no() {
    let place = Place::new();
    let buckets = Buckets::new(&place, "fresh = \"0s\"").await;
    assert_eq!(buckets.get("sdl").await.2, SDL);
    for order in ["hang", "status 403", "status 503", "refuse", "cut 3"] {
        buckets.primary.tell(order);
        let (status, headers, body, ms) = buckets.get("sdl").await;
        assert_eq!((status, body.as_str()), (200, SDL), "{order}\n{}", buckets.node.log_text());
        assert!(headers.get("warning").is_none(), "the mirror vouches for it: {order}");
        assert!(ms <= 150 + 250 + SLACK_MS, "{order}: {ms} ms");
        buckets.primary.tell("go");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_bucket_answers_it_is_503_in_time_or_what_is_kept() {
    let place = Place::new();
    let buckets = Buckets::new(&place, "deadline = \"2s\"\nfresh = \"0s\"").await;
    assert_eq!(buckets.get("sdl").await.0, 200);
    for order in ["hang", "status 403", "status 500", "refuse"] {
        buckets.tell(order);
        let (status, headers, body, ms) = buckets.get("supergraph").await;
        assert_eq!((status, headers["retry-after"].to_str().unwrap()), (503, "1"), "{order} {body}");
        assert!(ms <= 2000 + SLACK_MS, "{order}: {ms} ms");
        let (status, headers, body, ms) = buckets.get("sdl").await;
        assert_eq!((status, body.as_str()), (200, SDL), "{order}");
        assert!(headers.contains_key("age") && headers["warning"].to_str().unwrap().starts_with("111"), "{headers:?}");
        assert!(ms <= 150 * 2 + 250 + SLACK_MS, "{order}: {ms} ms");
        buckets.tell("go");
        let (status, ..) = buckets.get("supergraph").await;
        assert_eq!(status, 404, "no failure is kept: {order}");
    }
    let metrics = buckets.node.metrics().await;
    assert!(metrics.contains("keyreeve_artifact_reads_total{gate=\"cdn\""), "{metrics}");
    // What is kept outlives the process, which nobody told that it ends.
    buckets.tell("hang");
    let config = place.path("keyreeve.toml");
    let Buckets { primary, mirror, node, token, client, .. } = buckets;
    node.kill();
    let node = Buckets::start(&place, &config);
    let url = node.urls()[1].clone();
    let buckets = Buckets { primary, mirror, node, url, token, client };
    let (status, headers, body, _) = buckets.get("sdl").await;
    assert_eq!((status, body.as_str()), (200, SDL), "{}", buckets.node.log_text());
    assert!(headers.contains_key("warning"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_to_the_bucket_for_a_minute() {
    let place = Place::new();
    let buckets = Buckets::new(&place, "deliver = \"redirect\"").await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let request = client.get(format!("{}/artifacts/v1/{T}/sdl", buckets.url)).header("x-hive-cdn-key", &buckets.token);
    let got = request.send().await.unwrap();
    let location = got.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(got.status(), 302);
    assert!(
        location.starts_with(buckets.primary.text("endpoint")) && location.contains("X-Amz-Expires=60"),
        "{location}"
    );
    assert_eq!(client.get(&location).send().await.unwrap().text().await.unwrap(), SDL);
    let other = location.replace("sdl", "supergraph");
    assert_eq!(client.get(&other).send().await.unwrap().status(), 403, "the URL is for this object");
    let (status, ..) = buckets.get("supergraph").await;
    assert_eq!(status, 404);
    assert!(!buckets.node.log_text().contains("X-Amz-Signature"), "no signed URL is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_publish_read_and_list() {
    let place = Place::new();
    let buckets = Buckets::new(&place, "").await;
    let file = place.path("supergraph.graphql");
    fs::write(&file, "schema { query: Query }").unwrap();
    let file = file.to_str().unwrap();
    let put = |path: &str| place.cli(&buckets.node, &["artifact", "put", "cdn", T, path, file]);
    let (said, problems, code) = put("version/0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6/supergraph");
    assert_eq!(code, 0, "{problems}");
    assert!(said.starts_with("published: version/"), "{said}");
    let (said, ..) = put("version/0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6/supergraph");
    assert!(said.starts_with("was there already: "), "{said}");
    let (said, ..) = place.cli(&buckets.node, &["artifact", "get", "cdn", T, "sdl"]);
    assert_eq!(said, SDL);
    let (said, ..) = place.cli(&buckets.node, &["artifact", "ls", "cdn", T]);
    let names: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["sdl", "version/0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6/supergraph"]);
    let (_, problems, code) = place.cli(&buckets.node, &["artifact", "get", "cdn", T, "gone"]);
    assert_eq!(code, 3, "{problems}");
    let (_, problems, code) = place.cli(&buckets.node, &["artifact", "get", "cdn", T, "../x y"]);
    assert_eq!(code, 2, "{problems}");
}

/// A request to a gate, and what it answers: status, body, media type.
type Row<'a> = (&'a str, String, Option<&'a str>, u16, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_hives_table_is_answered_by_the_binary_for_tokens_made_here_and_by_python() {
    let place = Place::new();
    let config = gates(&place, "");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[token.cdn]\n", "[token.cdn]\nformat = \"hv2\"\nhashes = \"disk\"\n")).unwrap();
    let objects = place.path("objects");
    for name in [
        format!("artifact/{T}/services"),
        format!("artifact/{T}/contracts/mobile/supergraph"),
        format!("artifact/{T}/version/{V}/sdl"),
        format!("apps-enabled/{T}/web/1.0"),
        format!("app/{T}/web/1.0/abc"),
    ] {
        fs::create_dir_all(objects.join(&name).parent().unwrap()).unwrap();
        fs::write(objects.join(&name), "x").unwrap();
    }
    let [key, legacy] = by_python(&objects);
    let node = node(&place, &config);
    let (token, _) = create(&node, T).await;
    assert!(token.starts_with("hv2"), "{token}");
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    for (method, path, key, status, said) in [&token, &key, &legacy].into_iter().flat_map(|token| rows(token)) {
        let mut request = client.request(method.parse().unwrap(), format!("{}{path}", node.urls()[1]));
        if let Some(key) = key {
            request = request.header("x-hive-cdn-key", key);
        }
        let got = request.send().await.unwrap();
        assert_eq!(got.status().as_u16(), status, "{method} {path}");
        let body = got.text().await.unwrap();
        assert!(body.contains(said) && (status != 200 || body == said), "{method} {path}: {body}");
    }
}

/// A key and a legacy token of the target, with hashes in the folder, computed by Python.
fn by_python(objects: &std::path::Path) -> [String; 2] {
    let python = Private::start("hashes.py", &[]);
    let (id, private) = ("0b5a5e2c-9d39-4d0e-8f5e-6a8f0c1d2e3f", "0123456789abcdef0123");
    let (key, legacy) = (python.ask(&format!("key {id} {private}")), python.ask(&format!("legacy secret {T}")));
    for (name, text) in [(format!("cdn-keys/{T}/{id}"), private), (format!("cdn-legacy-keys/{T}"), legacy.as_str())] {
        let path = objects.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, python.ask(&format!("hash {text}"))).unwrap();
    }
    [key, legacy]
}

fn rows(token: &str) -> Vec<Row<'_>> {
    let (good, bad) = (Some(token), Some("hv2bm90IGEga2V5"));
    let a = format!("/artifacts/v1/{T}");
    vec![
        ("GET", "/_health".into(), None, 200, "OK"),
        ("GET", format!("{a}/sdl"), good, 200, SDL),
        ("GET", format!("{a}/sdl/"), good, 200, SDL),
        ("GET", format!("{a}/sdl.graphqls"), good, 200, SDL),
        ("GET", format!("{a}/contracts/mobile/supergraph"), good, 200, "x"),
        ("GET", format!("{a}/version/{V}/sdl"), good, 200, "x"),
        ("GET", format!("{a}/apps/web/1.0/abc"), good, 200, "x"),
        ("GET", format!("{a}/apps/web/2.0/abc"), good, 404, "Not found."),
        ("GET", format!("/{T}"), good, 200, "x"),
        ("GET", format!("/{T}/sdl"), good, 200, SDL),
        ("GET", format!("{a}/sdl"), None, 400, "MISSING_AUTH_KEY"),
        ("GET", format!("/{T}"), None, 400, "MISSING_AUTH_KEY"),
        ("GET", format!("{a}/sdl"), bad, 403, "INVALID_AUTH_KEY"),
        ("GET", format!("/artifacts/v1/{V}/sdl"), good, 403, "INVALID_AUTH_KEY"),
        ("GET", format!("{a}/nothing"), None, 404, "Not found."),
        ("GET", format!("{a}/version/1/sdl"), None, 404, "Not found."),
        ("GET", format!("{a}/supergraph"), good, 404, "Not found."),
        ("GET", format!("/{T}/supergraph"), good, 404, "NOT_FOUND"),
        ("GET", "/".into(), None, 400, "MISSING_TARGET_ID"),
        ("GET", format!("/{T}/nothing"), None, 400, "INVALID_ARTIFACT_TYPE"),
        ("GET", format!("/{T}/introspection"), good, 501, "not-implemented"),
        ("GET", format!("{a}/schema"), None, 301, "Found."),
        ("HEAD", format!("{a}/sdl"), good, 404, ""),
        ("POST", format!("{a}/sdl"), good, 404, "Not found."),
        ("GET", format!("{a}/%2e%2e/sdl"), good, 404, "Not found."),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_looked_up_are_503_and_never_a_refusal() {
    let place = Place::new();
    let config = gates(&place, "deadline = \"3s\"");
    let switches = place.switches("faults");
    let mut node = place.node(&config, "one", &[("KEYREEVE_TEST_FAULTS", switches.to_str().unwrap())]);
    node.wait_until_listening();
    node.wait_until_listening();
    let (token, _) = create(&node, T).await;
    let ask = async || {
        let mut found = Vec::new();
        for url in &node.urls()[1..] {
            let request = client().get(format!("{url}/artifacts/v1/{T}/sdl")).header("x-hive-cdn-key", &token);
            let got = request.send().await.unwrap();
            found.push((got.status().as_u16(), got.headers().contains_key("retry-after")));
        }
        found
    };
    fs::write(switches.join("store-cut"), "").unwrap();
    until("nothing is known of the token any more", async || {
        let found = ask().await;
        assert!(found.iter().all(|(status, _)| [200, 503].contains(status)), "{found:?}\n{}", node.log_text());
        (found == [(503, true), (503, true)]).then_some(())
    })
    .await;
    fs::remove_file(switches.join("store-cut")).unwrap();
    until("the token is accepted again", async || (ask().await == [(200, false), (200, false)]).then_some(())).await;
}
