//! A strict issuer, and the way to it: it refuses what its rules forbid, and says so to the oracle.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::channel::oneshot;
use keyreeve::port::Host as _;
use keyreeve::source::{Material, MintError, Minting, Nature, Source};
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::time::Timestamp;

use crate::fleet::Life;
use crate::oracle::Mint;
use crate::plan::{Issuer, RETRY_AFTER_MS, Sabotage};
use crate::world::EPOCH_MS;

/// What the issuer remembers.
#[derive(Default)]
pub struct Upstream {
    by_key: Mutex<BTreeMap<String, Mint>>,
}

impl Upstream {
    /// A request arrives.
    fn arrive(&self, life: &Life, order: &Order, key: &str) -> Result<Mint, MintError> {
        let (world, plan, oracle) = (&life.fleet.world, &life.fleet.plan, &life.fleet.oracle);
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by_key.get(key).filter(|_| matches!(plan.issuer, Issuer::Idempotent | Issuer::Signer)).cloned();
        oracle.asked(world, plan, life.node, order.generation, known.is_some());
        if let Some(known) = known {
            world.note("replay", life.node, [order.generation, 0], || format!("of generation {}", order.generation));
            return Ok(known);
        }
        let now_ms = world.now();
        let is_spaced = matches!(plan.issuer, Issuer::Exclusive | Issuer::Idempotent);
        let last = oracle.last_mint().filter(|_| is_spaced);
        if last.is_some_and(|last| now_ms - last.at_ms < plan.upstream_interval_ms) {
            return Err(MintError::nothing_minted(FaultClass::Throttled, "429 too many updates"));
        }
        let its_clock = Timestamp((EPOCH_MS + now_ms).saturating_add_signed(plan.upstream_offset_ms));
        let (token, expires_at) = match plan.issuer {
            Issuer::Signer => (format!("{}.{}.{key}", order.issued_at.0, order.expires_at.0), order.expires_at),
            _ => (format!("token-{}", oracle.mints() + 1), its_clock.plus(plan.upstream_life_ms)),
        };
        let mint = Mint { token, generation: order.generation, at_ms: now_ms, expires_at };
        by_key.insert(key.to_owned(), mint.clone());
        world.note("mint", life.node, [order.generation, order.epoch], || {
            format!("generation {} in epoch {}", order.generation, order.epoch)
        });
        oracle.minted(mint.clone());
        Ok(mint)
    }
}

/// The source as one life of a node reaches it.
pub struct StrictSource {
    /// Whose it is.
    pub life: Arc<Life>,
}

/// What happens to one request.
struct Way {
    /// Before the request leaves: connecting, or a busy machine.
    before_ms: u64,
    there_ms: u64,
    answer: Fate,
}

enum Fate {
    RequestLost,
    Fails,
    FailsPerhaps,
    Throttled(u64),
    AnswerLost,
    Back(u64),
}

impl StrictSource {
    fn way(&self) -> Way {
        let (faults, answer_ms) = (self.life.faults(), self.life.fleet.plan.rules.answer_ms);
        self.life.fleet.world.draw(|chance| {
            let is_slow = chance.happens(faults.mint_slow);
            // A request lives no longer than the caller lets it: what has not arrived by then is cut off.
            let (before_ms, there_ms) =
                if is_slow { (chance.below(8000), chance.between(1, answer_ms)) } else { (0, 20) };
            let answer = if chance.happens(faults.mint_request_lost) {
                Fate::RequestLost
            } else if chance.happens(faults.mint_fails) {
                if chance.happens(700) { Fate::Fails } else { Fate::FailsPerhaps }
            } else if chance.happens(faults.mint_throttled) {
                Fate::Throttled(chance.below(RETRY_AFTER_MS))
            } else if chance.happens(faults.mint_answer_lost) {
                Fate::AnswerLost
            } else {
                Fate::Back(if is_slow { chance.between(1, 2 * answer_ms) } else { chance.between(20, 400) })
            };
            Way { before_ms, there_ms, answer }
        })
    }
}

#[async_trait]
impl Source for StrictSource {
    fn kind(&self) -> &'static str {
        "strict"
    }

    fn nature(&self) -> Nature {
        match self.life.fleet.plan.issuer {
            Issuer::Signer => Nature::Deterministic,
            Issuer::Idempotent => Nature::Idempotent,
            Issuer::Exclusive | Issuer::Opaque => Nature::Opaque,
        }
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let life = &self.life;
        let (world, sabotage) = (&life.fleet.world, life.fleet.plan.sabotage);
        if sabotage == Some(Sabotage::NobodyIsAsked) {
            return Err(MintError::nothing_minted(FaultClass::Transient, "nobody was asked"));
        }
        let way = self.way();
        life.step().await;
        if way.before_ms > 0 {
            life.host.sleep_until(life.host.now().mono.plus(way.before_ms)).await;
        }
        if life.host.now().mono > order.send_by && sabotage != Some(Sabotage::SourceSendsLate) {
            return Err(MintError::nothing_minted(FaultClass::Transient, "too late to send"));
        }
        let (tell, answer) = oneshot::channel();
        world.note("send", life.node, [order.generation, 0], || format!("generation {}", order.generation));
        let (at, order_sent, key) = (Arc::clone(life), order.clone(), idempotency_key.to_owned());
        world.after(way.there_ms, move |world| {
            let refused = |class, text: &str| MintError::nothing_minted(class, text);
            let (result, back_ms) = match way.answer {
                Fate::RequestLost => return,
                Fate::Fails => (Err(refused(FaultClass::Transient, "500 try again")), 20),
                Fate::FailsPerhaps => (Err(MintError::in_doubt(FaultClass::Transient, "502 bad gateway")), 20),
                Fate::Throttled(ms) => {
                    let error =
                        MintError { retry_after_ms: Some(ms), ..refused(FaultClass::Throttled, "429 slow down") };
                    (Err(error), 20)
                }
                Fate::AnswerLost => {
                    let _lost = at.fleet.upstream.arrive(&at, &order_sent, &key);
                    return;
                }
                Fate::Back(back_ms) => (at.fleet.upstream.arrive(&at, &order_sent, &key), back_ms),
            };
            world.after(back_ms, move |_| drop(tell.send(result)));
        });
        life.step().await;
        let Ok(result) = answer.await else { return pending().await };
        life.step().await;
        let mint = result?;
        let is_signed = life.fleet.plan.issuer == Issuer::Signer;
        let its_clock = Timestamp((EPOCH_MS + mint.at_ms).saturating_add_signed(life.fleet.plan.upstream_offset_ms));
        // What it says about the life of its tokens; `TokensDieEarly` makes that a lie.
        let says = if is_signed { mint.expires_at } else { its_clock.plus(life.fleet.plan.rules.life_ms) };
        Ok(Minting {
            material: Material::bearer(mint.token),
            issued_at: (!is_signed).then_some(its_clock),
            expires_at: says,
        })
    }
}
