//! What a Worker has to be given besides its code: the bindings that a configuration names.

use std::collections::{BTreeMap, BTreeSet};

use super::inbound::{KeysConfig, KeysUrl};
use super::problem::Fault;
use super::sheet::Sheet;
use super::tree::join;
use super::types::{CacheTier, Config, CredentialConfig, Home, Plan, SecretRef, SourceConfig, StoreUrl};
use crate::port::Via;

/// The bindings of a Worker, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The Durable Object class `Keyreeve`, where it is the register and any credential needs one.
    pub durable_object: Option<String>,
    /// The bucket, where it is the register and any credential needs one.
    pub bucket: Option<String>,
    /// The KV namespace that caches, where any credential is kept in a register.
    pub kv: Option<String>,
    /// Other Workers that mint.
    pub services: BTreeSet<String>,
    /// Client certificates.
    pub certificates: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// One place of a configuration that names a binding.
struct Use {
    path: String,
    kind: &'static str,
    name: String,
}

const OBJECT: &str = "a Durable Object";
const BUCKET: &str = "a bucket";
const KV: &str = "a KV namespace";
const SERVICE: &str = "another Worker";
const CERTIFICATE: &str = "a client certificate";
const SECRET: &str = "a secret";

impl Config {
    /// Whether anything is coordinated through the store: a credential, the keys of an issuer, or what is revoked.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        let is_shared = |credential: &CredentialConfig| matches!(credential.plan, Plan::Fleet(_));
        // Access tokens imply revocations.
        !self.issuers.is_empty() || self.revocation.is_some() || self.credentials.values().any(is_shared)
    }

    /// Every binding that this configuration needs on a Worker.
    ///
    /// ```
    /// use keyreeve::config::{Config, Home, ReadOptions};
    ///
    /// let text = r#"
    /// store.url = "do:KEYREEVE"
    /// seal.keys = ["binding:SEAL_KEY"]
    /// [credential.vendor]
    /// source = "http"
    /// url = "service:RENEWAL/renew"
    /// "#;
    /// let options = ReadOptions { home: Home::Worker, ..ReadOptions::default() };
    /// let config = Config::read(text, "keyreeve.toml", &Default::default(), options).unwrap().config;
    /// let bindings = config.bindings();
    /// assert_eq!(bindings.durable_object.as_deref(), Some("KEYREEVE"));
    /// assert!(bindings.services.contains("RENEWAL") && bindings.secrets.contains("SEAL_KEY"));
    /// ```
    #[must_use]
    pub fn bindings(&self) -> Bindings {
        let mut bindings = Bindings::default();
        for Use { kind, name, .. } in uses(self) {
            match kind {
                OBJECT => bindings.durable_object = Some(name),
                BUCKET => bindings.bucket = Some(name),
                KV => bindings.kv = Some(name),
                SERVICE => drop(bindings.services.insert(name)),
                CERTIFICATE => drop(bindings.certificates.insert(name)),
                _ => drop(bindings.secrets.insert(name)),
            }
        }
        bindings
    }
}

/// Reports a name that stands for two different things.
pub(super) fn check(sheet: &mut Sheet, config: &Config) {
    if sheet.home != Home::Worker {
        return;
    }
    let mut seen: BTreeMap<String, (&'static str, String)> = BTreeMap::new();
    for Use { path, kind, name } in uses(config) {
        match seen.get(&name) {
            Some((other, place)) if *other != kind => {
                let must = format!("names {kind} by the binding `{name}`, which is {other} in `{place}`");
                let origin = sheet.place(&path);
                sheet.fault(&path, origin, &Fault::new(must, "give one of them another name"), None);
            }
            _ => drop(seen.insert(name, (kind, path))),
        }
    }
}

fn uses(config: &Config) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut add = |path: String, kind, name: &str| uses.push(Use { path, kind, name: name.to_owned() });
    if config.needs_store() {
        match &config.store {
            StoreUrl::DurableObject(name) => add("store.url".into(), OBJECT, name),
            StoreUrl::Bucket(name) => add("store.url".into(), BUCKET, name),
            StoreUrl::Sqlite(_) | StoreUrl::Postgres(_) | StoreUrl::Memory | StoreUrl::Remote(_) => {}
        }
        for tier in &config.caches {
            if let CacheTier::Kv(name) = tier {
                add("store.caches".into(), KV, name);
            }
        }
    }
    let mut secret = |path: String, reference: &SecretRef| {
        if let SecretRef::Binding(name) = reference {
            add(path, SECRET, name);
        }
    };
    secrets(config, &mut secret);
    for (name, verifier) in &config.verifiers {
        let at = join("verifier", name);
        let KeysConfig::Fetched(fetch) = &verifier.keys else { continue };
        if let KeysUrl::Jwks(url) = &fetch.from
            && let Some((service, _)) = url.strip_prefix("service:").and_then(|rest| rest.split_once('/'))
        {
            add(format!("{at}.jwks_url"), SERVICE, service);
        }
        if let Some(Via::Binding(certificate)) = &fetch.via {
            add(format!("{at}.via"), CERTIFICATE, certificate);
        }
    }
    for (name, credential) in &config.credentials {
        let at = join("credential", name.as_str());
        let urls = match &credential.source {
            SourceConfig::Http { url, .. } => vec![("url", url.as_str())],
            asked => asked.asked_urls(),
        };
        for (field, url) in urls {
            if let Some((service, _)) = url.strip_prefix("service:").and_then(|rest| rest.split_once('/')) {
                add(format!("{at}.{field}"), SERVICE, service);
            }
        }
        if let Some(Via::Binding(certificate)) = &credential.via {
            add(format!("{at}.via"), CERTIFICATE, certificate);
        }
    }
    uses
}

/// Every secret, by the setting that names it.
fn secrets(config: &Config, secret: &mut impl FnMut(String, &SecretRef)) {
    config.store_key.iter().for_each(|key| secret("store.key".into(), key));
    config.store_old_key.iter().for_each(|key| secret("store.old_key".into(), key));
    config.seal_keys.iter().for_each(|key| secret("seal.keys".into(), key));
    for (name, credential) in &config.credentials {
        let at = join("credential", name.as_str());
        match &credential.source {
            SourceConfig::Apns { key, .. } | SourceConfig::Jwt { key, .. } => secret(format!("{at}.key"), key),
            SourceConfig::Exec { secrets, .. } => {
                secrets.values().for_each(|one| secret(format!("{at}.secrets"), one));
            }
            SourceConfig::Http { secret_headers, .. } => {
                secret_headers.values().for_each(|one| secret(format!("{at}.secret_headers"), one));
            }
            asked => asked.asked_secrets().into_iter().for_each(|(field, one)| secret(format!("{at}.{field}"), one)),
        }
    }
    for (name, verifier) in &config.verifiers {
        let at = join("verifier", name);
        match &verifier.keys {
            KeysConfig::Held(keys) => keys.iter().for_each(|key| secret(format!("{at}.keys"), key)),
            KeysConfig::Secret(key) => secret(format!("{at}.secret"), key),
            KeysConfig::Fetched(_) => {}
        }
    }
}
