//! From a configuration file to the parts of a running node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyreeve::access::{self, Tokens};
use keyreeve::config::{
    Config, ConfigRead, Home, PostgresUrl, Problem, Problems, ReadOptions, SecretRef, Severity, StoreUrl,
};
use keyreeve::core::id::{CredentialName, NodeId};
use keyreeve::core::seal::KeyRing;
use keyreeve::core::secret::Secret;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::engine::postgres::{self, Postgres};
use keyreeve::engine::remote::Remote;
use keyreeve::engine::sqlite::{self, Sqlite};
use keyreeve::engine::wire::SigningKey;
use keyreeve::http::ArtifactGates;
use keyreeve::inbound::client::Clients;
use keyreeve::inbound::{self, Fetched, Inbound, Issuing};
use keyreeve::outbound::Credential;
use keyreeve::port::{Host, Register, Secrets};
use keyreeve::revocation::{self, Revocations};
use keyreeve::seal::seal_keys;
use keyreeve::source::{self, Tools};

use keyreeve_server::command::OsPrograms;
use keyreeve_server::fetch::{Fetch, FetchSettings};
use keyreeve_server::host::{Clock, OsHost};
use keyreeve_server::passage::Streams;
use keyreeve_server::secrets::OsSecrets;
use serde_json::{Value, json};

use crate::artifacts;
use crate::exit::{Code, Failure};
use crate::faults::Faults;
use crate::issuing::{self, Signs};

/// A file larger than this is not even read, in bytes; what is smaller and still too large is refused with its name.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What stays the same when the configuration is read again.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) host: Arc<dyn Host>,
    /// The same host, whose clock can be corrected.
    pub(crate) os: Arc<OsHost>,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) tools: Tools,
    /// How requests leave gates.
    pub(crate) streams: Streams,
    pub(crate) faults: Faults,
    /// How much faster than real time the host's clock runs; 1 except under a test's clock.
    pub(crate) scale: f64,
}

impl Ground {
    /// The operating system, and the switches of the environment; each one in use is a warning in the log.
    pub(crate) fn new() -> Result<Self, Failure> {
        let usage = |cause: String| Failure::new(Code::Usage, cause);
        let clock = Clock::from_environment().map_err(usage)?;
        let os = Arc::new(clock.map_or_else(OsHost::new, OsHost::with_clock));
        let host: Arc<dyn Host> = os.clone();
        let scale = clock.map_or(1.0, |clock| clock.scale);
        let http = Fetch::new(Arc::clone(&host), &FetchSettings::default()).map_err(usage)?;
        let streams = Streams::new(Arc::clone(&host)).map_err(usage)?;
        let programs = OsPrograms::new(Arc::clone(&host));
        let tools = Tools {
            host: Arc::clone(&host),
            http: Arc::new(http),
            programs: Some(Arc::new(programs)),
            signer: keyreeve::crypto::signer,
            secrets: Arc::new(OsSecrets),
        };
        Ok(Self { host, os, secrets: Arc::new(OsSecrets), tools, streams, faults: Faults::from_environment(), scale })
    }

    /// What verifiers are made with.
    pub(crate) fn inbound_parts(&self) -> inbound::Parts {
        inbound::Parts {
            host: Arc::clone(&self.host),
            http: Arc::clone(&self.tools.http),
            crypto: Arc::new(keyreeve::crypto::LocalCrypto),
            make: keyreeve::crypto::check,
        }
    }

    /// Milliseconds of the host's clock that last at least `real_ms` in reality: where time runs faster, stores and
    /// processors do not.
    pub(crate) fn host_ms(&self, real_ms: u64) -> u64 {
        host_ms(self.scale, real_ms)
    }
}

fn host_ms(scale: f64, real_ms: u64) -> u64 {
    // In range: a scale and a setting are bounded.
    (real_ms as f64 * scale.max(1.0)).ceil() as u64
}

/// A register and where it is.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) url: StoreUrl,
    /// What else its connections are made with: `store.password` and `store.ca`.
    access: (Option<SecretRef>, Option<PathBuf>),
    answer_ms: u64,
    pub(crate) register: Arc<dyn Register>,
}

/// The parts that a configuration makes.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) keys: Option<KeyRing>,
    pub(crate) store: Option<Store>,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) issuing: Option<Issuing>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) artifacts: ArtifactGates,
    pub(crate) revocations: Option<Revocations>,
    /// The keys of outside issuers, to be gone on with after a reload.
    pub(crate) fetched: BTreeMap<String, Fetched>,
}

/// Reads a configuration file, with overrides from the environment unless it is for another home.
///
/// # Errors
/// All problems at once.
pub(crate) fn read(path: &Path, home: Home) -> Result<ConfigRead, Failure> {
    // Each problem says itself what it is.
    problems(path, home)?.map_err(|problems| Failure::explained(Code::Usage, problems.to_string()))
}

/// As [`read`], with the problems one by one.
pub(crate) fn problems(path: &Path, home: Home) -> Result<Result<ConfigRead, Problems>, Failure> {
    let text = text_of(path)?;
    // The environment of this process is not that of a Worker.
    let environment = if home == Home::Native { environment() } else { BTreeMap::new() };
    let options = ReadOptions { home, ..ReadOptions::default() };
    Ok(Config::read(&text, &path.display().to_string(), &environment, options))
}

/// A problem of a configuration as JSON.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({
        "severity": severity, "setting": problem.setting, "message": problem.message, "hint": problem.hint,
        "origin": problem.origin.to_string(), "file": problem.file.as_ref(),
    })
}

/// As [`read`]; warnings go to the log.
pub(crate) fn read_and_warn(path: &Path) -> Result<Config, Failure> {
    let read = read(path, Home::Native)?;
    for warning in &read.warnings {
        tracing::warn!("{warning}");
    }
    Ok(read.config)
}

/// The text of a configuration file.
pub(crate) fn text_of(path: &Path) -> Result<String, Failure> {
    let refuse = |cause: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format!("cannot read the configuration `{}`: {cause}", path.display()))
    };
    let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(refuse(&format!("{size} bytes are more than {FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(&error))
}

/// The variables that may override settings.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("KEYREEVE__"))
        .collect()
}

/// Makes the parts. A register that is open already is used again where the address is the same, and so are keys that have
/// been fetched.
///
/// # Errors
/// Every secret that cannot be read and every source that cannot be made, together; or the store.
pub(crate) async fn load(
    config: Config,
    ground: &Ground,
    open: Option<&Store>,
    mut fetched: BTreeMap<String, Fetched>,
    signs: &Signs<'_>,
) -> Result<Loaded, Failure> {
    let mut problems = Vec::new();
    let keys = seal_keys(&config.seal_keys, ground.secrets.as_ref()).unwrap_or_else(|found| {
        problems.extend(found);
        None
    });
    let mut credentials = Vec::with_capacity(config.credentials.len());
    for (name, settings) in &config.credentials {
        match source::build(settings, name, ground.secrets.as_ref(), &ground.tools) {
            Ok(source) => credentials.push(Credential {
                name: name.clone(),
                source: ground.faults.around_source(source, &ground.host),
                plan: Arc::new(settings.plan.clone()),
                keep: settings.keep,
            }),
            Err(problem) => problems.push(problem),
        }
    }
    for (name, gate) in &config.injects {
        let checked = ground.streams.by(gate.via.clone()).check();
        problems.extend(checked.err().map(|problem| format!("`gate.{name}`: {problem}")));
    }
    let trusted = inbound::verifiers(&config.verifiers, ground.secrets.as_ref(), &ground.inbound_parts(), &mut fetched);
    let mut trusted = trusted.unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    let clients = Clients::new(&config.clients, ground.secrets.as_ref()).unwrap_or_else(|found| {
        problems.extend(found);
        Clients::default()
    });
    let artifacts = artifacts::open(&config, ground, signs.artifacts).unwrap_or_else(|found| {
        problems.extend(found);
        BTreeMap::new()
    });
    if !problems.is_empty() {
        return Err(Failure::new(Code::Usage, problems.join("\nerror: ")));
    }
    let store = match config.needs_store() {
        false => None,
        true => Some(match open.filter(|open| open.is_of(&config)) {
            Some(open) => open.clone(),
            None => open_store(&config, ground).await?,
        }),
    };
    // Last, because it starts something.
    let revocations = follow(&config, ground, signs, store.as_ref());
    let tokens = start_tokens(&config, ground, signs, (store.as_ref(), keys.as_ref()), revocations.as_ref())?;
    let artifacts = artifacts::gates(&config, artifacts, tokens.as_ref());
    let issuing = issuing::start(&config, (clients, &mut trusted), ground, signs, (store.as_ref(), keys.as_ref()))?;
    let mut secret = [0; 32];
    ground.host.fill(&mut secret);
    let inbound = Inbound::revoking(trusted, &config.gates, config.policy.clone(), secret, revocations.clone());
    Ok(Loaded { config, credentials, keys, store, inbound, fetched, issuing, tokens, artifacts, revocations })
}

/// Starts to follow what is revoked; not where the configuration says nothing of it.
fn follow(config: &Config, ground: &Ground, signs: &Signs<'_>, store: Option<&Store>) -> Option<Revocations> {
    let (settings, store) = (config.revocation?, store?);
    let parts = revocation::Parts {
        node: signs.node.clone(),
        host: Arc::clone(&ground.host),
        register: Arc::clone(&store.register),
        crypto: Arc::new(LocalCrypto),
        store_ms: ground.host_ms(config.store_ms),
    };
    Some(Revocations::start(parts, settings, signs.followed))
}

/// Starts the access tokens of a configuration; none where it has none.
fn start_tokens(
    config: &Config,
    ground: &Ground,
    signs: &Signs<'_>,
    (store, keys): (Option<&Store>, Option<&KeyRing>),
    revocations: Option<&Revocations>,
) -> Result<Option<Tokens>, Failure> {
    if config.tokens.is_empty() {
        return Ok(None);
    }
    let (Some(store), Some(keys), Some(revocations)) = (store, keys, revocations) else {
        return Err(Failure::new(Code::Usage, "access tokens need `store` and `seal.keys`"));
    };
    let imported = crate::artifacts::hashes(config, ground);
    let imported = imported.map_err(|problems| Failure::new(Code::Usage, problems.join("\nerror: ")))?;
    let legacy_keys = legacy_keys(config, ground)?;
    let parts = access::Parts {
        node: signs.node.clone(),
        host: Arc::clone(&ground.host),
        register: Arc::clone(&store.register),
        crypto: Arc::new(LocalCrypto),
        keys: keys.clone(),
        revocations: revocations.clone(),
        imported: imported.into_iter().map(|(family, hashes)| (family, hashes as Arc<dyn access::Imported>)).collect(),
        legacy_keys,
        bcrypt: Arc::new(keyreeve::system::bcrypt::Blocking::new()),
        store_ms: ground.host_ms(config.store_ms),
    };
    Ok(Some(Tokens::start(parts, &config.tokens, signs.tokens)))
}

/// What the legacy tokens of families are made with.
///
/// # Errors
/// Each that cannot be read.
pub(crate) fn legacy_keys(config: &Config, ground: &Ground) -> Result<BTreeMap<String, Secret<Vec<u8>>>, Failure> {
    let (mut keys, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, reference) in config.tokens.iter().filter_map(|(name, family)| Some((name, family.legacy_key.as_ref()?)))
    {
        match ground.secrets.read(reference) {
            Ok(key) if key.expose().is_empty() => problems.push(format!("`token.{name}.legacy.hmac_key`: it is empty")),
            Ok(key) => drop(keys.insert(name.clone(), key)),
            Err(cause) => problems.push(format!("`token.{name}.legacy.hmac_key`: {cause}")),
        }
    }
    if problems.is_empty() { Ok(keys) } else { Err(Failure::new(Code::Usage, problems.join("\nerror: "))) }
}

/// The access tokens of a configuration, for a command that is no node.
///
/// # Errors
/// What keeps a node from starting.
pub(crate) async fn tokens_alone(
    config: &Config,
    ground: &Ground,
    node: &NodeId,
) -> Result<(Option<Tokens>, Option<Revocations>), Failure> {
    let keys = seal_keys(&config.seal_keys, ground.secrets.as_ref());
    let keys = keys.map_err(|problems| Failure::new(Code::Usage, problems.join("\nerror: ")))?;
    let store = open_store(config, ground).await?;
    let signs = Signs { node, previous: None, tokens: None, followed: None, artifacts: &ArtifactGates::new() };
    let revocations = follow(config, ground, &signs, Some(&store));
    let tokens = start_tokens(config, ground, &signs, (Some(&store), keys.as_ref()), revocations.as_ref())?;
    Ok((tokens, revocations))
}

/// Opens the register.
pub(crate) async fn open_store(config: &Config, ground: &Ground) -> Result<Store, Failure> {
    let faults = &ground.faults;
    let register = match &config.store {
        StoreUrl::Memory => faults.around_register(Memory::new()),
        StoreUrl::Sqlite(path) => {
            let path = path.clone();
            let options = sqlite::Options::answering_within(config.store_ms);
            // Opening waits for other processes' locks.
            let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path, options)).await;
            match opened {
                Ok(Ok(engine)) => faults.around_register(engine),
                Ok(Err(error)) => return Err(Failure::new(Code::Unavailable, error.to_string())),
                Err(error) => {
                    return Err(Failure::new(Code::Unavailable, format!("the store was not opened: {error}")));
                }
            }
        }
        StoreUrl::Postgres(url) => faults.around_register(postgres(config, url, ground).await?),
        StoreUrl::Remote(origin) => faults.around_register(remote(config, origin, ground)?),
        StoreUrl::DurableObject(_) | StoreUrl::Bucket(_) => {
            return Err(Failure::new(Code::Usage, format!("`{}` is a binding of a Worker", config.store)));
        }
    };
    Ok(Store { url: config.store.clone(), access: asked_with(config), answer_ms: config.store_ms, register })
}

fn asked_with(config: &Config) -> (Option<SecretRef>, Option<PathBuf>) {
    (config.store_password.clone(), config.store_ca.clone())
}

/// A server that is away keeps no node from starting, and one that says no does.
async fn postgres(config: &Config, url: &PostgresUrl, ground: &Ground) -> Result<Postgres, Failure> {
    let settings = postgres::Settings {
        url: url.clone(),
        password: config.store_password.clone(),
        authorities: config.store_ca.clone(),
        answer_ms: config.store_ms,
    };
    let failed = |error: postgres::OpenError| Failure::new(Code::Unavailable, error.to_string());
    let register = Postgres::new(settings, Arc::clone(&ground.secrets), Arc::clone(&ground.host)).map_err(failed)?;
    match register.check().await {
        Err(error @ postgres::OpenError::Away { .. }) => tracing::warn!("{error}"),
        outcome => outcome.map_err(failed)?,
    }
    Ok(register)
}

/// A Worker is first asked when something is needed of it, as any node that starts while it is away.
fn remote(config: &Config, origin: &str, ground: &Ground) -> Result<Remote, Failure> {
    let key = config.store_key.as_ref().ok_or_else(|| "it is missing".to_owned());
    let key = key.and_then(|reference| ground.secrets.read(reference)).and_then(SigningKey::new);
    let key = key.map_err(|cause| Failure::new(Code::Usage, format!("`store.key`: {cause}")))?;
    let answer_ms = ground.host_ms(config.store_ms);
    Ok(Remote::new(origin, key, answer_ms, Arc::clone(&ground.host), Arc::clone(&ground.tools.http)))
}

impl Store {
    /// Whether this is what `config` asks for. The memory of this process has no file to be found in again, so it stays.
    fn is_of(&self, config: &Config) -> bool {
        let is_usable = match &self.url {
            StoreUrl::Memory => true,
            StoreUrl::Sqlite(_) => self.answer_ms == config.store_ms,
            StoreUrl::Postgres(_) => self.answer_ms == config.store_ms && self.access == asked_with(config),
            // Nothing is held open, and the key behind its reference may be another one.
            _ => false,
        };
        self.url == config.store && is_usable
    }
}

impl Loaded {
    /// How long a caller waits, by credential.
    pub(crate) fn waits(&self) -> BTreeMap<CredentialName, u64> {
        self.config.credentials.iter().map(|(name, settings)| (name.clone(), settings.wait_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_two_seconds_in_reality_does_so_on_a_fast_clock_too() {
        assert_eq!(host_ms(1.0, 2000), 2000);
        assert_eq!(host_ms(60.0, 20), 1200);
        assert_eq!(host_ms(1.5, 1), 2);
        assert_eq!(host_ms(0.5, 20), 20);
    }
}
