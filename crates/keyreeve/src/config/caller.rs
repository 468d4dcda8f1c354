//! Who may call.

use std::collections::{BTreeMap, BTreeSet};

use keyreeve_core::id::{CredentialName, IssuerName};
use keyreeve_core::token::is_target;

use super::access::FamilyConfig;
use super::issuer::IssuerConfig;
use super::parse;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::types::{Action, Bind, CallerConfig, CredentialConfig, Listener, Proof};

/// The most callers.
const CALLERS_MAX: usize = 4096;
const ACTIONS: [(&str, Action); 17] = [
    ("list", Action::List),
    ("token", Action::Token),
    ("report", Action::Report),
    ("renew", Action::Renew),
    ("resolve", Action::Resolve),
    ("history", Action::History),
    ("events", Action::Events),
    ("metrics", Action::Metrics),
    ("keys", Action::Keys),
    ("rotate", Action::Rotate),
    ("retire", Action::Retire),
    ("verify", Action::Verify),
    ("tokens", Action::Tokens),
    ("grant", Action::Grant),
    ("revoke", Action::Revoke),
    ("artifacts", Action::Artifacts),
    ("publish", Action::Publish),
];
/// What is done to issuers.
const ON_ISSUERS: [Action; 3] = [Action::Keys, Action::Rotate, Action::Retire];
/// What is done to the targets of access tokens.
const ON_TOKENS: [Action; 4] = [Action::Tokens, Action::Grant, Action::Artifacts, Action::Publish];

/// Reads all callers.
pub(super) fn all(
    sheet: &mut Sheet,
    listeners: &[Listener],
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
    issuers: &BTreeMap<IssuerName, IssuerConfig>,
    tokens: &BTreeMap<String, FamilyConfig>,
) -> BTreeMap<String, CallerConfig> {
    let named = sheet.named("caller.*");
    if named.len() > CALLERS_MAX {
        let fault =
            Fault::new(format!("has {} entries, the most is {CALLERS_MAX}", named.len()), "let callers share a key");
        sheet.fault("caller", sheet.place("caller"), &fault, None);
        return BTreeMap::new();
    }
    let mut callers: BTreeMap<String, CallerConfig> = BTreeMap::new();
    let mut proofs = BTreeMap::new();
    for named in named {
        let Some(caller) = one(sheet, &named, listeners, credentials, (issuers, tokens)) else { continue };
        let proof = match &caller.proof {
            Proof::KeySha256(hash) => ("key_sha256", hash.to_vec()),
            Proof::Uid(uid) => ("uid", uid.to_be_bytes().to_vec()),
        };
        let field = proof.0;
        if let Some(other) = proofs.insert(proof, named.key.clone()) {
            let fault = Fault::new(
                format!("is also that of caller {}", shown(&other)),
                "two callers cannot be told apart by it: merge them, or make another key",
            );
            Scope::of(sheet, &named, "caller.*").fault(field, &fault);
        }
        callers.insert(named.key, caller);
    }
    callers
}

fn one(
    sheet: &mut Sheet,
    named: &Named,
    listeners: &[Listener],
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
    (issuers, tokens): (&BTreeMap<IssuerName, IssuerConfig>, &BTreeMap<String, FamilyConfig>),
) -> Option<CallerConfig> {
    let is_name = CredentialName::parse(&named.key).is_ok_and(|name| name.tenant().is_none());
    if !is_name {
        let message = format!("{} is not a name for a caller", shown(&named.key));
        let hint = "a name has 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, and starts with a letter or digit";
        sheet.report(&named.path, named.origin.clone(), message, hint);
    }
    let mut scope = Scope::of(sheet, named, "caller.*");
    let hash = scope.parsed("key_sha256", parse::sha256, |hash| {
        hash.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}")) + ".."
    });
    let uid = scope.maybe_number("uid").and_then(|uid| u32::try_from(uid).ok());
    let is_hash_written = scope.is_written("key_sha256");
    let is_uid_written = scope.is_written("uid");
    if is_hash_written && is_uid_written {
        scope.fault(
            "uid",
            &Fault::new("and `key_sha256` are both there", "a caller proves itself in one way: remove one"),
        );
    }
    if !is_hash_written && !is_uid_written {
        scope.missing("key_sha256");
    }
    if uid.is_some() && !listeners.iter().any(|listener| matches!(listener.bind, Bind::Unix(_))) {
        scope.warn(
            "uid",
            "proves nothing: no listener is on a Unix socket",
            "add `[[listener]]` with `bind = \"unix:/run/keyreeve.sock\"`",
        );
    }
    let can = actions(&mut scope);
    let patterns = patterns(&mut scope, &can, credentials);
    let issuers = issuer_patterns(&mut scope, &can, issuers);
    let tokens = token_patterns(&mut scope, &can, tokens);
    let proof = hash.map(Proof::KeySha256).or(uid.map(Proof::Uid))?;
    Some(CallerConfig { proof, can, credentials: patterns, issuers, tokens })
}

fn actions(scope: &mut Scope<'_>) -> BTreeSet<Action> {
    let Some(texts) = scope.texts("can") else { return BTreeSet::new() };
    if texts.is_empty() {
        scope.fault(
            "can",
            &Fault::new("must not be empty", "name what the caller may do: `can = [\"token\", \"report\"]`"),
        );
    }
    texts
        .iter()
        .filter_map(|(text, _)| ACTIONS.iter().find(|(name, _)| name == text))
        .map(|(_, action)| *action)
        .collect()
}

fn patterns(
    scope: &mut Scope<'_>,
    can: &BTreeSet<Action>,
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
) -> Vec<String> {
    let is_elsewhere = |action: &Action| {
        ON_ISSUERS.contains(action)
            || ON_TOKENS.contains(action)
            || matches!(action, Action::Metrics | Action::Verify | Action::Revoke)
    };
    let needs_some = can.iter().any(|action| !is_elsewhere(action));
    let Some(texts) = scope.texts("credentials") else {
        if needs_some && !scope.is_written("credentials") {
            scope.missing("credentials");
        }
        return Vec::new();
    };
    for (at, (text, origin)) in texts.iter().enumerate() {
        let path = format!("{}[{at}]", scope.path("credentials"));
        let start = text.strip_suffix('*');
        let is_right = match start {
            Some(start) => {
                start.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte))
            }
            None => CredentialName::parse(text).is_ok(),
        };
        if !is_right {
            let fault = Fault::new(
                format!(
                    "must be the name of a credential, or a start of names with one `*` at its end, not {}",
                    shown(text)
                ),
                "for example `credentials = [\"apns-*\"]`",
            );
            scope.sheet.fault(&path, origin.clone(), &fault, None);
            continue;
        }
        let fits = |name: &CredentialName| match start {
            Some(start) => name.as_str().starts_with(start),
            None => name.as_str() == text,
        };
        if !credentials.keys().any(fits) {
            let message = format!("`{path}` fits no credential: {}", shown(text));
            scope.sheet.warn(&path, origin.clone(), message, "credentials have the names under `[credential.NAME]`");
        }
    }
    texts.into_iter().map(|(text, _)| text).collect()
}

fn issuer_patterns(
    scope: &mut Scope<'_>,
    can: &BTreeSet<Action>,
    issuers: &BTreeMap<IssuerName, IssuerConfig>,
) -> Vec<String> {
    let needs_some = can.iter().any(|action| ON_ISSUERS.contains(action));
    let Some(texts) = scope.texts("issuers") else {
        if needs_some && !scope.is_written("issuers") {
            scope.missing("issuers");
        }
        return Vec::new();
    };
    for (at, (text, origin)) in texts.iter().enumerate() {
        let path = format!("{}[{at}]", scope.path("issuers"));
        let start = text.strip_suffix('*');
        if start.is_none() && IssuerName::parse(text).is_err() {
            let must = format!(
                "must be the name of an issuer, or a start of names with one `*` at its end, not {}",
                shown(text)
            );
            let fault = Fault::new(must, "for example `issuers = [\"gateway\"]`");
            scope.sheet.fault(&path, origin.clone(), &fault, None);
            continue;
        }
        let fits = |name: &IssuerName| match start {
            Some(start) => name.as_str().starts_with(start),
            None => name.as_str() == text,
        };
        if !issuers.keys().any(fits) {
            let message = format!("`{path}` fits no issuer: {}", shown(text));
            scope.sheet.warn(&path, origin.clone(), message, "issuers have the names under `[issuer.NAME]`");
        }
    }
    texts.into_iter().map(|(text, _)| text).collect()
}

fn token_patterns(
    scope: &mut Scope<'_>,
    can: &BTreeSet<Action>,
    families: &BTreeMap<String, FamilyConfig>,
) -> Vec<String> {
    let needs_some = can.iter().any(|action| ON_TOKENS.contains(action));
    let Some(texts) = scope.texts("tokens") else {
        if needs_some && !scope.is_written("tokens") {
            scope.missing("tokens");
        }
        return Vec::new();
    };
    for (at, (text, origin)) in texts.iter().enumerate() {
        let path = format!("{}[{at}]", scope.path("tokens"));
        let (start, is_whole) = text.strip_suffix('*').map_or((text.as_str(), true), |start| (start, false));
        let target = start.split_once('/').map(|(_, target)| target);
        if start.contains('*') || (is_whole && !target.is_some_and(is_target)) {
            let must =
                format!("must be `FAMILY/TARGET`, or the start of such with one `*` at its end, not {}", shown(text));
            scope.sheet.fault(&path, origin.clone(), &Fault::new(must, "for example `tokens = [\"cdn/*\"]`"), None);
            continue;
        }
        let fits = |family: &String| match start.split_once('/') {
            Some((own, _)) => family == own,
            None => family.starts_with(start),
        };
        if !families.keys().any(fits) {
            let message = format!("`{path}` fits no family of access tokens: {}", shown(text));
            scope.sheet.warn(&path, origin.clone(), message, "families have the names under `[token.NAME]`");
        }
    }
    texts.into_iter().map(|(text, _)| text).collect()
}
