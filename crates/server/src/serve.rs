//! `keyreeve serve`: a node from start to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use keyreeve::access::Tokens;
use keyreeve::config::{Bind, ClientConfig, ClientProof, Config, Surface};
use keyreeve::core::id::NodeId;
use keyreeve::crypto::LocalCrypto;
use keyreeve::http::{self, Api, ArtifactGates, Live};
use keyreeve::inbound::Fetched;
use keyreeve::inbound::issuer::Issuers;
use keyreeve::outbound::{Outbound, Parts, Previous};
use keyreeve::revocation::Revocations;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::AbortHandle;

use crate::cli::{LogForm, ServeArgs};
use crate::exit::{Code, Failure, say};
use crate::hand_out::{Behind, Door, Files};
use crate::issuing::Signs;
use crate::listen::{Bound, Listening, Tls};
use crate::load::{self, Ground, Loaded, Store};
use crate::logs;
use crate::notify::{self, State};
use crate::signal::{Signals, Told};
use crate::timekeeping::Timekeeping;

/// How often the clock that readers look at is set, in real milliseconds.
const TICK_MS: u64 = 20;
/// How long the end of the process waits for requests and renewals under way.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the end of the process may take for notes that are no loss, in real milliseconds.
const LAST_WRITES_MS: u64 = 2000;
/// How often stored secrets are looked through for older seal keys.
const RESEAL_EVERY: Duration = Duration::from_secs(3600);
/// How soon a failed look is repeated.
const RESEAL_AGAIN: Duration = Duration::from_secs(60);
/// How often histograms are tidied.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What a node is started with.
pub(crate) struct Settings {
    pub(crate) config: PathBuf,
    pub(crate) node: Option<String>,
    /// Instead of the configured listeners.
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) log: LogForm,
}

/// Runs a node until it is told to stop.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let settings = Settings { config: args.config, node: args.node, bind: args.bind, log: args.log };
    let mut signals = signals()?;
    let node = Node::start(settings, "info", None).await?;
    node.announce("");
    node.run(&mut signals).await;
    Ok(())
}

/// Listens for signals; to be called before anything is announced.
pub(crate) fn signals() -> Result<Signals, Failure> {
    Signals::new().map_err(|error| Failure::new(Code::Unavailable, format!("no signals: {error}")))
}

/// A running node.
pub(crate) struct Node {
    settings: Settings,
    name: NodeId,
    ground: Ground,
    api: Arc<Api>,
    outbound: Outbound,
    issuers: Option<Issuers>,
    tokens: Option<Tokens>,
    revocations: Option<Revocations>,
    artifacts: ArtifactGates,
    listeners: Vec<Listening>,
    store: Option<Store>,
    fetched: BTreeMap<String, Fetched>,
    reseal: Option<AbortHandle>,
    files: Files,
    timekeeping: Option<Timekeeping>,
}

impl Node {
    /// Reads the configuration, opens the store, starts renewing and listens. `first` is the socket of the first listener,
    /// where it is bound already; `filter` is what the log shows unless `RUST_LOG` says otherwise.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration; a store that cannot be opened; an address that is taken.
    pub(crate) async fn start(settings: Settings, filter: &str, first: Option<Bound>) -> Result<Self, Failure> {
        logs::start(settings.log, filter);
        let ground = Ground::new()?;
        let name = node_name(settings.node.as_deref())?;
        let config = load::read_and_warn(&settings.config)?;
        let doors = doors_of(&config, settings.bind);
        let tls = tls_of(&doors, &config, &ground)?;
        // Sockets first: an address that is taken should not cost a mint.
        let mut bound: Vec<Bound> = first.into_iter().collect();
        for door in doors.iter().skip(bound.len()) {
            bound.push(bind(door).await?);
        }
        let metrics = metrics_page()?;
        // Before the first mint: a token of a wrong clock is refused upstream.
        let timekeeping = Timekeeping::follow(None, &ground, config.clock_url.as_deref()).await;
        let none = ArtifactGates::new();
        let signs = Signs { node: &name, previous: None, tokens: None, followed: None, artifacts: &none };
        let loaded = load::load(config, &ground, None, BTreeMap::new(), &signs).await?;
        let outbound = start_outbound(&name, &ground, &loaded, None);
        let parts = http::Parts {
            host: Arc::clone(&ground.host),
            metrics: Some(metrics),
            has_streams: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let api = Api::new(live(&outbound, &loaded), parts);
        let connections_max = loaded.config.limits.connections_max;
        let doors = doors.into_iter().zip(bound).zip(tls);
        let listeners = doors
            .map(|((door, bound), tls)| {
                let answerer = Arc::new(ArcSwap::from_pointee(door.site(&api, &ground.streams)));
                Listening::start(door.bind, bound, answerer, tls, connections_max)
            })
            .collect();
        let (store, fetched) = (loaded.store.clone(), loaded.fetched.clone());
        let issuers = loaded.issuing.map(|issuing| issuing.issuers);
        let (tokens, revocations, artifacts) = (loaded.tokens, loaded.revocations, loaded.artifacts);
        let files = Files::keep(&loaded.config, &outbound, &ground.host);
        let mut node = Self {
            settings,
            name,
            ground,
            api,
            outbound,
            issuers,
            tokens,
            revocations,
            artifacts,
            listeners,
            store,
            fetched,
            reseal: None,
            files,
            timekeeping,
        };
        node.start_reseal();
        Ok(node)
    }

    /// The URLs it listens on.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(Listening::name)
    }

    /// Says, to people and to the service manager, that requests are answered from now on; and `more`, in the same breath,
    /// so that whoever waits for the first line finds the rest.
    pub(crate) fn announce(&self, more: &str) {
        let lines: Vec<String> = self.urls().map(|url| format!("listening on {url}")).collect();
        say(format!("{}\n{more}", lines.join("\n")).trim_end());
        tracing::info!(node = self.name.as_str(), "ready");
        notify::tell(State::Ready);
    }

    /// Serves until it is told to stop, then finishes what is under way.
    pub(crate) async fn run(mut self, signals: &mut Signals) {
        while signals.next().await == Told::Reload {
            self.reload().await;
        }
        notify::tell(State::Stopping);
        tracing::info!("stopping: requests and renewals under way are finished first");
        let outbound = self.outbound.clone();
        // A second signal means now.
        tokio::select! {
            () = self.finish() => tracing::info!("stopped"),
            () = signals.until_stop() => tracing::warn!("stopped at once, as told twice"),
        }
        for lost in outbound.unfinished() {
            tracing::error!("{lost}");
        }
    }

    async fn reload(&mut self) {
        notify::tell(State::Reloading);
        match self.try_reload().await {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(failure) => {
                tracing::error!("the new configuration is not used, the old one stays: {}", failure.message);
            }
        }
        notify::tell(State::Ready);
    }

    async fn try_reload(&mut self) -> Result<(), Failure> {
        let config = load::read_and_warn(&self.settings.config)?;
        let wanted = doors_of(&config, self.settings.bind);
        // What may fail comes first, so that a failure leaves everything as it was.
        let tls = tls_of(&wanted, &config, &self.ground)?;
        let mut added = Vec::new();
        for door in &wanted {
            if !self.listeners.iter().any(|listening| *listening.bind() == door.bind) {
                added.push((door.clone(), bind(door).await?));
            }
        }
        let signs = Signs {
            node: &self.name,
            previous: self.issuers.as_ref(),
            tokens: self.tokens.as_ref(),
            followed: self.revocations.as_ref(),
            artifacts: &self.artifacts,
        };
        let loaded = load::load(config, &self.ground, self.store.as_ref(), self.fetched.clone(), &signs).await?;
        let clock_url = loaded.config.clock_url.as_deref();
        self.timekeeping = Timekeeping::follow(self.timekeeping.take(), &self.ground, clock_url).await;
        let outbound = start_outbound(&self.name, &self.ground, &loaded, Some(self.previous(&loaded)));
        self.api.reload(live(&outbound, &loaded));
        self.files = Files::keep(&loaded.config, &outbound, &self.ground.host);
        // Its passes under way finish and publish, however long the store is away; what they bring is found in the register.
        std::mem::replace(&mut self.outbound, outbound).stop();
        let issuers = loaded.issuing.as_ref().map(|issuing| issuing.issuers.clone());
        if let Some(earlier) = std::mem::replace(&mut self.issuers, issuers) {
            earlier.stop();
        }
        if let Some(earlier) = std::mem::replace(&mut self.tokens, loaded.tokens.clone()) {
            earlier.stop();
        }
        // What is known is known to the next one already.
        if let Some(earlier) = std::mem::replace(&mut self.revocations, loaded.revocations.clone()) {
            earlier.stop();
        }
        self.artifacts.clone_from(&loaded.artifacts);
        self.store.clone_from(&loaded.store);
        self.fetched.clone_from(&loaded.fetched);
        self.listen_on(wanted.into_iter().zip(tls).collect(), added, loaded.config.limits.connections_max);
        self.start_reseal();
        Ok(())
    }

    /// What a new driver takes over from, and whether it has the same store.
    fn previous(&self, loaded: &Loaded) -> Previous<'_> {
        let [before, now] = [&self.store, &loaded.store].map(|store| store.as_ref().map(|store| &store.url));
        let is_same_store = before == now;
        if let (false, Some(before), Some(now)) = (is_same_store, before, now) {
            tracing::warn!(
                "the store is `{now}` now and was `{before}`: what is valid is served until the new one has its own"
            );
        }
        Previous { outbound: &self.outbound, is_same_store }
    }

    fn listen_on(&mut self, mut wanted: Vec<(Door, Option<Tls>)>, added: Vec<(Door, Bound)>, connections_max: usize) {
        let known = std::mem::take(&mut self.listeners);
        for listening in known {
            match wanted.iter_mut().find(|(door, _)| door.bind == *listening.bind()) {
                Some((door, tls)) => {
                    listening.answer_by(door.site(&self.api, &self.ground.streams));
                    listening.speak(tls.take());
                    self.listeners.push(listening);
                }
                None => {
                    tracing::info!("no longer listening on {}", listening.name());
                    tokio::spawn(tokio::time::timeout(DRAIN, listening.stop()));
                }
            }
        }
        for (door, bound) in added {
            tracing::info!("listening on {bound}");
            let answerer = Arc::new(ArcSwap::from_pointee(door.site(&self.api, &self.ground.streams)));
            let tls = wanted.iter_mut().find(|(other, _)| other.bind == door.bind).and_then(|(_, tls)| tls.take());
            self.listeners.push(Listening::start(door.bind, bound, answerer, tls, connections_max));
        }
    }

    /// Seals with the first key what was sealed with another one: now, and every hour, in the background.
    fn start_reseal(&mut self) {
        if let Some(earlier) = self.reseal.take() {
            earlier.abort();
        }
        if self.store.is_none() {
            return;
        }
        let outbound = self.outbound.clone();
        let task = tokio::spawn(async move {
            loop {
                let pause = match outbound.reseal().await {
                    Ok(0) => RESEAL_EVERY,
                    Ok(count) => {
                        tracing::info!(count, "stored secrets were sealed anew with the first seal key");
                        RESEAL_EVERY
                    }
                    Err(error) => {
                        tracing::error!("stored secrets could not all be sealed anew: {error}");
                        RESEAL_AGAIN
                    }
                };
                tokio::time::sleep(pause).await;
            }
        });
        self.reseal = Some(task.abort_handle());
    }

    async fn finish(self) {
        if let Some(reseal) = self.reseal {
            reseal.abort();
        }
        self.api.close();
        self.outbound.stop();
        if let Some(issuers) = &self.issuers {
            issuers.stop();
        }
        let listeners = self.listeners.into_iter().map(Listening::stop);
        let connections = tokio::time::timeout(DRAIN, futures::future::join_all(listeners));
        let host = &self.ground.host;
        let drain_ms = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
        let deadline = host.now().mono.plus(self.ground.host_ms(drain_ms));
        let (connections, ()) = futures::future::join(connections, self.outbound.drain(deadline)).await;
        if let Some(tokens) = &self.tokens {
            tokens.leave(host.now().mono.plus(self.ground.host_ms(LAST_WRITES_MS))).await;
        }
        // Last: as long as anything is answered, revocations are followed.
        if let Some(revocations) = &self.revocations {
            revocations.leave().await;
        }
        if connections.is_err() {
            tracing::warn!("some requests were not finished within {} s", DRAIN.as_secs());
        }
    }
}

fn start_outbound(name: &NodeId, ground: &Ground, loaded: &Loaded, previous: Option<Previous<'_>>) -> Outbound {
    let parts = Parts {
        node: name.clone(),
        host: Arc::clone(&ground.host),
        register: loaded.store.as_ref().map(|store| Arc::clone(&store.register)),
        crypto: Arc::new(LocalCrypto),
        keys: loaded.keys.clone(),
        drive: keyreeve::outbound::Drive::Timer,
        tick_ms: ground.host_ms(TICK_MS),
        store_ms: ground.host_ms(loaded.config.store_ms),
    };
    Outbound::start(parts, loaded.credentials.clone(), previous)
}

fn live(outbound: &Outbound, loaded: &Loaded) -> Live {
    Live {
        outbound: outbound.clone(),
        callers: loaded.config.callers.clone(),
        limits: loaded.config.limits,
        waits: loaded.waits(),
        forward: None,
        inbound: Arc::clone(&loaded.inbound),
        issuing: loaded.issuing.clone(),
        tokens: loaded.tokens.clone(),
        artifacts: loaded.artifacts.clone(),
    }
}

/// What to listen for: the configured listeners, or the one address `instead`, and everything that has its own.
fn doors_of(config: &Config, instead: Option<SocketAddr>) -> Vec<Door> {
    let mut doors: Vec<Door> = match instead {
        None => config
            .listeners
            .iter()
            .map(|listener| Door {
                bind: listener.bind.clone(),
                behind: Behind::Surfaces(listener.serve.clone()),
                tls: listener.tls.clone(),
            })
            .collect(),
        Some(address) => {
            let serve = BTreeSet::from([Surface::Api, Surface::Metrics, Surface::Gate, Surface::Oauth2]);
            vec![Door { bind: Bind::Tcp(address), behind: Behind::Surfaces(serve), tls: None }]
        }
    };
    doors.extend(Door::of(config));
    doors
}

/// The TLS of each door. Clients are asked for a certificate where one of them proves itself so.
fn tls_of(doors: &[Door], config: &Config, ground: &Ground) -> Result<Vec<Option<Tls>>, Failure> {
    let is_certified = |client: &ClientConfig| {
        matches!(client.proof, ClientProof::CertificateSha256(_) | ClientProof::CertificateName(_))
    };
    let asks = config.clients.values().any(is_certified);
    // Listeners come first, so that the index is theirs.
    let of = |(at, door): (usize, &Door)| {
        let Some(tls) = &door.tls else { return Ok(None) };
        let serves = matches!(&door.behind, Behind::Surfaces(surfaces) if surfaces.contains(&Surface::Oauth2));
        let made = Tls::new(tls, asks && serves, ground.secrets.as_ref(), Arc::clone(&ground.host));
        let place = match &door.behind {
            Behind::Artifact(name) => format!("gate.{name}"),
            _ => format!("listener[{at}]"),
        };
        made.map(Some).map_err(|cause| Failure::new(Code::Usage, format!("`{place}.tls`: {cause}")))
    };
    doors.iter().enumerate().map(of).collect()
}

async fn bind(door: &Door) -> Result<Bound, Failure> {
    let hint = match door.behind {
        Behind::Surfaces(_) => "is another node running there? `--bind 127.0.0.1:0` takes a free port",
        Behind::Artifact(_) => "is another node running there? the address is `bind` of the gate",
        _ => "is another node running there? metadata services and `inject` gates are one node's on each machine",
    };
    let bound = Bound::new(&door.bind).await;
    let bound = bound.map_err(|error| Failure::new(Code::Unavailable, error.to_string()).hint(hint))?;
    door.prepare(&bound);
    Ok(bound)
}

fn metrics_page() -> Result<http::MetricsPage, Failure> {
    let handle: PrometheusHandle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::new(Code::Unavailable, format!("no metrics: {error}")))?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(Arc::new(move || handle.render()))
}

/// The name given, or one that no other process of this network has at the moment.
fn node_name(given: Option<&str>) -> Result<NodeId, Failure> {
    if let Some(given) = given {
        return NodeId::parse(given).map_err(|error| Failure::new(Code::Usage, format!("`--node {given}`: {error}")));
    }
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let mut name: String = host.trim().chars().filter(char::is_ascii_graphic).take(48).collect();
    if name.is_empty() {
        name.push_str("node");
    }
    name.push_str(&format!("-{}", std::process::id()));
    NodeId::parse(&name)
        .map_err(|error| Failure::new(Code::Usage, format!("no node name: {error}\nhint: use `--node`")))
}
