//! What each leaf does in the real runtime, one route each: the answer is 200 and a text, or 500 and the sentence of what
//! broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use keyreeve::config::{Algorithm, CacheTier, SecretRef};
use keyreeve::core::id::WriteId;
use keyreeve::core::secret::Secret;
use keyreeve::port::{Entry, Host, Http as _, HttpRequest as Outgoing, Key, Register, Secrets as _, Shared, Via};
use keyreeve_sim::conformance;
use worker::{
    Context, Delay, DurableObject, Env, HttpRequest, Request, Response, ResponseBuilder, State, Storage,
    durable_object, wasm_bindgen,
};

use crate::engine::{self, durable::Durable, r2::R2};
use crate::fetch::Fetch;
use crate::host::{Anchor, WorkerHost, within};
use crate::{secrets, webcrypto};

/// The bindings that `tests/worker` gives to this Worker.
const OBJECTS: &str = "TEST_REGISTER";
const BUCKET: &str = "BUCKET";
const NAMESPACE: &str = "KV";

/// The parameters of a test route.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = url_pairs(uri.query().unwrap_or_default());
        Self(pairs)
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| format!("the parameter `{name}` is missing"))
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, String> {
        self.text(name)?.parse().map_err(|_| format!("the parameter `{name}` is not a number"))
    }

    fn key(&self) -> Result<Key, String> {
        Key::new(self.text("key")?).ok_or_else(|| "the parameter `key` is no key".into())
    }
}

fn url_pairs(query: &str) -> Vec<(String, String)> {
    let whole = worker::Url::parse(&format!("https://test.invalid/?{query}"));
    whole.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// Answers `/testing/leaf/..`; nothing for other paths.
pub(super) async fn answer(request: &HttpRequest, env: &Env, context: &Context) -> Option<worker::Result<Response>> {
    let leaf = request.uri().path().strip_prefix("/testing/leaf/")?;
    let query = Query::of(request.uri());
    let anchor = Anchor::of_event(context);
    let outcome = match leaf {
        "durable" => return Some(in_object(env, request.uri()).await),
        "r2" => register(|| R2::new(env, BUCKET).map(|r2| Arc::new(r2) as Arc<dyn Register>), &query).await,
        "shared" => shared(env, &query).await,
        "fetch" => fetch(env, &query).await,
        "secret" => secret(env, &query).await,
        "rs256" => rs256(env, &query).await,
        "clock" => clock(&query).await,
        "spawn" => within(anchor, spawn(env, &query)).await,
        _ => Err("there is no such leaf".into()),
    };
    Some(said(outcome))
}

pub(super) fn said(outcome: Result<String, String>) -> worker::Result<Response> {
    let (status, text) = outcome.map_or_else(|broken| (500, broken), |text| (200, text));
    Ok(ResponseBuilder::new().with_status(status).fixed(text.into_bytes()))
}

async fn in_object(env: &Env, uri: &Uri) -> worker::Result<Response> {
    let name = Query::of(uri).text("object").unwrap_or("one").to_owned();
    let stub = env.durable_object(OBJECTS)?.get_by_name(&name)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    stub.fetch_with_str(&format!("https://object.invalid{path}")).await
}

/// What is asked of a register: the whole suite, or one call of a race that is run from outside.
async fn register(open: impl Fn() -> Result<Arc<dyn Register>, String>, query: &Query) -> Result<String, String> {
    let register = open()?;
    let op = |name| query.number(name).map(op);
    match query.text("do")? {
        "conform" => {
            let count = usize::try_from(query.number("instances")?).unwrap_or(1);
            let another = || open().unwrap_or_else(|_| Arc::clone(&register));
            conformance::check(another, count, query.number("run")?).await.map(|()| "it conforms".into())
        }
        "read" => Ok(match register.read(&query.key()?).await.map_err(|error| error.to_string())? {
            Some(entry) => format!("{} {}", u64::from_be_bytes(tail(entry.op)), String::from_utf8_lossy(&entry.bytes)),
            None => "absent".into(),
        }),
        "swap" => {
            let expected = query.text("expected").is_ok().then(|| op("expected")).transpose()?;
            let next = Entry { op: op("op")?, bytes: Bytes::copy_from_slice(query.text("value")?.as_bytes()) };
            let swap = register.swap(&query.key()?, expected, next).await;
            swap.map(|swap| format!("{swap:?}")).map_err(|error| error.to_string())
        }
        _ => Err("a register does nothing like that".into()),
    }
}

fn op(number: u64) -> WriteId {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().skip(8).zip(number.to_be_bytes()) {
        *to = from;
    }
    WriteId(bytes)
}

fn tail(op: WriteId) -> [u8; 8] {
    op.0.last_chunk().copied().unwrap_or_default()
}

async fn shared(env: &Env, query: &Query) -> Result<String, String> {
    let tier = match query.text("kind")? {
        "cache" => CacheTier::Cache,
        _ => CacheTier::Kv(query.text("binding").unwrap_or(NAMESPACE).to_owned()),
    };
    let cache = engine::shared(env, &tier)?;
    let key = query.key()?;
    match query.text("do")? {
        "put" => {
            let bytes = match query.number("bytes") {
                Ok(length) => Bytes::from(vec![b'x'; usize::try_from(length).unwrap_or(0)]),
                Err(_) => Bytes::copy_from_slice(query.text("value")?.as_bytes()),
            };
            cache.put(&key, bytes, query.number("ttl_ms")?).await.map(|()| "put".into())
        }
        "delete" => cache.delete(&key).await.map(|()| "deleted".into()),
        _ => Ok(match cache.get(&key).await? {
            Some(bytes) => format!("{} {}", bytes.len(), String::from_utf8_lossy(bytes.get(..16).unwrap_or(&bytes))),
            None => "absent".into(),
        }),
    }
}

async fn fetch(env: &Env, query: &Query) -> Result<String, String> {
    let host: Arc<dyn Host> = Arc::new(WorkerHost::new());
    let http = Fetch::new(env.clone(), Arc::clone(&host));
    let body = query.text("body").unwrap_or_default().as_bytes().to_vec();
    let mut headers = Vec::new();
    if let Ok(value) = query.text("header") {
        headers.push((http::header::AUTHORIZATION, Secret::new(value.to_owned())));
    }
    let request = Outgoing {
        method: query
            .text("method")
            .ok()
            .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
            .unwrap_or_default(),
        url: query.text("url")?.to_owned(),
        via: query.text("via").ok().map(|name| Via::Binding(name.to_owned())),
        headers,
        body: Secret::new(body),
        answer_bytes_max: usize::try_from(query.number("max").unwrap_or(65_536)).unwrap_or(0),
    };
    let began = host.now().mono;
    let deadline = began.plus(query.number("ms").unwrap_or(5000));
    let outcome = http.send(request, deadline).await;
    let ended = host.now().mono;
    // The end of the event would end the request as well.
    host.sleep_until(ended.plus(query.number("linger_ms").unwrap_or(0))).await;
    match outcome {
        Ok(answer) => {
            let headers: Vec<String> = answer
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?")))
                .collect();
            let body = String::from_utf8_lossy(answer.body.expose());
            Ok(format!("{} {} {body}", answer.status, headers.join("&")))
        }
        Err(error) => Err(format!("{error:?} after {}ms", ended.since(began))),
    }
}

async fn secret(env: &Env, query: &Query) -> Result<String, String> {
    let name = query.text("name")?.to_owned();
    let reference = match query.text("kind")? {
        "name-in" => SecretRef::NameIn(name.clone()),
        "file" => SecretRef::File(name.clone().into()),
        _ => SecretRef::Binding(name.clone()),
    };
    let host = WorkerHost::new();
    let bound = secrets::BoundSecrets::new(env.clone()).with_stored(&host, [name]).await?;
    bound.read(&reference).map(|secret| String::from_utf8_lossy(secret.expose()).into_owned())
}

async fn rs256(env: &Env, query: &Query) -> Result<String, String> {
    let bound = secrets::BoundSecrets::new(env.clone());
    let key = bound.read(&SecretRef::Binding(query.text("key")?.to_owned()))?;
    let signer = webcrypto::signer(Algorithm::Rs256, &key).map_err(|error| error.to_string())?;
    let mut signature = Vec::new();
    for _ in 0..query.number("times").unwrap_or(1) {
        signature = signer.sign(query.text("message")?.as_bytes()).await.map_err(|error| error.to_string())?;
    }
    Ok(signature.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sleeps, and says how far each clock went, and some random bytes.
async fn clock(query: &Query) -> Result<String, String> {
    let host = WorkerHost::new();
    let before = host.now();
    host.sleep_until(before.mono.plus(query.number("ms")?)).await;
    let after = host.now();
    let mut random = vec![0; 70_000];
    host.fill(&mut random);
    let last = random.last_chunk::<8>().copied().map(u64::from_be_bytes).unwrap_or_default();
    Ok(format!("{} {} {} {last}", after.mono.since(before.mono), after.raw.since(before.raw), after.raw.0))
}

/// Answers at once; a task that it leaves behind puts `value` under `key` into KV after `ms`.
async fn spawn(env: &Env, query: &Query) -> Result<String, String> {
    let host = Arc::new(WorkerHost::new());
    let cache: Arc<dyn Shared> = engine::shared(env, &CacheTier::Kv(NAMESPACE.to_owned()))?;
    let (key, value) = (query.key()?, Bytes::copy_from_slice(query.text("value")?.as_bytes()));
    let until = host.now().mono.plus(query.number("ms")?);
    let inner = Arc::clone(&host);
    host.spawn(Box::pin(async move {
        inner.sleep_until(until).await;
        // A task of a task is anchored as well.
        let innermost = Arc::clone(&inner);
        inner.spawn(Box::pin(async move {
            innermost.sleep_until(until.plus(100)).await;
            let _put = cache.put(&key, value, 60_000).await;
        }));
    }));
    Ok("answered".into())
}

/// An object with a register, and nothing else.
#[durable_object(fetch)]
pub struct TestRegister {
    state: State,
}

impl DurableObject for TestRegister {
    fn new(state: State, _env: Env) -> Self {
        Self { state }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        let uri: Uri = request.url()?.as_str().parse().map_err(|_| "no URI")?;
        let query = Query::of(&uri);
        let storage = self.state.storage();
        let outcome = match query.text("do") {
            Ok("future") => future(&storage),
            Ok("spoil") => spoil(&storage, &query),
            Ok("panic") => Durable::panic_half_way(&storage).map(|()| "it went on".to_owned()),
            Ok("tables") => tables(&storage),
            Ok("wait") => {
                Delay::from(Duration::from_millis(query.number("ms").unwrap_or(0))).await;
                Ok("waited".into())
            }
            _ => register(|| Durable::open(&storage).map(|register| Arc::new(register) as _), &query).await,
        };
        said(outcome)
    }
}

/// Makes the storage look like one that a newer keyreeve has changed.
fn future(storage: &Storage) -> Result<String, String> {
    drop(Durable::open(storage)?);
    run(storage, "UPDATE keyreeve_schema SET version = 7")
}

/// Plants a row that keyreeve cannot have written.
fn spoil(storage: &Storage, query: &Query) -> Result<String, String> {
    let what = match query.text("what")? {
        "short" => "x'0102', x'00'",
        "text" => "zeroblob(16), 'x'",
        _ => "zeroblob(16), zeroblob(200000)",
    };
    run(storage, &format!("INSERT INTO register VALUES ('{}', {what})", query.key()?))
}

fn tables(storage: &Storage) -> Result<String, String> {
    let rows = storage
        .sql()
        .exec("SELECT name FROM sqlite_schema WHERE name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name", None);
    let rows = rows.and_then(|cursor| cursor.raw().collect::<worker::Result<Vec<_>>>());
    rows.map(|rows| format!("{rows:?}")).map_err(|error| error.to_string())
}

fn run(storage: &Storage, statement: &str) -> Result<String, String> {
    storage.sql().exec(statement, None).map(|_| "done".to_owned()).map_err(|error| error.to_string())
}
