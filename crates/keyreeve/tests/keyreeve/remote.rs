//! The register behind a Worker: what is signed, what is refused, and what an answer that proves nothing means.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Method, Request, StatusCode};
use keyreeve::core::id::WriteId;
use keyreeve::core::secret::Secret;
use keyreeve::core::time::{Moment, Mono, Timestamp};
use keyreeve::engine::memory::Memory;
use keyreeve::engine::remote::Remote;
use keyreeve::engine::wire::{self, ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, SIGNATURE, SIGNED_WITHIN_MS, SigningKey};
use keyreeve::port::{
    Capabilities, Entry, Host, Http, HttpAnswer, HttpError, HttpRequest, KEY_BYTES_MAX, Key, LIST_MAX, Register,
    StoreError, Swap,
};
use proptest::prelude::*;
use serde_json::Value;
use sha2::Sha256;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn signing(text: &str) -> SigningKey {
    SigningKey::new(Secret::new(text.as_bytes().to_vec())).unwrap()
}

/// A clock that stands still, and nonces that count.
struct Still {
    wall: AtomicU64,
    nonce: AtomicU64,
}

#[async_trait]
impl Host for Still {
    fn now(&self) -> Moment {
        Moment::new(Timestamp(self.wall.load(Ordering::Relaxed)), Mono(5000))
    }

    async fn sleep_until(&self, _until: Mono) {
        std::future::pending().await
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.nonce.fetch_add(1, Ordering::Relaxed) as u8);
    }

    fn spawn(&self, _task: BoxFuture<'static, ()>) {}
}

/// What happens to one request on its way.
#[derive(Clone, Debug)]
enum Way {
    /// It is answered by the Worker.
    Through,
    /// It does not leave.
    NotSent,
    /// The Worker acts, and its answer is lost.
    AnswerLost,
    /// The Worker acts, and its answer is larger than was asked for.
    AnswerTooLarge,
    /// Somebody on the way answers instead.
    Instead(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The Worker acts, and somebody on the way answers with what it answered to the request before.
    Replayed,
    /// The Worker acts, and somebody changes its status.
    Status(u16),
    /// The Worker acts, and somebody changes a byte of its answer.
    BitFlip,
}

/// A Worker without a network.
struct Edge {
    register: Arc<dyn Register>,
    keys: Vec<SigningKey>,
    clock: AtomicU64,
    ways: Mutex<VecDeque<Way>>,
    requests: Mutex<Vec<(HttpRequest, Mono)>>,
    last: Mutex<Option<HttpAnswer>>,
}

#[async_trait]
impl Http for Edge {
    async fn send(&self, request: HttpRequest, deadline: Mono) -> Result<HttpAnswer, HttpError> {
        self.requests.lock().unwrap().push((request.clone(), deadline));
        let way = self.ways.lock().unwrap().pop_front().unwrap_or(Way::Through);
        if let Way::NotSent = way {
            return Err(HttpError::NotSent("no route".into()));
        }
        if let Way::Instead(status, headers, body) = way {
            let headers = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            return Ok(HttpAnswer { status, headers: headers.collect(), body: Secret::new(body) });
        }
        let (max, now) = (request.answer_bytes_max, Timestamp(self.clock.load(Ordering::Relaxed)));
        assert_eq!(max, ANSWER_BYTES_MAX);
        let response = wire::serve(self.register.as_ref(), &self.keys, now, plain(request)).await;
        let (head, body) = response.into_parts();
        let answer =
            HttpAnswer { status: head.status.as_u16(), headers: head.headers, body: Secret::new(body.to_vec()) };
        let before = self.last.lock().unwrap().replace(answer.clone());
        match way {
            Way::AnswerLost => Err(HttpError::NoAnswer("cut off".into())),
            Way::AnswerTooLarge => Err(HttpError::TooLarge(max)),
            Way::Replayed => Ok(before.unwrap()),
            Way::Status(status) => Ok(HttpAnswer { status, ..answer }),
            Way::BitFlip => {
                let mut bytes = answer.body.expose().clone();
                *bytes.last_mut().unwrap() ^= 1;
                Ok(HttpAnswer { body: Secret::new(bytes), ..answer })
            }
            _ => Ok(answer),
        }
    }
}

fn plain(request: HttpRequest) -> Request<Bytes> {
    let path = request.url.strip_prefix("https://edge.example.org").unwrap().to_owned();
    let mut plain = Request::builder().method(request.method).uri(path);
    for (name, value) in &request.headers {
        plain = plain.header(name, value.expose());
    }
    plain.body(Bytes::from(request.body.expose().clone())).unwrap()
}

struct World {
    edge: Arc<Edge>,
    host: Arc<Still>,
    remote: Remote,
}

fn world_of(register: Arc<dyn Register>, node_key: &str, worker_keys: &[&str]) -> World {
    let edge = Arc::new(Edge {
        register,
        keys: worker_keys.iter().map(|key| signing(key)).collect(),
        clock: AtomicU64::new(NOW.0),
        ways: Mutex::new(VecDeque::new()),
        requests: Mutex::new(Vec::new()),
        last: Mutex::new(None),
    });
    let host = Arc::new(Still { wall: AtomicU64::new(NOW.0), nonce: AtomicU64::new(1) });
    let remote = Remote::new("https://edge.example.org", signing(node_key), 2000, host.clone(), edge.clone());
    World { edge, host, remote }
}

fn world() -> World {
    world_of(Arc::new(Memory::new()), KEY, &[KEY])
}

impl World {
    fn next(&self, way: Way) {
        self.edge.ways.lock().unwrap().push_back(way);
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn entry(number: u8, bytes: &'static str) -> Entry {
    Entry { op: WriteId([number; 16]), bytes: Bytes::from_static(bytes.as_bytes()) }
}

#[track_caller]
fn unknown<T: std::fmt::Debug>(outcome: Result<T, StoreError>, part: &str) {
    assert!(matches!(&outcome, Err(StoreError::Unknown(text)) if text.contains(part)), "{outcome:?}");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>, part: &str) {
    assert!(matches!(&outcome, Err(StoreError::Refused(text)) if text.contains(part)), "{outcome:?}");
}

#[tokio::test]
async fn a_request_has_a_deadline_and_a_nonce_of_its_own_and_goes_to_one_place() {
    let world = world();
    assert_eq!(world.remote.read(&key("a")).await, Ok(None));
    assert_eq!(world.remote.read(&key("a")).await, Ok(None));
    let requests = world.edge.requests.lock().unwrap();
    let [(first, deadline), (second, _)] = requests.as_slice() else { panic!("one request a call") };
    assert_eq!((first.method.as_str(), first.url.as_str()), ("POST", "https://edge.example.org/v1/register"));
    assert_eq!(*deadline, Mono(7000));
    assert_ne!(first.headers[0].1.expose(), second.headers[0].1.expose());
}

#[tokio::test]
async fn an_answer_that_is_lost_says_nothing_and_a_request_that_was_not_sent_wrote_nothing() {
    let world = world();
    for (way, part) in [(Way::AnswerLost, "cut off"), (Way::AnswerTooLarge, "larger than")] {
        let (before, number) =
            (world.edge.register.read(&key("a")).await.unwrap(), world.edge.requests.lock().unwrap().len() as u8);
        world.next(way);
        unknown(world.remote.swap(&key("a"), before.map(|it| it.op), entry(number, "made")).await, part);
        assert_eq!(world.remote.read(&key("a")).await, Ok(Some(entry(number, "made"))), "it was made all the same");
    }
    world.next(Way::NotSent);
    refused(world.remote.swap(&key("b"), None, entry(1, "x")).await, "no route");
    assert_eq!(world.remote.read(&key("b")).await, Ok(None));
    world.next(Way::NotSent);
    refused(world.remote.read(&key("b")).await, "no route");
}

#[tokio::test]
async fn a_box_on_the_way_can_neither_change_an_answer_nor_repeat_one() {
    let world = world();
    assert_eq!(world.remote.swap(&key("a"), None, entry(1, "x")).await, Ok(Swap::Done));
    // "Done" once more: the answer to the swap before this one.
    for way in [Way::Replayed, Way::BitFlip, Way::Status(503)] {
        world.next(way);
        unknown(world.remote.swap(&key("a"), None, entry(2, "y")).await, "without a right signature");
    }
    world.next(Way::Replayed);
    unknown(world.remote.read(&key("a")).await, "without a right signature");
    let own = |body: &[u8]| format!("1;s={}", code(OTHER, &[b"keyreeve register answer 1", b"", b"200", body]));
    for (status, headers, part) in [
        (200, vec![], "answered 200 without"),
        (401, vec![], "is `store.key` the same on both sides?"),
        (404, vec![], "does the Worker have a `store.key`?"),
        (409, vec![], "answered 409 without"),
        (503, vec![("retry-after", "1".to_owned())], "answered 503 without"),
        (200, vec![("keyreeve-signature", String::new())], "answered 200 without"),
        (200, vec![("keyreeve-signature", own(b"\x83\x01\x01\xf5"))], "answered 200 without"),
    ] {
        world.next(Way::Instead(status, headers, b"\x83\x01\x01\xf5".to_vec()));
        unknown(world.remote.swap(&key("a"), None, entry(2, "y")).await, part);
    }
    assert_eq!(world.remote.read(&key("a")).await, Ok(Some(entry(1, "x"))));
}

#[tokio::test]
async fn a_node_with_another_key_gets_nothing_and_writes_nothing() {
    let world = world_of(Arc::new(Memory::new()), OTHER, &[KEY]);
    unknown(world.remote.swap(&key("a"), None, entry(1, "x")).await, "answered 401 without a right signature");
    assert_eq!(world.edge.register.read(&key("a")).await, Ok(None));
    let shared = world_of(Arc::new(Memory::new()), KEY, &[]);
    unknown(shared.remote.read(&key("a")).await, "answered 404 without a right signature");
}

#[tokio::test]
async fn a_worker_takes_the_old_key_until_all_nodes_have_the_new_one() {
    let register: Arc<dyn Register> = Arc::new(Memory::new());
    for (number, node) in [KEY, OTHER].into_iter().enumerate() {
        let world = world_of(Arc::clone(&register), node, &[KEY, OTHER]);
        let key = key(&format!("k{number}"));
        assert_eq!(world.remote.swap(&key, None, entry(1, "x")).await, Ok(Swap::Done));
        assert_eq!(world.remote.read(&key).await, Ok(Some(entry(1, "x"))));
    }
}

#[tokio::test]
async fn a_clock_five_minutes_off_is_taken_and_one_further_off_is_refused_with_the_difference() {
    for (off, text) in [(SIGNED_WITHIN_MS, None), (SIGNED_WITHIN_MS + 1000, Some("5m 1s"))] {
        for (wall, word) in [(NOW.0 - off, "behind"), (NOW.0 + off, "ahead of")] {
            let world = world();
            world.host.wall.store(wall, Ordering::Relaxed);
            let outcome = world.remote.swap(&key("a"), None, entry(1, "x")).await;
            match text {
                None => assert_eq!(outcome, Ok(Swap::Done)),
                Some(text) => {
                    refused(outcome, &format!("signed by a clock {text} {word} this one, the most is 5m"));
                    assert_eq!(world.edge.register.read(&key("a")).await, Ok(None));
                }
            }
        }
    }
    let world = world();
    world.host.wall.store(NOW.0 - SIGNED_WITHIN_MS - 1, Ordering::Relaxed);
    refused(world.remote.read(&key("a")).await, "behind");
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_before_it_is_sent() {
    let world = world();
    let large = Entry { op: WriteId([1; 16]), bytes: vec![0; keyreeve::engine::VALUE_BYTES_MAX + 1].into() };
    refused(world.remote.swap(&key("a"), None, large).await, "larger than the limit");
    assert!(world.edge.requests.lock().unwrap().is_empty());
}

/// A full page of the longest keys, and the largest value, are within what is read of an answer and of a request.
#[tokio::test]
async fn the_largest_messages_fit() {
    let world = world();
    for number in 0..LIST_MAX {
        let key = key(&format!("{number:0>KEY_BYTES_MAX$}"));
        assert_eq!(world.edge.register.swap(&key, None, entry(1, "")).await, Ok(Swap::Done));
    }
    assert_eq!(world.remote.list("", None, LIST_MAX + 7).await.unwrap().len(), LIST_MAX);
    assert!(world.edge.last.lock().unwrap().as_ref().unwrap().body.expose().len() <= ANSWER_BYTES_MAX);
    let largest = Entry { op: WriteId([7; 16]), bytes: vec![9; keyreeve::engine::VALUE_BYTES_MAX].into() };
    let longest = key(&"k".repeat(KEY_BYTES_MAX));
    assert_eq!(world.remote.swap(&longest, None, largest.clone()).await, Ok(Swap::Done));
    assert_eq!(world.remote.read(&longest).await, Ok(Some(largest)));
    assert!(world.edge.requests.lock().unwrap().iter().all(|(it, _)| it.body.expose().len() <= REQUEST_BYTES_MAX));
}

#[test]
fn a_key_has_at_least_32_bytes_and_is_not_shown() {
    assert!(SigningKey::new(Secret::new(vec![b'x'; 32])).is_ok());
    let error = SigningKey::new(Secret::new(vec![b'x'; 31])).unwrap_err();
    assert!(error.starts_with("the key is too short to sign with: 31 bytes are less than 32\nhint: "), "{error}");
    assert!(!format!("{:?}", signing(KEY)).contains("0123"));
}

// --- the Worker's half, by requests of our own making --------------------------------------------------------------

/// The code of a signature, computed as the page says and not as the program does.
fn code(key: &str, fields: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    for field in fields {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(method: &str, path: &str, body: &[u8]) -> String {
    let (time, nonce) = (NOW.0.to_string(), "00".repeat(16));
    let fields: [&[u8]; 6] =
        [b"keyreeve register request 1", method.as_bytes(), path.as_bytes(), time.as_bytes(), nonce.as_bytes(), body];
    format!("1;t={time};n={nonce};s={}", code(KEY, &fields))
}

async fn serve(method: Method, path: &str, signatures: &[String], body: &[u8]) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::builder().method(method).uri(path);
    for signature in signatures {
        request = request.header(SIGNATURE, signature);
    }
    let request = request.body(Bytes::copy_from_slice(body)).unwrap();
    let (head, body) = wire::serve(&Memory::new(), &[signing(KEY)], NOW, request).await.into_parts();
    (head.status, head.headers, body)
}

/// `[1, 0, "a"]`.
const READ: &[u8] = b"\x83\x01\x00\x61a";

#[tokio::test]
async fn a_request_that_is_signed_for_something_else_is_not_answered() {
    let right = header("POST", "/v1/register", READ);
    let (status, headers, _) = serve(Method::POST, "/v1/register", std::slice::from_ref(&right), READ).await;
    assert!(status == StatusCode::OK && headers.contains_key(SIGNATURE));
    let other_time = right.replacen("t=1", "t=2", 1);
    let other_nonce = right.replacen("n=0", "n=1", 1);
    let wrong: [(Method, &str, Vec<String>, &[u8]); 9] = [
        (Method::POST, "/v1/register", vec![], READ),
        (Method::POST, "/v1/register", vec![right.clone(), right.clone()], READ),
        (Method::PUT, "/v1/register", vec![right.clone()], READ),
        (Method::POST, "/v2/register", vec![right.clone()], READ),
        (Method::POST, "/v1/register", vec![right.clone()], b"\x83\x01\x00\x61b"),
        (Method::POST, "/v1/register", vec![other_time], READ),
        (Method::POST, "/v1/register", vec![other_nonce], READ),
        (Method::POST, "/v1/register", vec![right.replacen("1;", "2;", 1)], READ),
        (Method::POST, "/v1/register", vec!["1;t=;n=;s=".into()], READ),
    ];
    for (method, path, signatures, body) in wrong {
        let (status, headers, answer) = serve(method, path, &signatures, body).await;
        assert_eq!((status, headers.get(SIGNATURE)), (StatusCode::UNAUTHORIZED, None), "{path} {signatures:?}");
        let problem: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(401), Some("bad_signature")));
    }
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_not_even_checked() {
    for (bytes, expected) in [(REQUEST_BYTES_MAX, 400), (REQUEST_BYTES_MAX + 1, 413)] {
        let body = vec![0; bytes];
        let (status, ..) = serve(Method::POST, "/v1/register", &[header("POST", "/v1/register", &body)], &body).await;
        assert_eq!(status.as_u16(), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name_and_under_a_signature() {
    let long = [b"\x85\x01\x02\x78\x81".as_slice(), &[b'p'; 129], b"\xf6\x0a"].concat();
    let bad_op = [b"\x86\x01\x01\x61a\xf6\x4f".as_slice(), &[0; 15], b"\x40"].concat();
    let cases: [(&[u8], &str); 11] = [
        (b"\x83\x02\x00\x61a", "the request is of version 2 of the protocol, and version 1 is spoken here"),
        (b"\x81\x02", "the request is of version 2 of the protocol, and version 1 is spoken here"),
        (b"\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x00", "is of version 18446744073709551615"),
        (b"", "the request cannot be read"),
        (b"\xa1\x01\x00", "the request cannot be read"),
        (b"\x83\x01\x09\x61a", "an operation that nobody knows"),
        (b"\x83\x01\x00\x61 ", "a key that is none"),
        (b"\x83\x01\x00\x61a\x00", "it does not end where it should"),
        (b"\x84\x01\x00\x61a", "it does not end where it should"),
        (&long, "a prefix that is too long"),
        (&bad_op, "a write id that is none"),
    ];
    for (body, part) in cases {
        let (status, headers, answer) =
            serve(Method::POST, "/v1/register", &[header("POST", "/v1/register", body)], body).await;
        assert!(status == StatusCode::BAD_REQUEST && headers.contains_key(SIGNATURE), "{body:?}");
        // `[1, 3, text]`.
        assert!(answer.starts_with(b"\x83\x01\x03") && String::from_utf8_lossy(&answer).contains(part), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_of_another_version_or_kind_is_no_answer() {
    for (body, part) in [
        (&b"\x83\x02\x01\xf5"[..], "the answer is of version 2 of the protocol"),
        (b"\x83\x01\x00\xf6", "something else than it was asked"),
        (b"\x83\x01\x05\xf5", "an outcome that nobody knows"),
        (b"\x83\x01\x01", "the answer cannot be read"),
        (b"\x82\x01\x01\xf5", "it does not end where it should"),
        (b"\x83\x01\x02\x9a\xff\xff\xff\xff", "too long a list"),
    ] {
        // The nonce of this world's first request is known.
        let sent = world();
        let _ = sent.remote.swap(&key("a"), None, entry(1, "x")).await;
        let signature = sent.edge.requests.lock().unwrap()[0].0.headers[0].1.expose().clone();
        let code = code(KEY, &[b"keyreeve register answer 1", signature.as_bytes(), b"200", body]);
        let world = world();
        world.next(Way::Instead(200, vec![("keyreeve-signature", format!("1;s={code}"))], body.to_vec()));
        unknown(world.remote.swap(&key("a"), None, entry(1, "x")).await, part);
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

proptest! {
    /// Bodies that begin right and go on at random reach deeper than bodies that are random from the start.
    #[test]
    fn no_body_makes_either_side_fall(
        start in prop::sample::select(vec![&b""[..], READ, b"\x83\x01", b"\x86\x01\x01\x61a\xf6\x50", b"\x83\x01\x02\x84"]),
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let body = [start, &rest].concat();
        let signatures = [header("POST", "/v1/register", &body)];
        let (status, headers, answer) = block_on(serve(Method::POST, "/v1/register", &signatures, &body));
        prop_assert!([200, 400, 503].contains(&status.as_u16()) && headers.contains_key(SIGNATURE));
        prop_assert!(answer.starts_with(b"\x83\x01") && answer.len() < 1024);
        let sent = world();
        let _ = block_on(sent.remote.list("", None, 1));
        let signature = sent.edge.requests.lock().unwrap()[0].0.headers[0].1.expose().clone();
        let code = code(KEY, &[b"keyreeve register answer 1", signature.as_bytes(), b"200", &body]);
        let world = world();
        world.next(Way::Instead(200, vec![("keyreeve-signature", format!("1;s={code}"))], body));
        if let Ok(keys) = block_on(world.remote.list("", None, 1)) {
            prop_assert!(keys.len() <= LIST_MAX);
        }
    }
}

// --- version 1, for ever ---------------------------------------------------------------------------------------------

/// A register whose disk fills up.
struct Filling(Memory);

#[async_trait]
impl Register for Filling {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        match &next.bytes[..] {
            b"full" => Err(StoreError::Refused("the disk is full".into())),
            b"slow" => Err(StoreError::Unknown("it took too long".into())),
            _ => self.0.swap(key, expected, next).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.0.list(prefix, after, limit).await
    }
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap().as_bytes();
    text.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn version_1_is_asked_and_answered_byte_for_byte() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/register-v1.json")).unwrap();
    let world = world_of(Arc::new(Filling(Memory::new())), KEY, &[KEY]);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let now = case["now"].as_u64().unwrap();
        world.host.wall.store(now, Ordering::Relaxed);
        world.edge.clock.store(now, Ordering::Relaxed);
        let (a, b) = (key("cr/a"), key("cr/b"));
        let one = |number: u8, bytes: &'static [u8]| {
            let mut op = [0; 16];
            op[15] = number;
            Entry { op: WriteId(op), bytes: Bytes::from_static(bytes) }
        };
        let expected = one(1, b"").op;
        let remote = &world.remote;
        match name {
            "read nothing" => assert_eq!(remote.read(&a).await, Ok(None)),
            "create" => assert_eq!(remote.swap(&a, None, one(1, b"one")).await, Ok(Swap::Done)),
            "create again" => assert_eq!(remote.swap(&a, None, one(2, b"two")).await, Ok(Swap::Lost)),
            "replace" => assert_eq!(remote.swap(&a, Some(expected), one(3, b"")).await, Ok(Swap::Done)),
            "read" => assert_eq!(remote.read(&a).await, Ok(Some(one(3, b"")))),
            "create another" => {
                let bytes: &'static [u8] = (0..30).collect::<Vec<u8>>().leak();
                assert_eq!(remote.swap(&b, None, one(4, bytes)).await, Ok(Swap::Done));
            }
            "list" => assert_eq!(remote.list("cr/", None, 10).await, Ok(vec![a, b])),
            "list on" => assert_eq!(remote.list("cr/", Some(&a), LIST_MAX + 1).await, Ok(vec![b])),
            "list nothing" => assert_eq!(remote.list("zz", None, 0).await, Ok(vec![])),
            "refused" => refused(remote.swap(&key("cr/c"), None, one(5, b"full")).await, "the disk is full"),
            "unknown" => unknown(remote.swap(&key("cr/c"), None, one(6, b"slow")).await, "it took too long"),
            other => panic!("{other}"),
        }
        let (request, _) = world.edge.requests.lock().unwrap().last().unwrap().clone();
        assert_eq!(request.body.expose(), &unhex(&case["request"]), "{name}");
        assert_eq!(request.headers[0].1.expose(), case["request_signature"].as_str().unwrap(), "{name}");
        let answer = world.edge.last.lock().unwrap().clone().unwrap();
        assert_eq!(answer.body.expose(), &unhex(&case["answer"]), "{name}");
        assert_eq!(answer.headers[SIGNATURE], case["answer_signature"].as_str().unwrap(), "{name}");
        assert_eq!(u64::from(answer.status), case["status"].as_u64().unwrap(), "{name}");
    }
    assert_eq!(cases.len(), 11);
}
