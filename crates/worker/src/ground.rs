//! From the configuration in the bundle to the parts of an isolate or an object.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve::config::{Config, Home, Plan, ReadOptions, StoreUrl};
use keyreeve::core::crypto::Crypto;
use keyreeve::core::id::CredentialName;
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::FaultClass;
use keyreeve::core::seal::KeyRing;
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::wire::SigningKey;
use keyreeve::inbound::{self, Inbound};
use keyreeve::outbound::Credential;
use keyreeve::port::{Host, Secrets as _};
use keyreeve::seal::seal_keys;
use keyreeve::source::{self, MintError, Minting, Nature, Source, Tools};
use worker::Env;
use worker::js_sys::{self, Reflect};
use worker::wasm_bindgen::JsValue;

use crate::fetch::{Fetch, check_compatibility};
use crate::host::WorkerHost;
use crate::secrets::BoundSecrets;

/// Where the bundle puts the text of the configuration.
const CONFIG: &str = "KEYREEVE_CONFIG";
/// The name under which problems of the configuration are reported.
const FILE: &str = "keyreeve.toml";
/// The namespace of the objects where the records are kept elsewhere.
const OBJECTS: &str = "KEYREEVE";

thread_local! {
    static READ: OnceCell<Result<Arc<Config>, String>> = const { OnceCell::new() };
}

/// The configuration in the bundle, read once per isolate.
///
/// # Errors
/// Every problem of the configuration.
pub(crate) fn config() -> Result<Arc<Config>, String> {
    READ.with(|read| read.get_or_init(read_config).clone())
}

fn read_config() -> Result<Arc<Config>, String> {
    let options = ReadOptions { home: Home::Worker, ..ReadOptions::default() };
    let read = Config::read(&config_text()?, FILE, &BTreeMap::new(), options);
    Ok(Arc::new(read.map_err(|problems| problems.to_string())?.config))
}

/// What a configuration and its bindings give.
pub(crate) struct Ground {
    pub(crate) env: Env,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) crypto: Arc<dyn Crypto>,
    pub(crate) config: Arc<Config>,
    pub(crate) keys: Option<KeyRing>,
    secrets: Arc<BoundSecrets>,
    tools: Tools,
}

impl Ground {
    /// Reads the configuration and the secrets.
    ///
    /// # Errors
    /// Every problem of the configuration, or the binding that is missing, or that the platform is to behave as it did too long ago.
    pub(crate) async fn new(env: Env) -> Result<Self, String> {
        check_compatibility()?;
        let host: Arc<dyn Host> = Arc::new(WorkerHost::new());
        let config = config()?;
        let names = config.bindings().secrets;
        let secrets = BoundSecrets::new(env.clone()).with_stored(host.as_ref(), names).await?;
        let secrets = Arc::new(secrets);
        let keys = seal_keys(&config.seal_keys, secrets.as_ref()).map_err(|problems| problems.join("\n"))?;
        let http = Fetch::new(env.clone(), Arc::clone(&host));
        let tools = Tools {
            host: Arc::clone(&host),
            http: Arc::new(http),
            programs: None,
            signer: crate::webcrypto::signer,
            secrets: secrets.clone(),
        };
        Ok(Self { env, host, crypto: Arc::new(LocalCrypto), config, keys, secrets, tools })
    }

    /// The namespace of the objects in which credentials are minted; `None` where nothing is minted in any.
    pub(crate) fn objects(&self) -> Option<&str> {
        let is_coordinated = self.config.credentials.values().any(|one| matches!(one.plan, Plan::Fleet(_)));
        let binding = match &self.config.store {
            StoreUrl::DurableObject(binding) => binding.as_str(),
            _ => OBJECTS,
        };
        is_coordinated.then_some(binding)
    }

    /// What native nodes sign their requests to the register with: the key, and the one before it.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub(crate) fn signing_keys(&self) -> Result<Vec<SigningKey>, String> {
        let references = [("store.key", &self.config.store_key), ("store.old_key", &self.config.store_old_key)];
        let given = references.into_iter().filter_map(|(setting, reference)| Some((setting, reference.as_ref()?)));
        given
            .map(|(setting, reference)| {
                let key = self.secrets.read(reference).and_then(SigningKey::new);
                key.map_err(|cause| format!("`{setting}`: {cause}"))
            })
            .collect()
    }

    /// How long callers wait, by credential.
    pub(crate) fn waits(&self) -> BTreeMap<CredentialName, u64> {
        self.config.credentials.iter().map(|(name, one)| (name.clone(), one.wait_ms)).collect()
    }

    /// Whose tokens are accepted in an isolate, and what their holders may do.
    ///
    /// # Errors
    /// A sentence for each key that cannot be used.
    pub(crate) fn inbound(&self) -> Result<Arc<Inbound>, String> {
        let parts = inbound::Parts {
            host: Arc::clone(&self.host),
            http: Arc::clone(&self.tools.http),
            crypto: Arc::clone(&self.crypto),
            make: crate::webcrypto::check,
        };
        let config = &self.config;
        let trusted = inbound::verifiers(&config.verifiers, self.secrets.as_ref(), &parts, &mut BTreeMap::new());
        let trusted = trusted.map_err(|problems| problems.join("\n"))?;
        let mut secret = [0; 32];
        self.host.fill(&mut secret);
        Ok(Inbound::new(trusted, &config.gates, config.policy.clone(), secret))
    }

    /// Every credential for an isolate: those in slot mode are signed there, the others are minted in their objects.
    ///
    /// # Errors
    /// A sentence for each source that cannot be made.
    pub(crate) fn followed(&self) -> Result<Vec<Credential>, String> {
        let all = self.config.credentials.iter();
        joined(all.map(|(name, one)| match one.plan {
            Plan::Slot(_) => self.credential(name),
            Plan::Fleet(_) => Ok(Credential {
                name: name.clone(),
                source: Arc::new(Elsewhere(one.source.kind())),
                plan: Arc::new(one.plan.clone()),
                keep: one.keep,
            }),
        }))
    }

    /// One credential, ready to be minted.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub(crate) fn credential(&self, name: &CredentialName) -> Result<Credential, String> {
        let one = self.config.credentials.get(name).ok_or_else(|| format!("no credential is named `{name}`"))?;
        let source = source::build(one, name, self.secrets.as_ref(), &self.tools)?;
        Ok(Credential { name: name.clone(), source, plan: Arc::new(one.plan.clone()), keep: one.keep })
    }
}

fn joined(all: impl Iterator<Item = Result<Credential, String>>) -> Result<Vec<Credential>, String> {
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Ok(credential) => good.push(credential),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(good) } else { Err(problems.join("\n")) }
}

fn config_text() -> Result<String, String> {
    let text = Reflect::get(&js_sys::global(), &JsValue::from_str(CONFIG)).ok().and_then(|text| text.as_string());
    text.ok_or_else(|| {
        format!("this Worker has no configuration: `globalThis.{CONFIG}` is not a text\nhint: `keyreeve build worker` writes a project that has one")
    })
}

/// The source of a credential that is minted in its object. Nobody asks it.
struct Elsewhere(&'static str);

#[async_trait]
impl Source for Elsewhere {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, _: &Order, _: &str) -> Result<Minting, MintError> {
        Err(MintError::nothing_minted(FaultClass::Misconfigured, "this credential is minted in its Durable Object"))
    }
}
