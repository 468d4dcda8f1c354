//! Reads a whole configuration: text and environment in, valid settings or all problems out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use keyreeve_core::id::{CredentialName, IssuerName};
use toml::de::DeTable;

use super::access::{self, FamilyConfig};
use super::artifact;
use super::bindings;
use super::caller;
use super::client;
use super::credential;
use super::environment;
use super::gate;
use super::hand_out;
use super::issuer::{self, IssuerConfig};
use super::parse;
use super::problem::{Fault, Origin, Problem, Problems};
use super::revocation;
use super::scope::Scope;
use super::sheet::{Explained, Named, Sheet};
use super::tree::{Lines, entries};
use super::types::{
    Bind, CacheTier, Config, CredentialConfig, Home, Limits, Listener, Plan, SecretRef, StoreUrl, Surface, TlsConfig,
};
use super::units::show_size;
use super::value::show_secret;
use super::verifier;
use super::via;

/// The largest configuration, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// How the parser calls a key that is there twice: the only broken line that leaves the rest of a file whole.
const DUPLICATE: &str = "duplicate key";
/// Names of the surfaces.
const SURFACES: [(&str, Surface); 4] =
    [("api", Surface::Api), ("metrics", Surface::Metrics), ("gate", Surface::Gate), ("oauth2", Surface::Oauth2)];

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Whether a secret may stand in the file itself: under `keyreeve dev`, and in tests.
    pub allow_literals: bool,
    /// For where: what makes no sense there is a problem.
    pub home: Home,
}

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct ConfigRead {
    /// The settings.
    pub config: Config,
    /// Each effective value and where it comes from, table by table.
    pub explained: Vec<Explained>,
    /// What somebody should know, in the order of the lines.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a configuration. Touches nothing: no file, no variable besides `env`, no clock.
    ///
    /// `file_name` is only for messages. Of `env` the variables that start with `KEYREEVE__` are read:
    /// `KEYREEVE__STORE__URL` stands for `store.url` and wins over the file.
    ///
    /// # Errors
    /// All problems at once, in the order of their lines. No message holds a secret.
    ///
    /// ```
    /// use keyreeve::config::{Config, ReadOptions};
    ///
    /// let text = r#"
    /// store.url = "memory:"
    /// seal.keys = ["file:/etc/keyreeve/seal.key"]
    /// [credential.apns-prod]
    /// source = "apns"
    /// key = "file:/etc/keyreeve/AuthKey_ABC123DEFG.p8"
    /// params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
    /// life = { max = "55m", min_interval = "20m", lead = "60m" }
    /// "#;
    /// let problems = Config::read(text, "push.toml", &Default::default(), ReadOptions::default()).unwrap_err();
    /// assert!(problems.to_string().contains("lead 1h is not shorter than max 55m (push.toml:8)"));
    /// ```
    pub fn read(
        text: &str,
        file_name: &str,
        env: &BTreeMap<String, String>,
        options: ReadOptions,
    ) -> Result<ConfigRead, Problems> {
        let mut sheet = Sheet::new(file_name, options.allow_literals, options.home);
        if text.len() > CONFIG_BYTES_MAX {
            let (found, most) = (show_size(text.len() as u64), show_size(CONFIG_BYTES_MAX as u64));
            let message = format!("the file is too large: {found} is more than {most}");
            sheet.report("", Origin::Default, message, "split the credentials over several fleets");
            return Err(Problems(sheet.finish().0));
        }
        let lines = Lines::of(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut is_whole = true;
        for error in errors {
            is_whole &= error.message() == DUPLICATE;
            syntax(&mut sheet, &lines, text, error.message(), error.span());
        }
        // What is left of a file with a broken line would only bring problems that are not there.
        if !is_whole {
            return Err(Problems(sheet.finish().0));
        }
        let mut tree = entries(document.get_ref(), &lines);
        environment::apply(env, &mut tree, &mut sheet);
        sheet.table(&tree, "", "", None);
        let config = whole(&mut sheet);
        let is_sound = !sheet.has_problems();
        let (problems, warnings, explained) = sheet.finish();
        match config {
            Some(config) if is_sound => Ok(ConfigRead { config, explained, warnings }),
            _ => Err(Problems(problems)),
        }
    }
}

fn syntax(sheet: &mut Sheet, lines: &Lines, text: &str, message: &str, span: Option<std::ops::Range<usize>>) {
    let offset = span.map_or(text.len(), |span| span.start);
    let hint = if message == DUPLICATE {
        "a key stands once in its table, and `[name]` once in the file: remove one"
    } else {
        "values of text stand in quotes, lists in `[..]`, tables under `[name]`"
    };
    sheet.report("", lines.at(offset), format!("the file is not TOML: {message}"), hint);
}

fn whole(sheet: &mut Sheet) -> Option<Config> {
    let store = store(sheet);
    let store_ms = Scope::new(sheet, "store", "store").number("timeout");
    let (store_key, store_old_key) = store_keys(sheet, store.as_ref());
    let (store_password, store_ca) = store_access(sheet, store.as_ref());
    let caches = caches(sheet);
    let clock_url = Scope::new(sheet, "clock", "clock").parsed("url", parse::clock_url, Clone::clone);
    let seal_keys = Scope::new(sheet, "seal", "seal").secrets("keys");
    let listeners = listeners(sheet);
    let credentials = credential::all(sheet, store.as_ref());
    let issuers = issuer::all(sheet, store_ms);
    let tokens = if cfg!(target_arch = "wasm32") { BTreeMap::new() } else { access::all(sheet) };
    let callers = caller::all(sheet, &listeners, &credentials, &issuers, &tokens);
    served(sheet, &listeners, &issuers);
    let verifiers = verifier::all(sheet);
    let clients = client::all(sheet, (&issuers, &listeners), &verifiers.keys().cloned().collect());
    let objects = if cfg!(target_arch = "wasm32") { BTreeMap::new() } else { artifact::objects(sheet) };
    if cfg!(not(target_arch = "wasm32")) {
        access::check(sheet, &tokens, &objects);
    }
    let gates = gate::all(sheet, &listeners, &credentials, (&objects, &tokens));
    // Whoever builds a Worker has checked its configuration natively: its wasm need not know what it cannot have.
    let (metadata, files) = if cfg!(target_arch = "wasm32") {
        Default::default()
    } else {
        let metadata = hand_out::metadata(sheet, &gates.taken, &credentials);
        (metadata, hand_out::files(sheet, &credentials))
    };
    let policy = gate::policy(sheet, &verifiers, &gates.auth);
    // As above: what only a native node can have.
    let revocation = if cfg!(target_arch = "wasm32") { None } else { revocation::one(sheet, !tokens.is_empty()) };
    let limits = limits(sheet);
    seals(sheet, &seal_keys, &credentials, &issuers, &tokens);
    let is_empty = credentials.is_empty() && issuers.is_empty() && verifiers.is_empty() && gates.is_empty();
    if is_empty
        && tokens.is_empty()
        && !sheet.is_written("token")
        && !sheet.is_written("credential")
        && !sheet.is_written("issuer")
    {
        let hint = "a credential is a table: `[credential.apns-prod]`";
        sheet.warn("credential", Origin::Default, "there is no credential to renew".into(), hint);
    }
    let config = Config {
        store: store?,
        store_key,
        store_old_key,
        store_password,
        store_ca,
        caches,
        store_ms,
        clock_url,
        seal_keys,
        listeners,
        credentials,
        callers,
        issuers,
        clients,
        tokens,
        verifiers,
        gates: gates.auth,
        injects: gates.inject,
        objects,
        artifacts: gates.artifact,
        metadata,
        files,
        policy,
        revocation,
        limits,
    };
    bindings::check(sheet, &config);
    Some(config)
}

fn store(sheet: &mut Sheet) -> Option<StoreUrl> {
    let home = sheet.home;
    let usual = match home {
        Home::Native => "sqlite:/var/lib/keyreeve/state.db",
        Home::Worker => "do:KEYREEVE",
    };
    let parse = |text: &str| parse::store_url(text, home);
    Scope::new(sheet, "store", "store").parsed_or("url", Some(usual), parse, ToString::to_string)
}

fn store_keys(sheet: &mut Sheet, store: Option<&StoreUrl>) -> (Option<SecretRef>, Option<SecretRef>) {
    let mut scope = Scope::new(sheet, "store", "store");
    let (key, old_key) = (scope.secret("key"), scope.secret("old_key"));
    let is_written = scope.is_written("key");
    match store {
        Some(StoreUrl::Remote(_)) if !is_written => scope.missing("key"),
        Some(StoreUrl::Sqlite(_) | StoreUrl::Postgres(_) | StoreUrl::Memory) if is_written => {
            scope.warn("key", "has no effect: only a register at an `https` address asks for it", "remove it");
        }
        _ => {}
    }
    if old_key.is_some() && !is_written {
        scope.fault("old_key", &Fault::new("is there without a `key`", "the key that nodes are to use is `key`"));
    }
    if old_key.is_some() && old_key == key {
        scope.fault("old_key", &Fault::new("is the same as `key`", "remove it, when all nodes have the new key"));
    }
    (key, old_key)
}

fn store_access(sheet: &mut Sheet, store: Option<&StoreUrl>) -> (Option<SecretRef>, Option<PathBuf>) {
    if cfg!(target_arch = "wasm32") {
        return (None, None);
    }
    let mut scope = Scope::new(sheet, "store", "store");
    let password = scope.secret("password");
    let authorities = scope.parsed("ca", via::file, |path| format!("file:{}", path.display()));
    if !matches!(store, None | Some(StoreUrl::Postgres(_))) {
        for name in ["password", "ca"] {
            if scope.is_written(name) {
                scope.warn(name, "has no effect: only a register at a `postgres:` address asks for it", "remove it");
            }
        }
    }
    (password, authorities)
}

fn caches(sheet: &mut Sheet) -> Vec<CacheTier> {
    if sheet.home == Home::Native {
        return Vec::new();
    }
    let mut scope = Scope::new(sheet, "store", "store");
    let Some(texts) = scope.texts("caches") else {
        scope.explain("caches", format!("[{}]", CacheTier::Cache), Origin::Default);
        return vec![CacheTier::Cache];
    };
    let mut caches: Vec<CacheTier> = Vec::with_capacity(texts.len());
    for (at, (text, origin)) in texts.iter().enumerate() {
        let tier = parse::cache(text).and_then(|tier| match caches.contains(&tier) {
            true => Err(Fault::new(format!("is there twice: `{tier}`"), "remove one")),
            false => Ok(tier),
        });
        match tier {
            Ok(tier) => caches.push(tier),
            Err(fault) => sheet.fault(&format!("store.caches[{at}]"), origin.clone(), &fault, None),
        }
    }
    caches
}

fn seals(
    sheet: &mut Sheet,
    keys: &[SecretRef],
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
    issuers: &BTreeMap<IssuerName, IssuerConfig>,
    tokens: &BTreeMap<String, FamilyConfig>,
) {
    let mut seen = BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let shown = show_secret(key);
        if !matches!(key, SecretRef::Literal(_)) && !seen.insert(shown.clone()) {
            let path = format!("seal.keys[{at}]");
            let origin = sheet.place("seal.keys");
            sheet.fault(&path, origin, &Fault::new(format!("is there twice: `{shown}`"), "remove one"), None);
        }
    }
    let needs = credentials.iter().find(|(_, credential)| matches!(credential.plan, Plan::Fleet(_)));
    let needs = needs.map(|(name, _)| name.as_str()).or(issuers.keys().next().map(IssuerName::as_str));
    let needs = needs.or(tokens.keys().next().map(String::as_str));
    if let Some(name) = needs
        && keys.is_empty()
        && !sheet.is_broken("seal")
        && !sheet.is_broken_in("seal")
    {
        let message = format!("`seal.keys` is missing: `{name}` is kept in the store, and only sealed");
        let hint = "for example `seal.keys = [\"file:/etc/keyreeve/seal.key\"]`";
        let origin = sheet.place("seal.keys");
        sheet.report("seal.keys", origin, message, hint);
    }
}

fn limits(sheet: &mut Sheet) -> Limits {
    let mut scope = Scope::new(sheet, "limits", "limits");
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Limits {
        body_bytes_max: size(scope.number("body")),
        request_ms_max: scope.number("request"),
        connections_max: size(scope.number("connections")),
        event_streams_max: size(scope.number("event_streams")),
    }
}

/// Where nobody says what a listener serves, it serves everything.
fn all_surfaces() -> String {
    let names: Vec<&str> = SURFACES.iter().map(|(name, _)| *name).collect();
    format!("[{}]", names.join(", "))
}

/// An issuer whose keys nobody can read signs for nobody.
fn served(sheet: &mut Sheet, listeners: &[Listener], issuers: &BTreeMap<IssuerName, IssuerConfig>) {
    let is_served = listeners.iter().any(|listener| listener.serve.contains(&Surface::Oauth2));
    if !issuers.is_empty() && !is_served {
        let message = "`issuer` has no effect: no listener serves `oauth2`, so nobody gets tokens or keys".to_owned();
        sheet.warn("issuer", sheet.place("issuer"), message, "add `oauth2` to `serve` of a listener");
    }
}

fn listeners(sheet: &mut Sheet) -> Vec<Listener> {
    let named = sheet.named("listener[]");
    if sheet.home == Home::Worker {
        return Vec::new();
    }
    if named.is_empty() {
        let listener = Listener {
            bind: Bind::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070)),
            serve: SURFACES.iter().map(|(_, surface)| *surface).collect(),
            tls: None,
        };
        let mut scope = Scope::new(sheet, "listener[0]", "listener[]");
        scope.explain("bind", "127.0.0.1:7070".into(), Origin::Default);
        scope.explain("serve", all_surfaces(), Origin::Default);
        return vec![listener];
    }
    let mut listeners: Vec<Listener> = Vec::with_capacity(named.len());
    for named in named {
        if let Some(listener) = listener(sheet, &named, &listeners) {
            listeners.push(listener);
        }
    }
    listeners
}

fn listener(sheet: &mut Sheet, named: &Named, others: &[Listener]) -> Option<Listener> {
    let mut scope = Scope::of(sheet, named, "listener[]");
    let serve_at = listened(&mut scope);
    let serve = match scope.texts("serve") {
        Some(texts) => {
            if texts.is_empty() {
                scope.fault(
                    "serve",
                    &Fault::new("must not be empty", "serve `api`, `metrics`, `gate` or several of them"),
                );
            }
            texts
                .iter()
                .filter_map(|(text, _)| SURFACES.iter().find(|(name, _)| name == text))
                .map(|(_, it)| *it)
                .collect()
        }
        None => {
            scope.explain("serve", all_surfaces(), Origin::Default);
            SURFACES.iter().map(|(_, surface)| *surface).collect()
        }
    };
    let has_tls = scope.is_written("tls");
    let tls = if has_tls { tls(&mut scope, serve_at.as_ref()) } else { None };
    let bind = serve_at?;
    let is_taken = |other: &Listener| match (&other.bind, &bind) {
        (Bind::Tcp(other), Bind::Tcp(mine)) => other == mine && mine.port() != 0,
        (other, mine) => other == mine,
    };
    if others.iter().any(is_taken) {
        scope
            .fault("bind", &Fault::new("is the address of another listener", "list all that it serves in one `serve`"));
    }
    Some(Listener { bind, serve, tls })
}

/// An address to listen on: local, or with TLS.
pub(super) fn listened(scope: &mut Scope<'_>) -> Option<Bind> {
    let bind = scope.parsed("bind", parse::bind, |bind| match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    });
    let allows_plaintext = scope.flag("allow_plaintext");
    let has_tls = scope.is_written("tls");
    let bind = bind?;
    if let Bind::Tcp(address) = &bind
        && !address.ip().is_loopback()
        && !allows_plaintext
        && !has_tls
    {
        scope.fault(
            "bind",
            &Fault::new(
                format!("is reachable from other machines without TLS: `{address}`"),
                "give it `tls`, bind to `127.0.0.1`, or say `allow_plaintext = true` where something else encrypts",
            ),
        );
    }
    Some(bind)
}

pub(super) fn tls(scope: &mut Scope<'_>, bind: Option<&Bind>) -> Option<TlsConfig> {
    if matches!(bind, Some(Bind::Unix(_))) {
        let fault = Fault::new("is for TCP", "the kernel says who is at the other end of a Unix socket: remove it");
        scope.fault("tls", &fault);
    }
    if scope.is_written("allow_plaintext") {
        scope.warn("allow_plaintext", "has no effect: the listener has `tls`", "remove it");
    }
    let mut tls = scope.inner("tls");
    let (certificate, key, client_ca) = (tls.secret("certificate"), tls.secret("key"), tls.secret("client_ca"));
    let crl = tls.secrets("crl");
    if !crl.is_empty() && client_ca.is_none() {
        tls.fault("crl", &Fault::new("does nothing without `client_ca`", "name the authorities whose lists these are"));
    }
    Some(TlsConfig { certificate: certificate?, key: key?, client_ca, crl })
}
