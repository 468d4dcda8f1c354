//! Gates of artifacts on real nodes: over folders, with real tokens.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::access::{config, create};
use crate::node::{Node, PROGRAM, Place, answer, ran, until};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_in_memory_stays_over_a_reload() {
    let place = Place::new();
    let config = gates(&place, "fresh = \"0s\"");
    // A reload knows sockets by the addresses that were asked for.
    let mut text = fs::read_to_string(&config).unwrap();
    for (gate, address) in [("hive", "127.0.0.2:0"), ("own", "127.0.0.3:0")] {
        let head = |address: &str| format!("[gate.{gate}]\nkind = \"artifact\"\nbind = \"{address}\"");
        text = text.replace(&head("127.0.0.1:0"), &head(address));
    }
    fs::write(&config, text).unwrap();
    let node = node(&place, &config);
    let (token, _) = create(&node, T).await;
    let client = client();
    let get = async || {
        let request = client.get(format!("{}/artifacts/v1/{T}/sdl", node.urls()[2]));
        let got = request.bearer_auth(&token).send().await.unwrap();
        (got.status().as_u16(), got.headers().contains_key("warning"))
    };
    assert_eq!(get().await, (200, false));
    node.signal("HUP");
    until("the reload is done", async || node.log_text().contains("the configuration was read again").then_some(()))
        .await;
    fs::rename(place.path("objects"), place.path("unmounted")).unwrap();
    assert_eq!(get().await, (200, true), "{}", node.log_text());
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
        Self::answering(place, "hive", more).await
    }

    /// With `compat` as it is here.
    async fn answering(place: &Place, compat: &str, more: &str) -> Self {
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
            "[gate.cdn]\nkind = \"artifact\"\nbind = \"127.0.0.1:0\"\ncompat = \"{compat}\"\norigins = [\"primary\", \"mirror\"]\ncache = \"{}\"\n{more}\n",
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
    for order in ["hang", "status 403", "status 404", "page 404", "status 500", "refuse"] {
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
    for order in ["status 404", "page 404"] {
        buckets.tell(order);
        assert_eq!(buckets.get("supergraph").await.0, 503, "a 404 without a body is asked about: {order}");
        buckets.tell("go");
    }
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
    buckets.primary.tell(&format!("put artifacts cdn/artifact/{T}/a~b x"));
    let (said, problems, code) = place.cli(&buckets.node, &["artifact", "ls", "cdn", T]);
    assert_eq!((said.lines().count(), code), (2, 0), "{said}");
    assert!(problems.contains("1 more have names that no artifact has, such as `a~b`"), "{problems}");
    let (_, problems, code) = place.cli(&buckets.node, &["artifact", "get", "cdn", T, "gone"]);
    assert_eq!(code, 3, "{problems}");
    for path in ["../x y", "../other/sdl", "a/../sdl", "", "a//b", ".hidden"] {
        let (_, problems, code) = place.cli(&buckets.node, &["artifact", "get", "cdn", T, path]);
        assert_eq!(code, 2, "{path}: {problems}");
        let (_, problems, code) = place.cli(&buckets.node, &["artifact", "put", "cdn", T, path, file]);
        assert_eq!(code, 2, "{path}: {problems}");
    }
    let (said, ..) = place.cli(&buckets.node, &["artifact", "ls", "cdn", "other"]);
    assert_eq!(said, "", "nothing was published elsewhere");
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
        format!("app-v2/{T}/web/def"),
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
        ("GET", "/_health/".into(), None, 200, "OK"),
        ("GET", format!("{a}/sdl"), good, 200, SDL),
        ("GET", format!("{a}/sdl/"), good, 200, SDL),
        ("GET", format!("{a}/sdl.graphqls"), good, 200, SDL),
        ("GET", format!("{a}/contracts/mobile/supergraph"), good, 200, "x"),
        ("GET", format!("{a}/version/{V}/sdl"), good, 200, "x"),
        ("GET", format!("{a}/apps/web/1.0/abc"), good, 200, "x"),
        ("GET", format!("{a}/apps/web/1.0/def"), good, 200, "x"),
        ("GET", format!("{a}/apps/web/2.0/def"), good, 404, "Not found."),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_heeds_no_conditions_splices_no_download() {
    let place = Place::new();
    let buckets = Buckets::answering(&place, "none", "kept = \"1KiB\"\nfresh = \"1h\"").await;
    let body = |letter: &str, count: usize| letter.repeat(count);
    let hold = |text: &str| buckets.primary.tell(&format!("put artifacts cdn/artifact/{T}/big {text}"));
    let url = format!("{}/artifacts/v1/{T}/big", buckets.url);
    let get = async |range: &str, tag: &str| {
        let request = buckets.client.get(&url).header("x-hive-cdn-key", &buckets.token);
        let got = request.header("range", range).header("if-range", tag).send().await.unwrap();
        let text = |name: &str| got.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, tag, range) = (got.status().as_u16(), text("etag").unwrap_or_default(), text("content-range"));
        (status, tag, range, got.text().await.unwrap())
    };
    hold(&body("a", 2000));
    for order in ["go", "loose"] {
        hold(&body("a", 2000));
        let (_, tag, ..) = get("bytes=0-", "\"none\"").await;
        buckets.tell(order);
        assert_eq!(get("bytes=1000-", &tag).await.3, body("a", 1000), "{order}");
        hold(&body("b", 2000));
        let (status, new, _, whole) = get("bytes=1000-", &tag).await;
        assert_eq!((status, whole), (200, body("b", 2000)), "{order}");
        hold(&body("c", 1500));
        let beyond = get("bytes=1600-1700", &new).await;
        assert_eq!((beyond.0, beyond.3), (200, body("c", 1500)), "{order}");
    }
    let metrics = buckets.node.metrics().await;
    assert!(!metrics.contains("origin=\"primary\",outcome=\"failed\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redirects_a_head_is_answered_by_the_gate() {
    let place = Place::new();
    let buckets = Buckets::answering(&place, "none", "deliver = \"redirect\"").await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask = async |method: http::Method, path: &str| {
        let request = client.request(method, format!("{}/artifacts/v1/{T}/{path}", buckets.url));
        request.header("x-hive-cdn-key", &buckets.token).send().await.unwrap()
    };
    assert_eq!(ask(http::Method::GET, "sdl").await.status(), 302);
    let head = ask(http::Method::HEAD, "sdl").await;
    assert_eq!((head.status().as_u16(), head.headers().get("location")), (200, None));
    assert_eq!(head.headers()["content-length"].to_str().unwrap(), SDL.len().to_string());
    assert!(head.headers().contains_key("etag"));
    assert_eq!(ask(http::Method::HEAD, "gone").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_stays_as_it_was_published_where_a_bucket_overwrites() {
    const VERSION: &str = "version/0f1b7f2e-7dec-11d0-a765-00a0c91e6bf6/sdl";
    let place = Place::new();
    let buckets = Buckets::new(&place, "").await;
    buckets.tell("loose");
    assert_eq!(buckets.publish(VERSION, "one").await.0, 201);
    assert_eq!(buckets.publish(VERSION, "two").await.0, 409);
    assert_eq!(buckets.publish(VERSION, "one").await.0, 200);
    assert_eq!(buckets.get(VERSION).await.2, "one");
}

/// A node that gives an artifact of six bytes: one each 400 ms where it is called `slow`, three and no more where it is called
/// `stuck`, and nothing at all where it is called something else.
fn slow_node() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = |mut stream: std::net::TcpStream| {
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        let count = if line.contains("slow") { 6 } else { 3 };
        if line.contains("slow") || line.contains("stuck") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n").unwrap();
            for _ in 0..count {
                stream.write_all(b"x").unwrap();
                let _ = pause.recv_timeout(Duration::from_millis(400));
            }
        }
        let _ = pause.recv_timeout(Duration::from_secs(30));
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

#[test]
fn a_download_may_take_longer_than_its_timeout_and_a_silence_may_not() {
    let url = slow_node();
    let get = |path: &str| {
        let args = ["artifact", "get", "cdn", T, path, "--url", &url, "--timeout", "1"];
        ran(Command::new(PROGRAM).args(args).env("KEYREEVE_API_KEY", "kr_x"))
    };
    let (said, problems, code) = get("slow");
    assert_eq!((said.as_str(), code), ("xxxxxx", 0), "2.4 s in all: {problems}");
    for (path, begun) in [("stuck", "xxx"), ("mute", "")] {
        let (said, problems, code) = get(path);
        assert_eq!((said.as_str(), code), (begun, 5), "{path}: {problems}");
        assert!(problems.contains("said nothing for 1 s"), "{problems}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_could_be_read_in_two_ways_are_read_in_none() {
    let place = Place::new();
    let node = node(&place, &gates(&place, ""));
    let (token, _) = create(&node, T).await;
    let path = format!("/artifacts/v1/{T}/sdl");
    let key = format!("x-hive-cdn-key: {token}");
    let request = |line: &str, headers: &str| format!("{line}\r\nhost: x\r\n{headers}\r\n\r\n");
    let get = format!("GET {path} HTTP/1.1");
    let tricks = [
        request(&get, &format!("x-hive-cdn-key : {token}")),
        request(&get, &format!(" x-hive-cdn-key: {token}")),
        request(&get, &format!("x-hive-cdn-key:\r\n {token}")),
        request(&get, &format!("x-hive-cdn-key: {token}\0")),
        request(&get, &format!("x-hive-cdn-key: x\rx-hive-cdn-key: {token}")),
        request(&get, &format!("x-hive-cdn-key\0: {token}")),
        request(&get, &format!("{key}\r\n{key}")),
        request(&get, &format!("{key}\r\nX-HIVE-CDN-KEY: other")),
        request(&get, &format!("{key}\r\ncontent-length: 1\r\ncontent-length: 2")),
        request(&get, &format!("{key}\r\ncontent-length: -1")),
        request(&get, &format!("{key}\r\ntransfer-encoding: chunked, gzip")),
        request(&format!("GET {path}\0 HTTP/1.1"), &key),
        request(&format!("GET  {path} HTTP/1.1"), &key),
        request(&format!("GET {path} x HTTP/1.1"), &key),
        request(&format!("GET {path}%00 HTTP/1.1"), &key),
        request(&format!("GET /artifacts/v1/x/..%2f{T}/sdl HTTP/1.1"), &key),
        request(&format!("GET /artifacts/v1/x/../{T}/sdl HTTP/1.1"), &key),
        request(&format!("GET /artifacts/v1/{T}\\sdl HTTP/1.1"), &key),
    ];
    for url in &node.urls()[1..] {
        let address = url.strip_prefix("http://").unwrap();
        let status = |request: &str| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut line = String::new();
            // A connection that ends without a word has refused, too.
            let _ = BufReader::new(stream).read_line(&mut line);
            line.split(' ').nth(1).unwrap_or("400").parse::<u16>().unwrap()
        };
        for trick in &tricks {
            let found = status(trick);
            assert!([400, 401, 403, 404].contains(&found), "{found}: {trick:?}");
        }
    }
    assert!(!node.metrics().await.contains("keyreeve_artifact_reads_total"), "nothing was read");
    for url in &node.urls()[1..] {
        let got = client().get(format!("{url}{path}")).header("x-hive-cdn-key", &token).send().await.unwrap();
        assert_eq!(got.status(), 200, "the same without a trick");
    }
}
