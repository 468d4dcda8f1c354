//! Routes and an object that misbehave on purpose, so that `tests/worker` can see what that costs everybody else; and routes
//! that try each leaf by itself.
//! Only in builds with the feature `testing`.

mod cost;
mod leaves;

use std::cell::Cell;
use std::time::Duration;

use http::StatusCode;
use keyreeve::core::id::CredentialName;
use keyreeve::crypto::LocalCrypto;
use keyreeve::outbound::record_key;
use worker::{Context, Delay, DurableObject, Env, HttpRequest, Request, Response, State, durable_object, wasm_bindgen};

/// How long `wait` takes: long enough to be in flight while another request falls over.
const WAIT: Duration = Duration::from_millis(500);

/// The same in what is answered at once: `/testing/now/panic` and `/testing/now/abort`.
pub(crate) fn misbehave_now(request: &http::Request<()>) {
    match request.uri().path() {
        "/testing/now/panic" => fall_over(),
        "/testing/now/abort" => std::process::abort(),
        _ => {}
    }
}

/// Answers the routes below `/testing/`, and no others; `/testing/object/` is the same in the object.
pub(crate) async fn misbehave(request: &HttpRequest, env: &Env, context: &Context) -> Option<worker::Result<Response>> {
    // So that a test can tell which requests were answered at once.
    worker::console_log!("the long way: {}", request.uri().path());
    if let Some(answer) = leaves::answer(request, env, context).await {
        return Some(answer);
    }
    if let Some(answer) = cost::answer(request, env).await {
        return Some(answer);
    }
    let what = request.uri().path().strip_prefix("/testing/")?;
    if let Some((name, what)) = what.strip_prefix("credential/").and_then(|rest| rest.split_once('/')) {
        return Some(ask_credential(env, name, what).await);
    }
    Some(match what.strip_prefix("object/") {
        Some(what) => ask_object(env, what).await,
        None => act(what).await,
    })
}

async fn ask_object(env: &Env, what: &str) -> worker::Result<Response> {
    let stub = env.durable_object("STUMBLER")?.get_by_name("the one")?;
    stub.fetch_with_str(&format!("https://object/{what}")).await
}

/// The object of a credential, doing what an object never should.
async fn ask_credential(env: &Env, name: &str, what: &str) -> worker::Result<Response> {
    let name = CredentialName::parse(name).map_err(|error| worker::Error::RustError(error.to_string()))?;
    let stub = env.durable_object("KEYREEVE")?.get_by_name(record_key(&LocalCrypto, &name, None).as_str())?;
    stub.fetch_with_str(&format!("https://object.invalid/testing/{what}")).await
}

/// What a request to the object of a credential asks for, where it is one of these.
pub(crate) async fn object(request: &HttpRequest) -> Option<worker::Result<Response>> {
    let what = request.uri().path().strip_prefix("/testing/")?;
    Some(act(what).await)
}

/// # Panics
/// On `panic` at once, on `panic-later` after the first await. That is what they are for.
async fn act(what: &str) -> worker::Result<Response> {
    match what {
        "panic" => fall_over(),
        "panic-later" => {
            Delay::from(Duration::from_millis(1)).await;
            fall_over()
        }
        // What no unwinding catches: as if memory or stack had come to their end.
        "abort" => std::process::abort(),
        "wait" => {
            Delay::from(WAIT).await;
            answer(StatusCode::OK, r#"{"status":"waited"}"#)
        }
        _ => answer(StatusCode::NOT_FOUND, "{}"),
    }
}

#[expect(clippy::panic, reason = "the test of what a panic does needs one")]
fn fall_over() -> ! {
    panic!("a deliberate panic")
}

/// An object that counts in its memory and on its disk, so that a test sees which of them it has lost.
#[durable_object(fetch)]
pub struct Stumbler {
    state: State,
    in_memory: Cell<u64>,
}

// A panic between two uses of the counter leaves it as it was.
impl std::panic::RefUnwindSafe for Stumbler {}
impl std::panic::UnwindSafe for Stumbler {}

impl DurableObject for Stumbler {
    fn new(state: State, _env: Env) -> Self {
        Self { state, in_memory: Cell::new(0) }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        let path = request.path();
        if path != "/count" {
            return act(path.trim_start_matches('/')).await;
        }
        let sql = self.state.storage().sql();
        sql.exec("CREATE TABLE IF NOT EXISTS counts (id INTEGER PRIMARY KEY)", None)?;
        sql.exec("INSERT INTO counts DEFAULT VALUES", None)?;
        let rows: Vec<serde_json::Value> = sql.exec("SELECT COUNT(*) AS n FROM counts", None)?.to_array()?;
        self.in_memory.set(self.in_memory.get() + 1);
        let on_disk = rows.first().and_then(|row| row.get("n")).and_then(serde_json::Value::as_f64).unwrap_or(-1.0);
        answer(StatusCode::OK, &format!(r#"{{"memory":{},"disk":{on_disk}}}"#, self.in_memory.get()))
    }
}

/// One buffer, so that the platform sends its length.
fn answer(status: StatusCode, json: &str) -> worker::Result<Response> {
    let builder = worker::ResponseBuilder::new().with_status(status.as_u16());
    Ok(builder.with_header("content-type", "application/json")?.fixed(json.as_bytes().to_vec()))
}
