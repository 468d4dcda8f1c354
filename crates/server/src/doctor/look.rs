//! What doctor looks at: secrets, sources, store, records, clocks, and the sums of the timing rules.

use std::sync::Arc;

use keyreeve::clock::shown;
use keyreeve::config::{Config, CredentialConfig, Keep, OnStale, Plan, StoreUrl};
use keyreeve::core::clock::Correction;
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::operator::Status;
use keyreeve::core::record::Record;
use keyreeve::core::revocation::Log;
use keyreeve::core::rules::{Mode, Rules};
use keyreeve::core::schedule::Slots;
use keyreeve::core::seal::{KeyRing, SealContext, key_of};
use keyreeve::core::time::Span;
use keyreeve::crypto::LocalCrypto;
use keyreeve::outbound::{Credential, Outbound, Parts};
use keyreeve::port::{Capabilities, Key};
use keyreeve::source::{self, Source};

use super::{Findings, tokens};
use crate::cli::DoctorArgs;
use crate::load::{self, Ground, Store};
use crate::timekeeping::{self, Measured};

/// Looks at everything behind a valid configuration.
pub(super) async fn at(config: &Config, ground: &Ground, args: &DoctorArgs, findings: &mut Findings) {
    system_clock(config, ground, findings).await;
    let keys = seal_keys(config, ground, findings);
    let sources = sources(config, ground, findings);
    for (name, settings) in &config.credentials {
        timing(name, settings, findings);
    }
    if !config.needs_store() {
        findings.ok("store", "not needed: every credential is in slot mode");
        return;
    }
    match load::open_store(config, ground).await {
        Ok(store) => {
            if let Err(cause) = answers(&store).await {
                findings.fail("store", cause, "see that the server runs and `store.url` names it");
                return;
            }
            capabilities(config, &store, findings);
            revocations(config, &store, findings).await;
            tokens::at(config, ground, &store, args, findings).await;
            if let Some(keys) = keys {
                records(config, ground, store, keys, sources, findings).await;
            }
        }
        Err(failure) => {
            findings.fail("store", failure.message, "see that `store.url` is right, and what it points to readable")
        }
    }
}

/// What a node does without news, and what is revoked.
async fn revocations(config: &Config, store: &Store, findings: &mut Findings) {
    const SUBJECT: &str = "revocation";
    let Some(settings) = &config.revocation else { return };
    let max = Span(settings.max_staleness_ms);
    let then = match settings.on_stale {
        OnStale::Deny => "refuses every token (503)",
        OnStale::Allow => "accepts tokens all the same, revoked ones too",
    };
    findings
        .ok(SUBJECT, format!("on_stale = \"{}\": without news for {max} a node {then}", settings.on_stale.as_str()));
    let Some(key) = Key::new(keyreeve::revocation::LOG_KEY) else { return };
    let found = match store.register.read(&key).await {
        Ok(Some(entry)) => Log::decode(&entry.bytes).map(Some).map_err(|error| error.to_string()),
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Err(cause) => findings.fail(SUBJECT, cause, "no node can tell what is revoked"),
        Ok(Some(log)) if log.lost_since().is_some() => findings.fail(
            SUBJECT,
            "the store has forgotten revocations that no node remembers",
            "revoke again what may be concerned, then `keyreeve revoke --answer-loss`",
        ),
        Ok(log) => {
            let (count, epoch) = log.map_or((0, 0), |log| (log.entries().len(), log.epoch));
            findings.ok(SUBJECT, format!("{count} in force, epoch {epoch}"));
        }
    }
}

/// Measures the system clock as a node does at its start, so that what follows is judged by the right time.
async fn system_clock(config: &Config, ground: &Ground, findings: &mut Findings) {
    const SET_IT: &str = "set this machine's clock right (NTP)";
    let Some(url) = &config.clock_url else {
        findings.ok("clock", "not measured, the system clock is trusted: there is no `clock.url`");
        return;
    };
    let whose = shown(url);
    match timekeeping::correct(ground, url).await {
        Ok(Measured { behind_ms, correction }) => {
            let offset = timekeeping::in_words(behind_ms);
            match correction {
                Correction::Keep => findings.ok("clock", format!("system clock agrees with {whose}")),
                Correction::Set(_) => {
                    findings.warn("clock", format!("system clock is {offset} {whose}; corrected"), SET_IT)
                }
                Correction::Refuse => {
                    let said = format!("system clock is {offset} {whose}; too far to be corrected");
                    findings.fail("clock", said, "set the clock right, or ask somebody else by `clock.url`");
                }
            }
        }
        Err(cause) => {
            let said = format!("not measured by {whose}, the system clock is trusted: {cause}");
            findings.warn("clock", said, "nodes start all the same, and try again every minute");
        }
    }
}

fn seal_keys(config: &Config, ground: &Ground, findings: &mut Findings) -> Option<KeyRing> {
    match keyreeve::seal::seal_keys(&config.seal_keys, ground.secrets.as_ref()) {
        Ok(keys) => {
            if let Some(keys) = &keys {
                let others = keys.ids().skip(1).map(|id| format!("`{id}`")).collect::<Vec<_>>();
                let others =
                    if others.is_empty() { String::new() } else { format!(", also opened: {}", others.join(", ")) };
                findings.ok("seal.keys", format!("sealed with `{}`{others}", keys.sealing_key()));
            }
            keys
        }
        Err(problems) => {
            for problem in problems {
                findings.fail("seal.keys", problem, "without its seal keys a node opens nothing that is stored");
            }
            None
        }
    }
}

fn sources(config: &Config, ground: &Ground, findings: &mut Findings) -> Vec<(CredentialName, Arc<dyn Source>)> {
    let mut sources = Vec::new();
    for (name, settings) in &config.credentials {
        match source::build(settings, name, ground.secrets.as_ref(), &ground.tools) {
            Ok(source) => {
                findings.ok(name.as_str(), format!("source `{}` has its keys and secrets", source.kind()));
                sources.push((name.clone(), source));
            }
            Err(cause) => {
                findings.fail(name.as_str(), cause, "see that the reference is right and readable by this user")
            }
        }
    }
    sources
}

/// The sums that the protocol rests on, with their numbers.
fn timing(name: &CredentialName, settings: &CredentialConfig, findings: &mut Findings) {
    match &settings.plan {
        Plan::Fleet(rules) => fleet_timing(name.as_str(), rules, findings),
        Plan::Slot(slots) => slot_timing(name.as_str(), slots, findings),
    }
}

fn fleet_timing(name: &str, rules: &Rules, findings: &mut Findings) {
    let sum = format!(
        "{} mode: lease {} >= send {} + timeout {}; takeover {} >= lease x 1.2; renewed at age {}, min_interval {}",
        rules.mode.as_str(),
        Span(rules.lease_ms),
        Span(rules.send_ms),
        Span(rules.answer_ms),
        Span(rules.takeover_ms),
        Span(rules.life_ms.saturating_sub(rules.lead_ms)),
        Span(rules.min_interval_ms),
    );
    findings.ok(name, sum);
    let faults = rules.faults_absorbed();
    let said = format!(
        "F = {faults}: lead {} - skew {} absorbs {faults} crashes or lost answers in a row, {} each",
        Span(rules.lead_ms),
        Span(rules.skew_ms),
        Span(rules.fault_ms()),
    );
    match faults {
        0 => findings.fail(name, said, "lengthen `lead`"),
        // One is all that an exclusive credential of an opaque upstream can have.
        1 if rules.mode != Mode::Exclusive => findings.warn(name, said, "a longer `lead` absorbs more"),
        _ => findings.ok(name, said),
    }
}

fn slot_timing(name: &str, slots: &Slots, findings: &mut Findings) {
    let skews = slots.skew_ms.saturating_add(slots.upstream_skew_ms);
    let oldest =
        [slots.backdate_ms, skews, slots.flight_ms].iter().fold(slots.period_ms, |sum, ms| sum.saturating_add(*ms));
    findings.ok(
        name,
        format!(
            "slot mode: backdate {} >= skew + upstream skew {}; slot {} + backdate + skews + flight {} = {} <= max {}",
            Span(slots.backdate_ms),
            Span(skews),
            Span(slots.period_ms),
            Span(slots.flight_ms),
            Span(oldest),
            Span(slots.life_ms),
        ),
    );
    for broken in slots.check() {
        findings.fail(name, broken.sum, &broken.hint);
    }
}

/// Whether a database server answers: a node starts without it.
async fn answers(store: &Store) -> Result<(), String> {
    let (StoreUrl::Postgres(url), Some(any)) = (&store.url, Key::new("cr/doctor")) else { return Ok(()) };
    store.register.read(&any).await.map(drop).map_err(|error| format!("`{url}`: {error}"))
}

/// Whether the store keeps the promises that each mode needs.
fn capabilities(config: &Config, store: &Store, findings: &mut Findings) {
    let Capabilities { is_swap_atomic, is_durable, forgets_on_failover, is_shared } = store.register.capabilities();
    let place = match &store.url {
        StoreUrl::Sqlite(path) => {
            format!("`{}` opens, in write-ahead mode and with a schema that this version knows", path.display())
        }
        StoreUrl::Memory => "the memory of this process".to_owned(),
        StoreUrl::Postgres(url) => {
            format!("`{url}` answers, may be written to, and has a schema that this version knows")
        }
        // Whether it answers, and takes the key and the clock of this machine, shows when its records are read.
        other => format!("the register behind `{other}` is asked for each record"),
    };
    findings.ok("store", place);
    if matches!(store.url, StoreUrl::Postgres(_)) && !is_durable {
        let said = "it has `fsync = off`: a crash of its machine may forget what was acknowledged";
        findings.fail("store", said, "set `fsync = on` on the server");
    }
    if matches!(store.url, StoreUrl::Postgres(_)) && forgets_on_failover {
        let said = "it has standbys that it does not wait for: a failover may forget what was acknowledged";
        findings.warn(
            "store",
            said,
            "set `synchronous_standby_names` on the server; do not use `exclusive` mode without it",
        );
    }
    if !is_shared {
        let hint = "`store.url = \"sqlite:PATH\"` is shared by all processes of a machine";
        findings.warn("store", "other processes do not see it: each node mints for itself", hint);
    }
    let is_exclusive = |plan: &Plan| matches!(plan, Plan::Fleet(rules) if rules.mode == Mode::Exclusive);
    for (name, _) in config.credentials.iter().filter(|(_, settings)| is_exclusive(&settings.plan)) {
        if is_swap_atomic && is_durable && !forgets_on_failover && is_shared {
            findings.ok(name.as_str(), "the store keeps what exclusive mode needs: atomic, durable, shared");
        } else {
            let said = "exclusive mode needs a store that is atomic, durable and shared, and this one is not";
            findings.fail(
                name.as_str(),
                said,
                "use `sqlite:PATH`, `postgres://..` that waits for its standbys, or `https://HOST`; or another mode",
            );
        }
    }
}

/// Reads each record as a node would, and renews nothing.
async fn records(
    config: &Config,
    ground: &Ground,
    store: Store,
    keys: KeyRing,
    sources: Vec<(CredentialName, Arc<dyn Source>)>,
    findings: &mut Findings,
) {
    let Ok(node) = NodeId::parse("doctor") else { return };
    let ring = keys.clone();
    let of = |name: &CredentialName| config.credentials.get(name).map(|settings| Arc::new(settings.plan.clone()));
    let credentials = sources.into_iter().filter_map(|(name, source)| {
        // Nobody asks for anything here, so nothing is renewed.
        Some(Credential { plan: of(&name)?, name, source, keep: Keep::OnDemand { lifetimes: 1 } })
    });
    let parts = Parts {
        node,
        host: Arc::clone(&ground.host),
        register: Some(store.register),
        crypto: Arc::new(LocalCrypto),
        keys: Some(keys),
        drive: keyreeve::outbound::Drive::Timer,
        tick_ms: 0,
        store_ms: ground.host_ms(config.store_ms),
    };
    let outbound = Outbound::start(parts, credentials.collect(), None);
    for (name, settings) in &config.credentials {
        let Plan::Fleet(rules) = &settings.plan else { continue };
        if outbound.state(name.as_str()).is_none() {
            continue;
        }
        match outbound.record(name.as_str()).await {
            Ok(Some(record)) => {
                let now = ground.host.now();
                clock(name.as_str(), rules, &record, now.latest(), findings);
                standing(name.as_str(), outbound.status_of(name.as_str(), Some(&record)), &record, findings);
                sealed(name, &ring, &record, findings);
            }
            Ok(None) => findings.ok(name.as_str(), "nothing is stored yet"),
            Err(error) => {
                findings.fail(name.as_str(), error.message, "bring back what is missing; nothing was changed")
            }
        }
    }
    outbound.stop();
}

/// Whether this configuration opens what is stored, and with the key that seals.
fn sealed(name: &CredentialName, keys: &KeyRing, record: &Record, findings: &mut Findings) {
    for stored in [&record.current, &record.next].into_iter().flatten() {
        let context = SealContext { name, generation: stored.generation };
        match keys.open(&LocalCrypto, context, &stored.sealed) {
            Err(error) => {
                let hint = format!("bring the key back, or replace what is stored: `keyreeve credential renew {name}`");
                // Its own hint says the same in fewer words.
                let said = error.to_string().lines().next().unwrap_or_default().to_owned();
                findings.fail(name.as_str(), said, &hint);
            }
            Ok(_) if key_of(&stored.sealed) != Some(keys.sealing_key()) => {
                let hint = "a running node with this configuration seals it anew within the hour";
                findings.warn(name.as_str(), "stored under an older seal key: keep that one for now", hint);
            }
            Ok(_) => {}
        }
    }
}

/// A record from the future says that some clock is wrong by more than was vouched for.
fn clock(name: &str, rules: &Rules, record: &Record, now: keyreeve::core::time::Timestamp, findings: &mut Findings) {
    let ahead_ms = record.written_at.since(now);
    if ahead_ms > rules.skew_ms {
        let said = format!(
            "written {} in the future by this machine's clock, more than skew {}",
            Span(ahead_ms),
            Span(rules.skew_ms)
        );
        findings.fail(name, said, "set this machine's clock right (NTP), or that of the node that wrote it");
    } else {
        findings.ok(
            name,
            format!("stored {} ago by this machine's clock", Span(now.since(record.written_at) / 1000 * 1000)),
        );
    }
}

fn standing(name: &str, status: Option<Status>, record: &Record, findings: &mut Findings) {
    let generation = record.generation;
    let failure = record.failure.as_ref().map_or("no reason was recorded", |failure| failure.message.as_str());
    let resolve = format!("`keyreeve credential resolve {name} adopt|discard|reauthorize`");
    match status {
        Some(Status::NeedsReauth) => {
            findings.fail(
                name,
                format!("generation {generation} may have been minted, and an operator has to say"),
                &resolve,
            );
        }
        Some(Status::InDoubt) => {
            findings.warn(
                name,
                format!("generation {generation} may have been minted; it goes on by itself"),
                &resolve,
            );
        }
        Some(Status::BackingOff) => {
            let hint = format!("`keyreeve credential history {name}` has the attempts");
            findings.warn(name, format!("the last mint failed, and the fleet holds back: {failure}"), &hint);
        }
        Some(status) => {
            findings.ok(name, format!("{}, generation {generation}, epoch {}", status.as_str(), record.epoch))
        }
        None => {}
    }
}
