//! What an isolate does with a request: the shared site over a follower, made once per isolate.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http::request::Parts as Head;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use keyreeve::config::{Keep, StoreUrl, Surface};
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::engine::memory::Memory;
use keyreeve::engine::wire::{self, SigningKey};
use keyreeve::error::{Error, ErrorKind};
use keyreeve::http::{Answer, Api, Forward, Live, Parts as ApiParts, Site};
use keyreeve::inbound::Inbound;
use keyreeve::outbound::{Drive, Origin, Outbound, Parts, Tiers, Wish};
use keyreeve::port::{Host, Register};
use worker::{Env, HttpRequest, Response, ResponseBuilder};

use crate::engine;
use crate::engine::r2::R2;
use crate::ground::Ground;
use crate::origin::{CREDENTIAL, OBJECT, Objects};
use crate::register::Registers;

/// Whether the code runs at all: nothing needs to be set up for that.
const LIVE_PATH: &str = "/livez";

thread_local! {
    /// The front of this isolate, once it could be made.
    static FRONT: RefCell<Option<Rc<Front>>> = const { RefCell::new(None) };
}

/// Everything an isolate keeps between requests.
struct Front {
    site: Site,
    host: Arc<dyn Host>,
    /// For native nodes, which sign with these keys; none where they have no business here.
    register: Option<Arc<dyn Register>>,
    signing_keys: Vec<SigningKey>,
}

/// Answers one request of an outside caller or of a service binding.
pub(crate) async fn answer(request: HttpRequest, env: Env) -> worker::Result<Response> {
    match front(env).await {
        Ok(front) if request.uri().path() == wire::PATH => front.answer_node(request).await,
        Ok(front) => {
            let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
            response(front.site.answer(request).await).await
        }
        // It is alive all the same.
        Err(_) if request.uri().path() == LIVE_PATH => Ok(ResponseBuilder::new()
            .with_header(header::CONTENT_TYPE.as_str(), "application/json")?
            .fixed(br#"{"status":"alive"}"#.to_vec())),
        Err(sentence) => not_set_up(&sentence),
    }
}

/// Answers a request whose answer this isolate holds; `None` for every other one, and for the first of an isolate.
pub(crate) fn answer_now(head: &Head) -> Option<Answer> {
    FRONT.with_borrow(Clone::clone)?.site.answer_now(head)
}

/// Answers a request that was made here.
///
/// # Errors
/// A sentence, where this Worker is set up wrongly.
pub(crate) async fn of_site(request: Request<Body>, env: Env) -> Result<Answer, String> {
    Ok(front(env).await?.site.answer(request).await)
}

/// One buffer with its length, which costs a fifth of a stream. All answers of the site are complete when they come.
pub(crate) async fn response(answer: Answer) -> worker::Result<Response> {
    let (head, body) = answer.into_parts();
    let mut builder = ResponseBuilder::new().with_status(head.status.as_u16());
    for (name, value) in &head.headers {
        if let Ok(value) = value.to_str() {
            builder = builder.with_header(name.as_str(), value)?;
        }
    }
    let body = body.collect().await.map_err(|error| worker::Error::RustError(error.to_string()))?.to_bytes();
    // The Fetch standard forbids a body with these, even an empty one.
    if matches!(head.status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
        return Ok(builder.empty());
    }
    Ok(builder.fixed(body.to_vec()))
}

/// A Worker that is set up wrongly says what is missing, in the log and to whoever asks: it has nothing else to say.
pub(crate) fn not_set_up(sentence: &str) -> worker::Result<Response> {
    tracing::error!("{sentence}");
    let body = serde_json::json!({
        "type": "urn:keyreeve:problem:config-invalid",
        "title": "set up wrongly",
        "status": 503,
        "detail": sentence,
    });
    let builder = ResponseBuilder::new().with_status(StatusCode::SERVICE_UNAVAILABLE.as_u16());
    let builder = builder.with_header(header::CONTENT_TYPE.as_str(), "application/problem+json")?;
    Ok(builder.with_header(header::CACHE_CONTROL.as_str(), "no-store")?.fixed(body.to_string().into_bytes()))
}

async fn front(env: Env) -> Result<Rc<Front>, String> {
    if let Some(front) = FRONT.with_borrow(Clone::clone) {
        return Ok(front);
    }
    let made = Rc::new(Front::new(Ground::new(env).await?)?);
    // Two first requests may both make one: the second is dropped, and has done nothing yet.
    Ok(FRONT.with_borrow_mut(|front| Rc::clone(front.get_or_insert(made))))
}

impl Front {
    /// Answers a native node. The signature is what authorizes it.
    async fn answer_node(&self, request: HttpRequest) -> worker::Result<Response> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, wire::REQUEST_BYTES_MAX).collect().await else {
            return Ok(ResponseBuilder::new().with_status(StatusCode::PAYLOAD_TOO_LARGE.as_u16()).fixed(Vec::new()));
        };
        let request = Request::from_parts(head, body.to_bytes());
        let (register, keys) = match &self.register {
            Some(register) => (Arc::clone(register), self.signing_keys.as_slice()),
            None => (Arc::new(Memory::new()) as Arc<dyn Register>, [].as_slice()),
        };
        let now = self.host.now().wall;
        response(wire::serve(register.as_ref(), keys, now, request).await.map(Body::from)).await
    }

    fn new(ground: Ground) -> Result<Self, String> {
        let objects = ground.objects().map(|binding| {
            Arc::new(Objects {
                env: ground.env.clone(),
                binding: binding.to_owned(),
                host: Arc::clone(&ground.host),
                crypto: Arc::clone(&ground.crypto),
                config: Arc::clone(&ground.config),
            })
        });
        let origin = match (&objects, &ground.keys) {
            (Some(objects), Some(keys)) => Arc::new(Tiers {
                caches: caches(&ground)?,
                origin: Arc::clone(objects) as Arc<dyn Origin>,
                host: Arc::clone(&ground.host),
                crypto: Arc::clone(&ground.crypto),
                keys: ArcSwap::from_pointee(keys.clone()),
            }) as Arc<dyn Origin>,
            _ => Arc::new(Nowhere),
        };
        let parts = Parts {
            node: NodeId::parse("isolate").map_err(|error| error.to_string())?,
            host: Arc::clone(&ground.host),
            register: None,
            crypto: Arc::clone(&ground.crypto),
            keys: ground.keys.clone(),
            store_ms: ground.config.store_ms,
            drive: Drive::Follow(origin),
            tick_ms: 0,
        };
        let outbound = Outbound::start(parts, ground.followed()?, None);
        let register: Option<Arc<dyn Register>> = match (&ground.config.store, &objects) {
            (StoreUrl::Bucket(binding), Some(_)) => Some(Arc::new(R2::new(&ground.env, binding)?)),
            (_, Some(objects)) => Some(Arc::new(Registers(Arc::clone(objects)))),
            (_, None) => None,
        };
        let (signing_keys, host) = (ground.signing_keys()?, Arc::clone(&ground.host));
        Ok(Self {
            register,
            signing_keys,
            host,
            site: site(&ground, outbound, objects.map(|objects| objects as Arc<dyn Forward>), ground.inbound()?),
        })
    }
}

/// The routes of the API over a driver.
pub(crate) fn site(
    ground: &Ground,
    outbound: Outbound,
    forward: Option<Arc<dyn Forward>>,
    inbound: Arc<Inbound>,
) -> Site {
    let live = Live {
        outbound,
        callers: ground.config.callers.clone(),
        limits: ground.config.limits,
        waits: ground.waits(),
        forward,
        inbound,
        issuing: None,
        artifacts: Default::default(),
        tokens: None,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let parts = ApiParts { host: Arc::clone(&ground.host), metrics: None, has_streams: false, version };
    let api = Api::new(live, parts);
    Site::new(api, &BTreeSet::from([Surface::Api, Surface::Gate]))
}

fn caches(ground: &Ground) -> Result<Vec<Arc<dyn keyreeve::port::Shared>>, String> {
    ground.config.caches.iter().map(|tier| engine::shared(&ground.env, tier)).collect()
}

/// Wakes the objects of the credentials that are kept without demand: for the first time after a deployment, and whenever an
/// alarm was lost.
pub(crate) async fn wake(env: Env) -> Result<(), String> {
    let ground = Ground::new(env).await?;
    let Some(binding) = ground.objects() else { return Ok(()) };
    let objects = Objects {
        env: ground.env.clone(),
        binding: binding.to_owned(),
        host: Arc::clone(&ground.host),
        crypto: Arc::clone(&ground.crypto),
        config: Arc::clone(&ground.config),
    };
    let kept = ground.config.credentials.iter().filter(|(_, one)| matches!(one.keep, Keep::Always));
    let mut problems = Vec::new();
    for (name, _) in kept {
        let request = Request::get(format!("{OBJECT}/wake")).header(CREDENTIAL, name.as_str());
        let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
        let key = objects.key(name);
        if let Err(error) = objects.send(key.as_str(), request).await {
            problems.push(format!("`{name}`: {error}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Where nothing is minted.
struct Nowhere;

#[async_trait::async_trait]
impl Origin for Nowhere {
    async fn record(
        &self,
        name: &CredentialName,
        _: Wish,
        _: keyreeve::core::time::Mono,
    ) -> Result<keyreeve::core::record::Record, Error> {
        Err(Error::new(ErrorKind::ConfigInvalid, format!("`{name}` needs a Durable Object and `seal.keys`")))
    }
}
