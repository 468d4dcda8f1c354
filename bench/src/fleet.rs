//! keyreeve's driver over the memory register, with a source that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::future::BoxFuture;
use keyreeve::config::{Keep, Plan};
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::FaultClass;
use keyreeve::core::rules::{Mode, OnDoubt, Rules};
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::time::{Moment, Mono, Timestamp};
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::outbound::{Credential, Outbound, Parts};
use keyreeve::port::{Host, Register};
use keyreeve::source::{Material, MintError, Minting, Nature, Source};

/// The operating system's clocks and tokio's tasks.
pub struct OsHost(Instant);

#[async_trait]
impl Host for OsHost {
    fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        Moment::new(Timestamp(wall), Mono(self.0.elapsed().as_millis() as u64))
    }
    async fn sleep_until(&self, until: Mono) {
        tokio::time::sleep_until((self.0 + Duration::from_millis(until.0)).into()).await;
    }
    fn fill(&self, bytes: &mut [u8]) {
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), bytes).unwrap();
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// What the upstream of a bench does: it takes `delay`, then answers or fails.
pub struct Upstream {
    pub calls: AtomicU64,
    pub delay: Duration,
    pub is_failing: bool,
}

#[async_trait]
impl Source for Upstream {
    fn kind(&self) -> &'static str {
        "bench"
    }
    fn nature(&self) -> Nature {
        Nature::Opaque
    }
    async fn mint(&self, order: &Order, _: &str) -> Result<Minting, MintError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if self.is_failing {
            return Err(MintError::nothing_minted(FaultClass::Transient, "the upstream answered 500"));
        }
        Ok(Minting { material: Material::bearer(token(call)), issued_at: None, expires_at: order.expires_at })
    }
}

/// A token of the size of an APNs provider token.
pub fn token(number: u64) -> String {
    format!("eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.{number:0>60}.{}", "s".repeat(86))
}

pub fn rules() -> Rules {
    let minute = 60_000;
    Rules {
        mode: Mode::Lease,
        on_doubt: OnDoubt::Wait,
        lease_ms: 20_000,
        takeover_ms: 25_000,
        send_ms: 5000,
        answer_ms: 10_000,
        min_interval_ms: minute,
        skew_ms: 2000,
        is_clock_trusted: false,
        life_ms: 60 * minute,
        lead_ms: 10 * minute,
        backdate_ms: 0,
        handover_ms: 0,
        wake_spread_ms: 2 * minute,
        refresh_jitter_ms: minute,
        hold_ms: 1000,
        hold_ms_max: 60_000,
        hard_hold_ms: 30_000,
        hard_hold_ms_max: 900_000,
        poll_ms: 1000,
        stale_ms: 0,
        first_mint_waits: false,
        quiet: Vec::new(),
        history_max: 16,
    }
}

/// A driver over a memory register, with `count` credentials named `credential-0` and so on.
pub fn outbound(count: usize, upstream: &Arc<Upstream>) -> Outbound {
    outbound_over(Arc::new(Memory::new()), count, upstream)
}

/// The same over another register.
pub fn outbound_over(register: Arc<dyn Register>, count: usize, upstream: &Arc<Upstream>) -> Outbound {
    outbound_of(register, count, &(Arc::clone(upstream) as Arc<dyn Source>), rules())
}

/// The same with another source and other rules.
pub fn outbound_of(register: Arc<dyn Register>, count: usize, source: &Arc<dyn Source>, rules: Rules) -> Outbound {
    let crypto = Arc::new(LocalCrypto);
    let keys = KeyRing::new(SealKey::new(crypto.as_ref(), [7; 32]), Vec::new());
    let plan = Arc::new(Plan::Fleet(rules));
    let parts = Parts {
        node: NodeId::parse("bench").unwrap(),
        host: Arc::new(OsHost(Instant::now())),
        register: Some(register),
        crypto,
        keys: Some(keys),
        store_ms: 2000,
        drive: keyreeve::outbound::Drive::Timer,
        tick_ms: 20,
    };
    let credentials = (0..count)
        .map(|n| Credential {
            name: CredentialName::parse(&format!("credential-{n}")).unwrap(),
            source: Arc::clone(source),
            plan: Arc::clone(&plan),
            keep: Keep::OnDemand { lifetimes: 3 },
        })
        .collect();
    Outbound::start(parts, credentials, None)
}

/// A moment `ms` from now on the driver's monotonic clock is not known here; far away is enough.
pub const FAR: Mono = Mono(1 << 40);
