//! Gates of artifacts: every row of the contract, what happens when stores fail, and that no path leaves its target.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use futures::stream::BoxStream;
use http::{Request, StatusCode};
use keyreeve::access::{Ask, Denied};
use keyreeve::artifact::checks::Checks;
use keyreeve::artifact::{Artifacts, Objects};
use keyreeve::config::{ArtifactConfig, Bind, Compat, Deliver, Keep, Surface};
use keyreeve::core::time::Moment;
use keyreeve::http::{ArtifactGate, ArtifactGates, Site};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use sha2::{Digest as _, Sha256};

use crate::http_world::{Answer, HOUR, MINUTE, SECOND, World, pass};

pub(crate) const T: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
const OTHER: &str = "00000000-7dec-11d0-a765-00a0c91e6bf6";
pub(crate) const V: &str = "11111111-2222-4333-8444-555555555555";

/// What a bucket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Answer,
    Hang,
    HangInBody,
    Forbid,
    Fail,
    After(u64),
    /// It reads at once, and answers later.
    Late(u64),
}

/// A bucket that does as it is told, and counts.
#[derive(Debug)]
pub(crate) struct Bucket {
    to: InMemory,
    does: Mutex<Does>,
    reads: AtomicU64,
    /// Of what.
    pub(crate) names: Mutex<Vec<String>>,
    pub(crate) is_full: AtomicBool,
    /// It heeds no "only if there is none".
    pub(crate) is_loose: AtomicBool,
    /// It gives nothing, as to a key that may only write.
    pub(crate) is_write_only: AtomicBool,
    /// Somebody else puts other bytes under a name right after it was put.
    pub(crate) has_rival: AtomicBool,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

impl Bucket {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            to: InMemory::new(),
            does: Mutex::new(Does::Answer),
            reads: AtomicU64::new(0),
            names: Mutex::default(),
            is_full: AtomicBool::new(false),
            is_loose: AtomicBool::new(false),
            is_write_only: AtomicBool::new(false),
            has_rival: AtomicBool::new(false),
        })
    }

    pub(crate) fn set(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    pub(crate) async fn take_away(&self, name: &str) {
        self.to.delete(&Path::parse(name).unwrap()).await.unwrap();
    }

    pub(crate) async fn hold(&self, name: &str, body: &str) {
        self.to.put(&Path::parse(name).unwrap(), PutPayload::from(body.to_owned())).await.unwrap();
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "bucket", source: "it is full".into() });
        }
        let mode = if self.is_loose.load(Ordering::SeqCst) { PutMode::Overwrite } else { options.mode.clone() };
        let put = self.to.put_opts(at, payload, PutOptions { mode, ..options }).await;
        if self.has_rival.load(Ordering::SeqCst) {
            self.hold(at.as_ref(), "the rival's").await;
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.to.put_multipart_opts(at, options).await
    }

    // The library's name for it.
    async fn r#get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.names.lock().unwrap().push(at.to_string());
        let does = *self.does.lock().unwrap();
        let does = if self.is_write_only.load(Ordering::SeqCst) { Does::Forbid } else { does };
        match does {
            Does::Hang => std::future::pending().await,
            Does::Forbid => {
                let source = "403 AccessDenied".into();
                Err(object_store::Error::PermissionDenied { path: at.to_string(), source })
            }
            Does::Fail => Err(object_store::Error::Generic { store: "bucket", source: "500".into() }),
            Does::After(ms) => {
                pass(ms).await;
                self.to.get_opts(at, options).await
            }
            Does::Late(ms) => {
                let found = self.to.get_opts(at, options).await;
                pass(ms).await;
                found
            }
            Does::HangInBody => {
                let mut found = self.to.get_opts(at, options).await?;
                found.payload = object_store::GetResultPayload::Stream(Box::pin(futures::stream::pending()));
                Ok(found)
            }
            Does::Answer => self.to.get_opts(at, options).await,
        }
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.to.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if *self.does.lock().unwrap() == Does::Hang {
            return Box::pin(futures::stream::pending());
        }
        self.to.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.to.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.to.copy_opts(from, to, options).await
    }
}

/// Knows the token `good` of each target but [`OTHER`], those with a reason for their name, and counts.
#[derive(Default)]
struct Doorman {
    asked: AtomicU64,
    is_slow: AtomicBool,
    is_hanging: AtomicBool,
}

impl Doorman {
    fn verdict(ask: &Ask<'_>) -> Result<(), Denied> {
        assert!(ask.path.starts_with('/'));
        match ask.token {
            "good" if ask.target != OTHER => Ok(()),
            "revoked" => Err(Denied::Revoked),
            "narrow" => Err(Denied::OutOfScope("only /sdl".into())),
            "away" => Err(Denied::Unavailable { retry_ms: 2000 }),
            "stale" => Err(Denied::Stale),
            _ => Err(Denied::Unknown),
        }
    }
}

#[async_trait]
impl Checks for Doorman {
    fn seen(&self, ask: &Ask<'_>, _: Moment) -> Option<Result<(), Denied>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let waits = self.is_slow.load(Ordering::SeqCst) || self.is_hanging.load(Ordering::SeqCst);
        (!waits).then(|| Self::verdict(ask))
    }

    async fn check(&self, ask: &Ask<'_>, _: Moment) -> Result<(), Denied> {
        if self.is_hanging.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Self::verdict(ask)
    }
}

pub(crate) fn config(compat: Compat) -> ArtifactConfig {
    ArtifactConfig {
        bind: Bind::Tcp("127.0.0.1:0".parse().unwrap()),
        tls: None,
        compat,
        tokens: "cdn".into(),
        origins: vec!["primary".into(), "mirror".into()],
        hedge_ms: 150,
        deadline_ms: 5 * SECOND,
        deliver: Deliver::Stream,
        fresh_ms: SECOND,
        stale_ms: 24 * HOUR,
        cache: None,
        cache_bytes_max: 1 << 20,
        memory_bytes_max: 1 << 20,
        kept_bytes_max: 4096,
        publish_bytes_max: 8192,
        requests_max: 64,
        cors: vec!["https://studio.example.org".into()],
    }
}

/// A gate `cdn` over an empty bucket in memory.
pub(crate) fn one_gate(world: &World) -> ArtifactGates {
    let objects = vec![("primary".to_owned(), Objects::new(Arc::new(InMemory::new()), "memory:"))];
    let artifacts = Artifacts::open("cdn", &config(Compat::Own), objects, world.node.host.clone(), &[]).unwrap();
    [("cdn".to_owned(), Arc::new(ArtifactGate::new(artifacts, Arc::new(Doorman::default()))))].into()
}

pub(crate) struct Gate {
    pub(crate) world: World,
    pub(crate) primary: Arc<Bucket>,
    pub(crate) mirror: Arc<Bucket>,
    doorman: Arc<Doorman>,
    site: Site,
}

impl Gate {
    pub(crate) async fn new(compat: Compat) -> Self {
        Self::with(config(compat), (Bucket::new(), Bucket::new())).await
    }

    pub(crate) async fn with(config: ArtifactConfig, (primary, mirror): (Arc<Bucket>, Arc<Bucket>)) -> Self {
        let world = World::new();
        let objects = vec![
            ("primary".to_owned(), Objects::new(primary.clone(), "s3://primary")),
            ("mirror".to_owned(), Objects::new(mirror.clone(), "s3://mirror")),
        ];
        let artifacts = Artifacts::open("cdn", &config, objects, world.node.host.clone(), &[]).unwrap();
        let doorman = Arc::new(Doorman::default());
        let gate = Arc::new(ArtifactGate::new(artifacts, doorman.clone()));
        let mut live = world.node.live(Keep::OnDemand { lifetimes: 3 }, [7; 32], Some(&world.outbound));
        live.artifacts = [("cdn".to_owned(), gate)].into();
        world.api.reload(live);
        let site = Site::artifacts(Arc::clone(&world.api), "cdn");
        let router = keyreeve::http::router(Arc::clone(&world.api), &[Surface::Api].into());
        let world = World { router, ..world };
        for bucket in [&primary, &mirror] {
            bucket.hold(&format!("artifact/{T}/sdl"), "type Query { ok: Boolean }").await;
            bucket.hold(&format!("artifact/{T}/services"), "[{\"sdl\":\"\"}]").await;
        }
        Self { world, primary, mirror, doorman, site }
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> Answer {
        self.answer(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Answer {
        Answer::read(self.site.answer(request).await).await
    }

    /// With a good token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).header("x-hive-cdn-key", "good")).await
    }

    pub(crate) async fn sdl(&self) -> Answer {
        self.get(&format!("/artifacts/v1/{T}/sdl")).await
    }

    pub(crate) fn both(&self, does: Does) {
        self.primary.set(does);
        self.mirror.set(does);
    }
}

/// How long `asked` takes, in milliseconds, and what comes of it.
pub(crate) async fn timed<T>(asked: impl Future<Output = T>) -> (T, u128) {
    let start = tokio::time::Instant::now();
    let answer = asked.await;
    (answer, start.elapsed().as_millis())
}

pub(crate) fn key(path: &str, key: &str) -> http::request::Builder {
    Request::get(path).header("x-hive-cdn-key", key)
}

const DESCRIPTION: &str =
    "Please refer to the documentation for more details: https://docs.graphql-hive.com/features/registry-usage ";

#[track_caller]
fn is_hive_error(answer: &Answer, status: u16, code: &str, error: &str) {
    assert_eq!(answer.status.as_u16(), status, "{answer}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = format!("{{\"code\":{code:?},\"error\":{error:?},\"description\":{DESCRIPTION:?}}}");
    assert_eq!(answer.body, body);
}

#[tokio::test(start_paused = true)]
async fn hive_refuses_as_its_table_says() {
    let gate = Gate::new(Compat::Hive).await;
    let invalid = "Hive CDN authentication key is invalid, or it does not match the requested target ID.";
    for path in [format!("/artifacts/v1/{T}/sdl"), format!("/{T}/sdl"), format!("/{T}")] {
        let answer = gate.send(Request::get(&path)).await;
        is_hive_error(&answer, 400, "MISSING_AUTH_KEY", "Hive CDN authentication key is missing");
        let bearer = Request::get(&path).header("authorization", "Bearer good");
        is_hive_error(&gate.send(bearer).await, 400, "MISSING_AUTH_KEY", "Hive CDN authentication key is missing");
        for wrong in ["bad", "revoked", "narrow", ""] {
            is_hive_error(&gate.send(key(&path, wrong)).await, 403, "INVALID_AUTH_KEY", invalid);
        }
        let long = "a".repeat(513);
        is_hive_error(&gate.send(key(&path, &long)).await, 403, "INVALID_AUTH_KEY", invalid);
        let twice = key(&path, "good").header("x-hive-cdn-key", "good");
        is_hive_error(&gate.send(twice).await, 403, "INVALID_AUTH_KEY", invalid);
    }
    let other = gate.get(&format!("/artifacts/v1/{OTHER}/sdl")).await;
    is_hive_error(&other, 403, "INVALID_AUTH_KEY", invalid);
    is_hive_error(
        &gate.send(Request::get("/")).await,
        400,
        "MISSING_TARGET_ID",
        "Missing Hive target ID in request params.",
    );
    let bad = gate.send(Request::get(format!("/{T}/nothing"))).await;
    is_hive_error(&bad, 400, "INVALID_ARTIFACT_TYPE", "Invalid artifact type: \"nothing\"");
    assert_eq!(gate.primary.reads() + gate.mirror.reads(), 0, "nothing was read for any of them");
    let gone = gate.get(&format!("/{T}/supergraph")).await;
    let text = format!("Hive CDN was unable to find an artifact of type \"supergraph\" for target \"{T}\"");
    is_hive_error(&gone, 404, "NOT_FOUND", &text);
    for path in ["sdl2", "version/not-a-uuid/sdl", "a/b/c", "contracts/m/nothing", "version/1/schema"] {
        let answer = gate.send(Request::get(format!("/artifacts/v1/{T}/{path}"))).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, "Not found."), "{path}");
    }
    let gone = gate.get(&format!("/artifacts/v1/{T}/supergraph")).await;
    assert_eq!((gone.status.as_u16(), gone.body.as_str()), (404, "Not found."));
    for method in ["HEAD", "POST", "PUT", "DELETE"] {
        let request = Request::builder().method(method).uri(format!("/artifacts/v1/{T}/sdl"));
        assert_eq!(gate.send(request.header("x-hive-cdn-key", "good")).await.status, 404, "{method}");
    }
    assert_eq!(gate.get(&format!("/{T}/introspection")).await.status, 501);
}

#[tokio::test(start_paused = true)]
async fn hive_hands_out_as_its_table_says() {
    let gate = Gate::new(Compat::Hive).await;
    for name in [
        format!("artifact/{T}/contracts/mobile/supergraph"),
        format!("artifact/{T}/version/{V}/sdl"),
        format!("artifact/{T}/version/{V}/contracts/mobile/services"),
        format!("app/{T}/web/1.0/abc"),
    ] {
        gate.primary.hold(&name, &name).await;
    }
    let a = format!("/artifacts/v1/{T}");
    for path in ["/_health", "/_health/"] {
        assert_eq!(gate.send(Request::get(path)).await.body, "OK", "{path}");
    }
    for (path, kind) in [
        ("sdl", "text/plain"),
        ("sdl/", "text/plain"),
        ("sdl.graphql", "text/plain"),
        ("sdl.graphqls", "text/plain"),
        ("services", "application/json"),
        ("contracts/mobile/supergraph", "text/plain"),
    ] {
        let answer = gate.get(&format!("{a}/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(kind)), "{path} {answer}");
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        let etag = answer.header("etag").expect("an entity tag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'));
        let again = gate.send(key(&format!("{a}/{path}"), "good").header("if-none-match", &etag)).await;
        assert_eq!((again.status.as_u16(), again.body.as_str(), again.header("etag")), (304, "", Some(etag.as_str())));
    }
    for path in [format!("{a}/version/{V}/sdl"), format!("{a}/version/{V}/contracts/mobile/services")] {
        let answer = gate.get(&path).await;
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"), "{answer}");
    }
    let moved = gate.send(Request::get(format!("{a}/schema?x=1"))).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (301, Some(format!("{a}/services?x=1").as_str())));
    let app = format!("{a}/apps/web/1.0/abc");
    assert_eq!(gate.get(&app).await.status, 404, "the app is not active");
    gate.primary.hold(&format!("apps-enabled/{T}/web/1.0"), "1").await;
    let answer = gate.get(&app).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/plain")));
    gate.primary.hold(&format!("app-v2/{T}/web/def"), "by its hash").await;
    assert_eq!(gate.get(&format!("{a}/apps/web/1.0/def")).await.body, "by its hash", "as newer Hives store it");
    let away = Gate::new(Compat::Hive).await;
    for name in [format!("apps-enabled/{T}/web/1.0"), format!("app/{T}/web/1.0/abc")] {
        away.mirror.hold(&name, "1").await;
    }
    for does in [Does::Hang, Does::Fail] {
        away.primary.set(does);
        let (answer, ms) = timed(away.get(&app)).await;
        assert_eq!(answer.status, 200, "the mirror has it as older Hives store it, {does:?}: {answer}");
        assert!(ms <= 2 * 400, "whether it is active, and what it is: {ms} ms");
        pass(6 * SECOND).await;
    }
    assert_eq!(gate.get(&format!("{a}/apps/web/1.0/none")).await.status, 404);
    pass(2 * SECOND).await;
    let reads = gate.primary.reads();
    assert_eq!(gate.get(&app).await.status, 200);
    assert_eq!(gate.primary.reads(), reads + 2, "whether the app is active, and where it was found before");
    gate.both(Does::Fail);
    pass(MINUTE).await;
    let stale = gate.get(&app).await;
    assert_eq!((stale.status.as_u16(), stale.header("warning").is_some()), (200, true), "{stale}");
}

#[tokio::test(start_paused = true)]
async fn hive_answers_in_the_old_way_too() {
    let gate = Gate::new(Compat::Hive).await;
    for path in [format!("/{T}"), format!("/{T}/schema"), format!("/{T}/")] {
        let answer = gate.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "[{\"sdl\":\"\"}]"), "{path}");
        let hash = Sha256::digest(format!("target:{T}:services|[{{\"sdl\":\"\"}}]"));
        let etag = format!("\"{}\"", keyreeve::hex::encode(&hash));
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
        assert_eq!(gate.send(key(&path, "good").header("if-none-match", etag)).await.status, 304);
    }
    let mesh = "[{\"$ref\":\"#/definitions/_schema\"}]";
    gate.primary.hold(&format!("artifact/{T}/metadata"), mesh).await;
    for path in [format!("/{T}/metadata"), format!("/artifacts/v1/{T}/metadata")] {
        assert_eq!(gate.get(&path).await.body, mesh.trim_matches(['[', ']']));
    }
    pass(2 * SECOND).await;
    gate.primary.hold(&format!("artifact/{T}/metadata"), "[{\"own\":1}]").await;
    assert_eq!(gate.get(&format!("/{T}/metadata")).await.body, "[{\"own\":1}]");
}

#[tokio::test(start_paused = true)]
async fn metadata_of_the_object_is_in_the_answer() {
    let gate = Gate::new(Compat::Hive).await;
    let attributes = Attributes::from_iter([
        (Attribute::Metadata("x-hive-schema-version-id".into()), V),
        (Attribute::ContentType, "application/graphql"),
    ]);
    let name = Path::parse(format!("artifact/{T}/supergraph")).unwrap();
    gate.primary.to.put_opts(&name, "x".into(), attributes.into()).await.unwrap();
    let path = format!("/artifacts/v1/{T}/supergraph");
    let answer = gate.get(&path).await;
    assert_eq!(answer.header("x-hive-schema-version-id"), Some(V));
    assert_eq!(answer.header("content-type"), Some("text/plain"), "as Hive's");
    let own = Gate::with(config(Compat::Own), (gate.primary.clone(), gate.mirror.clone())).await;
    assert_eq!(own.get(&path).await.header("content-type"), Some("application/graphql"));
}

#[tokio::test(start_paused = true)]
async fn browsers_are_told_what_they_may_send() {
    let preflight = |origin: &str| {
        Request::options(format!("/artifacts/v1/{T}/sdl"))
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "x-hive-cdn-key")
    };
    let hive = Gate::new(Compat::Hive).await;
    let answer = hive.send(preflight("https://anywhere.example")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://anywhere.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("OPTIONS, GET"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-hive-cdn-key"));
    let answer = hive.send(Request::get("/_health").header("origin", "https://anywhere.example")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://anywhere.example"));
    let own = Gate::new(Compat::Own).await;
    let answer = own.send(preflight("https://studio.example.org")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://studio.example.org"));
    let answer = own.send(preflight("https://anywhere.example")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test(start_paused = true)]
async fn keyreeves_own_way_has_problems_heads_and_ranges() {
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/artifacts/v1/{T}/sdl");
    let answer = gate.send(Request::get(&path)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    for wrong in ["bad", "revoked"] {
        let answer = gate.send(Request::get(&path).header("authorization", format!("Bearer {wrong}"))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["detail"].as_str()),
            (401, Some("the token is not valid, or not for this target"))
        );
    }
    assert_eq!(gate.send(key(&path, "narrow")).await.status, 403);
    let both = key(&path, "good").header("authorization", "Bearer good");
    assert_eq!(gate.send(both).await.status, 401);
    assert_eq!(gate.get(&format!("/artifacts/v1/{T}/gone")).await.problem(), "not-found");
    let whole = gate.send(Request::get(&path).header("authorization", "Bearer good")).await;
    assert_eq!((whole.status.as_u16(), whole.body.as_str()), (200, "type Query { ok: Boolean }"));
    let etag = whole.header("etag").unwrap().to_owned();
    let date = whole.header("last-modified").unwrap().to_owned();
    assert!(date.ends_with(" GMT"), "{date}");
    let head = gate.send(Request::head(&path).header("authorization", "Bearer good")).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.as_str()), (200, Some("26"), ""));
    for (name, value, status) in [
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", &format!("\"x\", W/{etag}"), 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"x\"", 200),
        ("if-modified-since", date.as_str(), 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT", 200),
    ] {
        let answer = gate.send(key(&path, "good").header(name, value)).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    for (range, status, body, content_range) in [
        ("bytes=0-3", 206, "type", Some("bytes 0-3/26")),
        ("bytes=5-", 206, "Query { ok: Boolean }", Some("bytes 5-25/26")),
        ("bytes=-1", 206, "}", Some("bytes 25-25/26")),
        ("bytes=0-999", 206, "type Query { ok: Boolean }", Some("bytes 0-25/26")),
        ("bytes=26-", 416, "", Some("bytes */26")),
        ("bytes=-0", 416, "", Some("bytes */26")),
        ("bytes=3-1", 200, "type Query { ok: Boolean }", None),
        ("bytes=0-1,3-4", 200, "type Query { ok: Boolean }", None),
        ("lines=0-1", 200, "type Query { ok: Boolean }", None),
        ("bytes=0-99999999999999999999", 200, "type Query { ok: Boolean }", None),
    ] {
        let answer = gate.send(key(&path, "good").header("range", range)).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, body), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
    }
    let range = |condition: &str| key(&path, "good").header("range", "bytes=0-3").header("if-range", condition);
    assert_eq!(gate.send(range(&etag)).await.status, 206);
    assert_eq!(gate.send(range("\"other\"")).await.status, 200);
    assert_eq!(gate.send(Request::post(&path).header("x-hive-cdn-key", "good")).await.status, 405);
    assert_eq!(gate.send(Request::get("/livez")).await.status, 200);
    assert_eq!(gate.send(Request::get("/v1/credentials")).await.status, 404, "the API is elsewhere");
}

#[tokio::test(start_paused = true)]
async fn one_read_is_enough_for_all_who_ask_in_a_second() {
    let gate = Gate::new(Compat::Hive).await;
    gate.primary.set(Does::After(100));
    let answers = futures::future::join_all((0..100).map(|_| gate.sdl())).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(gate.primary.reads(), 1);
    gate.primary.set(Does::Answer);
    pass(900).await;
    gate.sdl().await;
    assert_eq!(gate.primary.reads(), 1, "it is fresh for a second");
    pass(200).await;
    gate.sdl().await;
    assert_eq!(gate.primary.reads(), 2);
    gate.primary.hold(&format!("artifact/{T}/sdl"), "type Query { other: Int }").await;
    pass(SECOND).await;
    assert_eq!(gate.sdl().await.body, "type Query { other: Int }");
}

#[tokio::test(start_paused = true)]
async fn a_version_is_read_once() {
    let gate = Gate::new(Compat::Hive).await;
    gate.primary.hold(&format!("artifact/{T}/version/{V}/sdl"), "v").await;
    for _ in 0..3 {
        assert_eq!(gate.get(&format!("/artifacts/v1/{T}/version/{V}/sdl")).await.body, "v");
        pass(HOUR).await;
    }
    assert_eq!(gate.primary.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_primary_hangs_the_mirror_answers_soon() {
    for compat in [Compat::Hive, Compat::Own] {
        let gate = Gate::new(compat).await;
        for does in [Does::Hang, Does::HangInBody, Does::After(3 * SECOND)] {
            gate.primary.set(does);
            pass(2 * SECOND).await;
            let path = format!("/artifacts/v1/{T}/services");
            gate.primary.hold(&format!("artifact/{T}/services"), "changed, so that its body is read").await;
            let (answer, ms) = timed(gate.get(&path)).await;
            assert_eq!(answer.status, 200, "{does:?} {answer}");
            assert!(ms <= 150 + 250, "{does:?}: {ms} ms");
            assert_eq!(answer.header("warning"), None, "the mirror vouches for it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_keeps_hanging_is_asked_last() {
    let gate = Gate::new(Compat::Own).await;
    gate.primary.set(Does::Hang);
    for at in 0..8 {
        gate.mirror.hold(&format!("artifact/{T}/a{at}"), "x").await;
        let (answer, ms) = timed(gate.get(&format!("/artifacts/v1/{T}/a{at}"))).await;
        assert_eq!(answer.status, 200);
        assert!(if at < 5 { ms >= 150 } else { ms < 10 }, "{at}: {ms} ms");
    }
    assert_eq!(gate.primary.reads(), 5);
    gate.primary.set(Does::Answer);
    pass(5 * SECOND).await;
    gate.primary.hold(&format!("artifact/{T}/new"), "x").await;
    assert_eq!(gate.get(&format!("/artifacts/v1/{T}/new")).await.status, 200, "it is tried again");
}

#[tokio::test(start_paused = true)]
async fn when_nothing_answers_it_is_503_at_the_deadline() {
    for compat in [Compat::Hive, Compat::Own] {
        let gate = Gate::new(compat).await;
        for (does, at_most) in [(Does::Hang, 5000), (Does::Forbid, 10), (Does::Fail, 10)] {
            gate.both(does);
            let (answer, ms) = timed(gate.sdl()).await;
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store-unavailable"), "{does:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert!(ms <= at_most, "{does:?}: {ms} ms");
            assert!(!answer.body.contains("primary") && !answer.body.contains("AccessDenied"), "{answer}");
        }
        gate.both(Does::Answer);
        assert_eq!(gate.sdl().await.status, 200, "no failure is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_primary_can_say_that_something_is_not_there() {
    let gate = Gate::new(Compat::Own).await;
    let path = format!("/artifacts/v1/{T}/new");
    assert_eq!(gate.get(&path).await.status, 404);
    gate.primary.set(Does::Fail);
    assert_eq!(gate.get(&path).await.status, 503, "the mirror may not have it yet");
    gate.primary.set(Does::Answer);
    gate.primary.hold(&format!("artifact/{T}/new"), "x").await;
    assert_eq!(gate.get(&path).await.status, 200, "its absence is not kept");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_answered_while_no_origin_does() {
    for does in [Does::Hang, Does::Forbid, Does::Fail] {
        let gate = Gate::new(Compat::Hive).await;
        let fresh = gate.sdl().await;
        assert_eq!((fresh.header("age"), fresh.header("warning")), (None, None));
        gate.both(does);
        pass(10 * MINUTE).await;
        let (stale, ms) = timed(gate.sdl()).await;
        assert_eq!((stale.status.as_u16(), stale.body.as_str()), (200, "type Query { ok: Boolean }"), "{does:?}");
        assert_eq!(stale.header("warning"), Some("111 - \"Revalidation Failed\""));
        assert!(["600", "601"].contains(&stale.header("age").unwrap()), "{stale}");
        assert!(ms <= 150 * 2 + 250, "{does:?}: {ms} ms");
        let reads = gate.primary.reads();
        let (stale, ms) = timed(gate.sdl()).await;
        assert!(stale.header("warning").is_some() && ms == 0, "nobody waits again for a second: {ms} ms");
        assert_eq!(gate.primary.reads(), reads);
        let etag = stale.header("etag").unwrap().to_owned();
        let same = gate.send(key(&format!("/artifacts/v1/{T}/sdl"), "good").header("if-none-match", etag)).await;
        assert_eq!((same.status.as_u16(), same.header("warning").is_some()), (304, true));
        assert_eq!(
            gate.send(key(&format!("/artifacts/v1/{T}/sdl"), "bad")).await.status,
            403,
            "of a token that is bad"
        );
        gate.both(Does::Answer);
        // A read that hangs has its time, and is joined until then.
        pass(6 * SECOND).await;
        assert_eq!(gate.sdl().await.header("warning"), None, "{does:?}");
        gate.both(does);
        pass(24 * HOUR).await;
        assert_eq!(gate.sdl().await.status, 503, "too old to stand in");
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_takes_longer_than_anybody_waits_for_it_is_heard_all_the_same() {
    let gate = Gate::new(Compat::Hive).await;
    gate.sdl().await;
    for bucket in [&gate.primary, &gate.mirror] {
        bucket.hold(&format!("artifact/{T}/sdl"), "type Query { new: Boolean }").await;
    }
    gate.both(Does::After(600));
    pass(MINUTE).await;
    let (stale, ms) = timed(gate.sdl()).await;
    assert!(stale.header("warning").is_some() && ms <= 150 * 2 + 250, "{ms} ms: {stale}");
    pass(2 * SECOND).await;
    let (new, _) = timed(gate.sdl()).await;
    assert_eq!(new.body, "type Query { new: Boolean }");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_on_disk_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Some(folder.path().join("cache"));
    let settings = ArtifactConfig { cache, ..config(Compat::Own) };
    let gate = Gate::with(settings.clone(), (Bucket::new(), Bucket::new())).await;
    let fresh = gate.sdl().await;
    // Nobody waits for it to be written.
    let written = || {
        std::fs::read_dir(folder.path().join("cache"))
            .unwrap()
            .filter(|entry| !entry.as_ref().unwrap().path().to_string_lossy().ends_with(".part"))
            .count()
    };
    let begun = std::time::Instant::now();
    while written() == 0 && begun.elapsed().as_secs() < 10 {
        tokio::task::yield_now().await;
    }
    let gate = Gate::with(settings.clone(), (gate.primary.clone(), gate.mirror.clone())).await;
    gate.both(Does::Fail);
    let stale = gate.sdl().await;
    assert_eq!((stale.status.as_u16(), stale.header("etag")), (200, fresh.header("etag")), "{stale}");
    assert!(stale.header("age").is_some() && stale.header("warning").is_some());
    // What the primary says is not there is not brought back.
    gate.primary.to.delete(&Path::parse(format!("artifact/{T}/sdl")).unwrap()).await.unwrap();
    gate.primary.set(Does::Answer);
    pass(2 * SECOND).await;
    assert_eq!(gate.sdl().await.status, 404);
    gate.both(Does::Fail);
    assert_eq!(gate.sdl().await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_judged_are_503_in_time() {
    for compat in [Compat::Hive, Compat::Own] {
        let gate = Gate::new(compat).await;
        let path = format!("/artifacts/v1/{T}/sdl");
        for is_slow in [false, true] {
            gate.doorman.is_slow.store(is_slow, Ordering::SeqCst);
            for (token, after) in [("away", "2"), ("stale", "1")] {
                let answer = gate.send(key(&path, token)).await;
                assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some(after)), "{token}");
            }
        }
        gate.doorman.is_hanging.store(true, Ordering::SeqCst);
        let (answer, ms) = timed(gate.sdl()).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
        assert!(ms <= 5000, "{ms} ms");
        assert_eq!(gate.primary.reads(), 0, "nothing is read before the token is judged");
    }
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_none_are_refused_before_any_read() {
    for compat in [Compat::Hive, Compat::Own] {
        let gate = Gate::new(compat).await;
        gate.primary.hold("secret", "x").await;
        for below in [
            "../../secret",
            "%2e%2e/%2e%2e/secret",
            "..%2f..%2fsecret",
            "a//b",
            "a/../sdl",
            "%00",
            "sdl%00",
            "sdl%2f..",
            ".%2e/sdl",
            "a%5cb",
            ".hidden",
            "version/../sdl",
        ] {
            let answer = gate.get(&format!("/artifacts/v1/{T}/{below}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{below}");
        }
        assert_eq!(gate.primary.reads(), 0);
        assert_eq!(gate.doorman.asked.load(Ordering::SeqCst), 0);
    }
}
