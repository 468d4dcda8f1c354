//! The Durable Object of one credential: the one place in the world where it is minted.
//!
//! It is an ordinary node of a fleet that has one: its register is the object's own storage, its timer the object's alarm. An
//! object that is evicted in the middle of a mint is a holder that crashed, and the protocol goes on from there.

use std::cell::{Cell, RefCell};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use futures::future::{Either, select};
use http::{Request, StatusCode, header};
use keyreeve::config::{Keep, Plan, StoreUrl};
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::time::Mono;
use keyreeve::error::Error;
use keyreeve::http::Site;
use keyreeve::inbound::Inbound;
use keyreeve::outbound::{Drive, Origin, Outbound, Parts};
use keyreeve::port::{Host, Register};
use worker::{
    DurableObject, Env, HttpRequest, Response, ResponseBuilder, Result, State, Storage, durable_object, wasm_bindgen,
};

use crate::engine::durable::Durable;
use crate::engine::r2::R2;
use crate::front::{not_set_up, response, site};
use crate::ground::Ground;
use crate::host::{Anchor, within};
use crate::origin::{Asked, CREDENTIAL, Refusal};
use crate::register;

/// Storage: the credential this object is for.
const NAME: &str = "keyreeve:name";
/// Storage: when it was last asked for, in milliseconds since 1970.
const USED: &str = "keyreeve:used_at";
/// Demand is written down at most this often, in milliseconds.
const USED_GRAIN_MS: u64 = 60_000;
/// While a renewal may be under way, an alarm this far ahead takes it up should the object be evicted.
const GUARD_MS: u64 = 20_000;
/// An alarm waits at most this long for the renewal it began, in milliseconds: the runtime gives it 15 minutes.
const ALARM_MS: u64 = 60_000;

/// While a request waits, what has fallen due is looked for at least this often, in milliseconds.
const TURN_MS: u64 = 200;

/// The object.
#[durable_object]
pub struct Keyreeve {
    state: State,
    env: Env,
    running: RefCell<Option<Rc<Running>>>,
    register: RefCell<Option<Arc<Durable>>>,
    /// When the alarm is set for, in milliseconds since 1970; 0 for none that is known.
    alarm_at: Cell<u64>,
}

// What a panic leaves behind in the cells above is whole: each is replaced in one step.
impl UnwindSafe for Keyreeve {}
impl RefUnwindSafe for Keyreeve {}

/// The node in this object.
struct Running {
    name: CredentialName,
    host: Arc<dyn Host>,
    outbound: Outbound,
    site: Site,
    keep: Keep,
    life_ms: u64,
    used_at: Cell<u64>,
}

impl DurableObject for Keyreeve {
    fn new(state: State, env: Env) -> Self {
        crate::log::install();
        Self { state, env, running: RefCell::new(None), register: RefCell::new(None), alarm_at: Cell::new(0) }
    }

    async fn fetch(&self, request: worker::Request) -> Result<Response> {
        within(Anchor::of_object(&self.state), self.answer(request)).await
    }

    async fn alarm(&self) -> Result<Response> {
        self.alarm_at.set(0);
        within(Anchor::of_object(&self.state), async {
            if let Err(sentence) = self.ring().await {
                tracing::error!("{sentence}");
            }
        })
        .await;
        Response::empty()
    }
}

impl Keyreeve {
    async fn answer(&self, request: worker::Request) -> Result<Response> {
        let request = HttpRequest::try_from(request)?;
        #[cfg(feature = "testing")]
        if let Some(answer) = crate::testing::object(&request).await {
            return answer;
        }
        if request.uri().path() == register::PATH {
            return match self.register() {
                Ok(register) => register::answer(register.as_ref(), request).await,
                Err(sentence) => not_set_up(&sentence),
            };
        }
        let name = request.headers().get(CREDENTIAL).and_then(|name| name.to_str().ok());
        let Some(name) = name.and_then(|name| CredentialName::parse(name).ok()) else {
            return not_set_up("a request to a Durable Object names no credential");
        };
        let running = match self.running(&name).await {
            Ok(running) => running,
            Err(sentence) => return not_set_up(&sentence),
        };
        let answer = running
            .turning(async {
                match request.uri().path() {
                    "/record" => self.record(&running, Asked::of(request.uri())).await,
                    "/wake" => Response::empty(),
                    _ => Self::forwarded(&running, request).await,
                }
            })
            .await;
        self.schedule_after(&running);
        answer
    }

    async fn record(&self, running: &Running, asked: Asked) -> Result<Response> {
        self.note_use(running).await;
        self.guard(running).await;
        let deadline = running.host.now().mono.plus(asked.wait_ms);
        match Origin::record(&running.outbound, &running.name, asked.wish, deadline).await {
            Ok(record) => {
                let builder = ResponseBuilder::new().with_header(header::CONTENT_TYPE.as_str(), "application/cbor")?;
                Ok(builder.fixed(record.encode()))
            }
            Err(error) => refusal(&error),
        }
    }

    async fn forwarded(running: &Running, request: HttpRequest) -> Result<Response> {
        // An object that was evicted meanwhile has to say what its storage says.
        if let Err(error) = running.outbound.recall(running.name.as_str()).await {
            tracing::warn!(credential = %running.name, "{error}");
        }
        running.go_on();
        let request: Request<Body> =
            request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        response(running.site.answer(request).await).await
    }

    /// The node, made at the first event of this life of the object.
    async fn running(&self, name: &CredentialName) -> std::result::Result<Rc<Running>, String> {
        if let Some(running) = self.present(name)? {
            return Ok(running);
        }
        let ground = Ground::new(self.env.clone()).await?;
        let used_at = self.stored::<f64>(USED).await.map_or(0, |ms| ms as u64);
        if self.stored::<String>(NAME).await.is_none() {
            self.store(NAME, &name.as_str().to_owned()).await;
        }
        // From here on nothing waits: of two first events, the second finds what the first one made.
        if let Some(running) = self.present(name)? {
            return Ok(running);
        }
        let running = Rc::new(self.start(&ground, name, used_at)?);
        self.running.replace(Some(Rc::clone(&running)));
        Ok(running)
    }

    fn register(&self) -> std::result::Result<Arc<Durable>, String> {
        if let Some(register) = self.register.borrow().as_ref() {
            return Ok(Arc::clone(register));
        }
        let register = Arc::new(Durable::open(&self.state.storage())?);
        self.register.replace(Some(Arc::clone(&register)));
        Ok(register)
    }

    fn present(&self, name: &CredentialName) -> std::result::Result<Option<Rc<Running>>, String> {
        match self.running.borrow().as_ref() {
            Some(running) if running.name == *name => Ok(Some(Rc::clone(running))),
            Some(running) => Err(format!("the Durable Object of `{}` was asked about `{name}`", running.name)),
            None => Ok(None),
        }
    }

    fn start(&self, ground: &Ground, name: &CredentialName, used_at: u64) -> std::result::Result<Running, String> {
        let register: Arc<dyn Register> = match &ground.config.store {
            StoreUrl::Bucket(binding) => Arc::new(R2::new(&ground.env, binding)?),
            _ => self.register()?,
        };
        let credential = ground.credential(name)?;
        let (keep, life_ms) = (
            credential.keep,
            match credential.plan.as_ref() {
                Plan::Fleet(rules) => rules.life_ms,
                Plan::Slot(slots) => slots.life_ms,
            },
        );
        let parts = Parts {
            node: NodeId::parse("durable-object").map_err(|error| error.to_string())?,
            host: Arc::clone(&ground.host),
            register: Some(register),
            crypto: Arc::clone(&ground.crypto),
            keys: ground.keys.clone(),
            store_ms: ground.config.store_ms,
            drive: Drive::Turned,
            tick_ms: 0,
        };
        let outbound = Outbound::start(parts, vec![credential], None);
        // Tokens of others are judged in isolates.
        let site = site(ground, outbound.clone(), None, Inbound::closed());
        let host = Arc::clone(&ground.host);
        Ok(Running { name: name.clone(), host, outbound, site, keep, life_ms, used_at: Cell::new(used_at) })
    }

    /// The alarm: goes on with what is due, and with what an evicted object left.
    async fn ring(&self) -> std::result::Result<(), String> {
        let Some(name) = self.stored::<String>(NAME).await else { return Ok(()) };
        let name = CredentialName::parse(&name).map_err(|error| error.to_string())?;
        let running = self.running(&name).await?;
        running.go_on();
        running.outbound.turn();
        self.guard(&running).await;
        running.outbound.drain(running.host.now().mono.plus(ALARM_MS)).await;
        self.schedule(&running).await;
        Ok(())
    }

    /// Sets the alarm when the passes that this event began have ended.
    fn schedule_after(&self, running: &Rc<Running>) {
        let (storage, running) = (self.state.storage(), Rc::clone(running));
        let anchor = Anchor::of_object(&self.state);
        let work = async move {
            running.outbound.drain(running.host.now().mono.plus(ALARM_MS)).await;
            if let Some(at) = running.next_alarm() {
                set_alarm(&storage, running.host.as_ref(), at).await;
            }
        };
        self.state.wait_until(within(anchor, work));
    }

    async fn schedule(&self, running: &Running) {
        if let Some(at) = running.next_alarm() {
            set_alarm(&self.state.storage(), running.host.as_ref(), at).await;
        }
    }

    /// An alarm soon, for as long as it is not known that nothing is under way.
    async fn guard(&self, running: &Running) {
        let now = running.host.now();
        let is_calm =
            running.outbound.held(running.name.as_str(), now, 0).is_some_and(|held| held.refresh_at > now.wall);
        if is_calm || self.alarm_at.get() > now.wall.0 {
            return;
        }
        self.alarm_at.set(now.wall.plus(GUARD_MS).0);
        set_alarm(&self.state.storage(), running.host.as_ref(), now.mono.plus(GUARD_MS)).await;
    }

    async fn note_use(&self, running: &Running) {
        let now = running.host.now().wall.0;
        if now.saturating_sub(running.used_at.get()) >= USED_GRAIN_MS {
            running.used_at.set(now);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay below 2^53")]
            self.store(USED, &(now as f64)).await;
        }
    }

    async fn stored<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.state.storage().get(key).await.ok().flatten()
    }

    async fn store<T: serde::Serialize>(&self, key: &str, value: &T) {
        if let Err(error) = self.state.storage().put(key, value).await {
            tracing::warn!("`{key}` was not stored: {error}");
        }
    }
}

impl Running {
    /// Waits for `answer`, and meanwhile begins the looks that fall due: what is waited for may be the mint of a native node, or
    /// of an earlier life of this object, and the alarm is set only when the requests have been answered.
    async fn turning<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            let now = self.host.now().mono;
            let next = self.outbound.next_turn().map_or(now.plus(TURN_MS), |next| next.min(now.plus(TURN_MS)));
            match select(answer.as_mut(), self.host.sleep_until(next)).await {
                Either::Left((answer, _)) => return answer,
                Either::Right(_) => self.outbound.turn(),
            }
        }
    }

    /// What an earlier life of this object knew of demand is in its storage: that counts as a use of this one.
    fn go_on(&self) {
        if self.is_wanted() {
            let _ = self.outbound.get(self.name.as_str());
        }
    }

    fn is_wanted(&self) -> bool {
        match self.keep {
            Keep::Always => true,
            Keep::OnDemand { lifetimes } => {
                let idle_ms = self.host.now().wall.0.saturating_sub(self.used_at.get());
                idle_ms <= self.life_ms.saturating_mul(u64::from(lifetimes))
            }
        }
    }

    fn next_alarm(&self) -> Option<Mono> {
        self.outbound.next_turn().filter(|_| self.is_wanted())
    }
}

async fn set_alarm(storage: &Storage, host: &dyn Host, at: Mono) {
    let in_ms = at.since(host.now().mono).max(1);
    if let Err(error) = storage.set_alarm(Duration::from_millis(in_ms)).await {
        tracing::warn!("the alarm was not set: {error}");
    }
}

fn refusal(error: &Error) -> Result<Response> {
    let body =
        serde_json::to_vec(&Refusal::from(error)).map_err(|error| worker::Error::RustError(error.to_string()))?;
    let builder = ResponseBuilder::new().with_status(StatusCode::SERVICE_UNAVAILABLE.as_u16());
    Ok(builder.with_header(header::CONTENT_TYPE.as_str(), "application/json")?.fixed(body))
}
