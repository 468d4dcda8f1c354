//! A fleet in a world: nodes that run the shipped driver, readers that use it, and what befalls them.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use keyreeve::config::types::{Keep, Plan as Coordination};
use keyreeve::crypto::LocalCrypto;
use keyreeve::outbound::{Credential, Outbound, Parts, Served};
use keyreeve::port::Host as _;
use keyreeve::source::Fields;
use keyreeve_core::id::{CredentialName, NodeId};
use keyreeve_core::seal::{KeyRing, SealKey};

use crate::faults::{FaultyRegister, Store};
use crate::oracle::{Answer, Oracle};
use crate::plan::{Faults, Plan};
use crate::upstream::{StrictSource, Upstream};
use crate::world::{Node, SimHost, World};

const NAME: &str = "simulated";
const HOUR_MS: u64 = 3_600_000;
/// A jump that a node must ride over ends before it would be believed, in milliseconds.
const SHORT_JUMP_MS: u64 = keyreeve_core::time::Steady::STEP_BELIEVED_MS - 5000;

/// Everything in one simulated run.
pub struct Fleet {
    /// Time, chance, tasks.
    pub world: Arc<World>,
    /// What the seed means.
    pub plan: Plan,
    /// The store.
    pub store: Store,
    /// The issuer.
    pub upstream: Upstream,
    /// What must never happen.
    pub oracle: Oracle,
    is_calm: AtomicBool,
}

/// One life of one node: a handle for everything that it touches.
pub struct Life {
    /// Its fleet.
    pub fleet: Arc<Fleet>,
    /// Its node.
    pub node: Node,
    /// Its number.
    pub number: u64,
    /// Its clocks.
    pub host: Arc<SimHost>,
}

impl Life {
    /// The faults that may happen now.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.fleet.faults()
    }

    /// A place where a node may crash or be paused. Never returns to a life that is over.
    pub async fn step(&self) {
        let world = &self.fleet.world;
        if !world.is_alive(self.node, self.number) {
            return pending().await;
        }
        let faults = self.faults();
        let (crash, pause) =
            world.draw(|chance| (chance.happens(faults.crash_at_step), chance.happens(faults.pause_at_step)));
        if crash {
            self.fleet.crash(self.node);
            return pending().await;
        }
        if pause {
            self.fleet.pause(self.node);
        }
        // Let the pause begin, or others run.
        let mut is_first = true;
        poll_fn(|context| {
            if std::mem::take(&mut is_first) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Fleet {
    /// A fleet whose nodes start within the first seconds, with all its faults arranged.
    #[must_use]
    pub fn new(world: Arc<World>, plan: Plan) -> Arc<Self> {
        let fleet = Arc::new(Self {
            world,
            plan,
            store: Store::default(),
            upstream: Upstream::default(),
            oracle: Oracle::default(),
            is_calm: AtomicBool::new(false),
        });
        for node in 0..fleet.plan.nodes {
            let at_ms = fleet.world.draw(|chance| chance.below(10_000));
            let it = Arc::clone(&fleet);
            fleet.world.at(at_ms, move |_| it.boot(node));
        }
        fleet.arrange();
        fleet
    }

    /// From now on nothing excuses a reader without a credential.
    pub fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    fn is_faulty(&self) -> bool {
        self.world.now() < self.plan.faults_until_ms
    }

    fn faults(&self) -> Faults {
        if self.is_faulty() { self.plan.faults.clone() } else { Faults::default() }
    }

    /// Arranges the faults that come at a time, rather than at a step.
    fn arrange(self: &Arc<Self>) {
        let faults = self.plan.faults.clone();
        for node in 0..self.plan.nodes {
            self.each_hour(faults.crashes_per_hour, 1, move |fleet| {
                if fleet.world.is_up(node) {
                    fleet.crash(node);
                }
            });
            self.each_hour(faults.pauses_per_hour, 1, move |fleet| fleet.pause(node));
            self.each_hour(faults.cuts_per_10h, 10, move |fleet| {
                fleet.store.cut(&fleet.world, node, fleet.for_a_while())
            });
            if faults.jumps_last {
                self.each_hour(faults.jumps_per_hour, 1, move |fleet| fleet.jump(node, HOUR_MS));
            } else if faults.jumps_per_hour > 0 {
                // One that a node can know for what it is: alone, and soon over.
                let at_ms = self.world.draw(|chance| chance.below(self.plan.faults_until_ms));
                let it = Arc::clone(self);
                self.world.at(at_ms, move |_| it.jump(node, SHORT_JUMP_MS));
            }
        }
        self.each_hour(faults.outages_per_10h, 10, |fleet| fleet.store.go_away(&fleet.world, fleet.for_a_while()));
    }

    /// Lets `fault` happen `times` per `hours`, at random, while faults happen.
    fn each_hour(self: &Arc<Self>, times: u64, hours: u64, fault: impl Fn(&Arc<Self>) + Send + Clone + 'static) {
        let until_ms = self.plan.faults_until_ms;
        let expected = times * until_ms / (hours * HOUR_MS) + u64::from(times > 0);
        for _ in 0..self.world.draw(|chance| chance.below(2 * expected + 1)) {
            let at_ms = self.world.draw(|chance| chance.below(until_ms));
            let (it, fault) = (Arc::clone(self), fault.clone());
            self.world.at(at_ms, move |_| fault(&it));
        }
    }

    /// A time from now on: seconds more often than minutes, and never beyond the last fault.
    fn for_a_while(&self) -> u64 {
        let ms = self.world.draw(|chance| {
            let most = 2000 << chance.below(10);
            chance.between(100, most)
        });
        (self.world.now() + ms).min(self.plan.faults_until_ms)
    }

    fn crash(self: &Arc<Self>, node: Node) {
        self.world.crash(node);
        let (it, back_at_ms) = (Arc::clone(self), self.for_a_while());
        self.world.at(back_at_ms, move |_| {
            if !it.world.is_up(node) {
                it.boot(node);
            }
        });
    }

    fn pause(&self, node: Node) {
        self.world.pause(node, self.for_a_while());
    }

    fn jump(self: &Arc<Self>, node: Node, for_ms_max: u64) {
        let (by_ms, for_ms) = self.world.draw(|chance| {
            let by_ms = i64::try_from(chance.between(2000, 2 * HOUR_MS)).unwrap_or(0);
            (if chance.happens(500) { by_ms } else { -by_ms }, chance.between(1000, for_ms_max))
        });
        self.world.jump(node, by_ms);
        let until_ms = (self.world.now() + for_ms).min(self.plan.faults_until_ms);
        self.world.at(until_ms, move |world| world.jump(node, 0));
    }

    fn boot(self: &Arc<Self>, node: Node) {
        let offset_ms = self.plan.offsets_ms.get(node).copied().unwrap_or(0);
        let is_off = self.is_faulty() && self.plan.faults.jumps_last && self.plan.faults.jumps_per_hour > 0;
        let jump_ms = if is_off && self.world.draw(|chance| chance.happens(200)) { 3_600_000 } else { 0 };
        let number = self.world.boot(node, offset_ms, jump_ms);
        if jump_ms != 0 {
            self.world.at(self.for_a_while(), move |world| world.jump(node, 0));
        }
        let host = Arc::new(SimHost::new(Arc::clone(&self.world), node, number));
        let life = Arc::new(Life { fleet: Arc::clone(self), node, number, host });
        let (Ok(id), Ok(name)) = (NodeId::parse(&format!("n{node}")), CredentialName::parse(NAME)) else { return };
        let parts = Parts {
            node: id,
            host: Arc::clone(&life.host) as _,
            register: Some(Arc::new(FaultyRegister { life: Arc::clone(&life) })),
            crypto: Arc::new(LocalCrypto),
            keys: Some(KeyRing::new(SealKey::new(&LocalCrypto, [7; 32]), Vec::new())),
            store_ms: self.plan.store_ms,
            drive: keyreeve::outbound::Drive::Timer,
            tick_ms: 0,
        };
        let credential = Credential {
            name,
            source: Arc::new(StrictSource { life: Arc::clone(&life) }),
            plan: Arc::new(Coordination::Fleet(self.plan.rules.clone())),
            keep: if self.plan.is_kept { Keep::Always } else { Keep::OnDemand { lifetimes: 1 } },
        };
        let outbound = Outbound::start(parts, vec![credential], None);
        let reader = Reader { life, outbound, served: AtomicU64::new(0) };
        let host = Arc::clone(&reader.life.host);
        host.spawn(Box::pin(reader.run()));
    }
}

/// Somebody who uses the credential on one node.
struct Reader {
    life: Arc<Life>,
    outbound: Outbound,
    served: AtomicU64,
}

impl Reader {
    async fn run(self) {
        let (host, fleet) = (&self.life.host, &self.life.fleet);
        loop {
            let meddling = self.life.faults().meddling;
            let (in_ms, waits_ms, meddles) = fleet.world.draw(|chance| {
                let in_ms = chance.between(1, fleet.plan.read_every_ms);
                (in_ms, chance.between(100, 30_000), chance.happens(meddling))
            });
            host.sleep_until(host.now().mono.plus(in_ms)).await;
            if meddles {
                self.meddle().await;
            }
            if let Some(served) = self.outbound.get(NAME) {
                self.judge(&served);
                continue;
            }
            let is_calm = fleet.is_calm.load(Ordering::Relaxed);
            let deadline = host.now().mono.plus(waits_ms);
            match self.outbound.token(NAME, 0, deadline).await {
                Ok(served) => self.judge(&served),
                Err(error) if is_calm => {
                    let text = format!("a reader is left without a credential: {}: {error}", error.kind.as_str());
                    fleet.world.violated(self.life.node, text);
                }
                Err(error) => fleet.world.note("without", self.life.node, [0, 0], || error.to_string()),
            }
        }
    }

    async fn meddle(&self) {
        let world = &self.life.fleet.world;
        let generation = self.served.load(Ordering::Relaxed);
        if world.draw(|chance| chance.happens(700)) {
            let reported = self.outbound.report(NAME, generation).await;
            world.note("report", self.life.node, [generation, 0], || format!("of {generation}: {reported:?}"));
        } else {
            let renewed = self.outbound.renew(NAME).await;
            world.note("renew", self.life.node, [generation, 0], || format!("{renewed:?}"));
        }
    }

    fn judge(&self, served: &Served) {
        let (life, fleet) = (&self.life, &self.life.fleet);
        let Fields::Token(token) = &served.material.secret else {
            fleet.world.violated(life.node, "what was handed out is no token");
            return;
        };
        let believed = life.host.error_ms(life.host.now().latest());
        let before = self.served.fetch_max(served.generation, Ordering::Relaxed);
        let answer = Answer {
            generation: served.generation,
            token: token.expose().clone(),
            is_stale: served.is_stale,
            behind_ms: believed.min(0).unsigned_abs(),
            before,
        };
        fleet.world.note("serve", life.node, [served.generation, served.left_ms], || {
            format!("generation {}, {} ms left", served.generation, served.left_ms)
        });
        fleet.oracle.answered(&fleet.world, &fleet.plan, life.node, &answer);
    }
}
