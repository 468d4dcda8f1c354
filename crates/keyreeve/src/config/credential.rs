//! The credentials.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;

use super::plan;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::sources;
use super::types::{CredentialConfig, Home, SourceConfig, StoreUrl};
use crate::source::Nature;

/// What local callers wait at most: boto3 and the like give up after 2s.
const WAIT_MS_USUAL: u64 = 1800;

/// A source, presets counted apart: what decides defaults and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Apns,
    Jwt,
    AppStoreConnect,
    GithubApp,
    Exec,
    Http,
}

const FLAVOURS: [(&str, Flavour); 4] =
    [("apns", Flavour::Apns), ("jwt", Flavour::Jwt), ("exec", Flavour::Exec), ("http", Flavour::Http)];
const PRESETS: [(&str, Flavour); 2] =
    [("app-store-connect", Flavour::AppStoreConnect), ("github-app-jwt", Flavour::GithubApp)];

impl Flavour {
    pub(super) fn name(self) -> &'static str {
        FLAVOURS.iter().chain(&PRESETS).find(|(_, flavour)| *flavour == self).map_or("", |(name, _)| *name)
    }
}

/// Reads all credentials.
pub(super) fn all(sheet: &mut Sheet, store: Option<&StoreUrl>) -> BTreeMap<CredentialName, CredentialConfig> {
    let mut credentials = BTreeMap::new();
    for named in sheet.named("credential.*") {
        let name = CredentialName::parse(&named.key);
        if let Err(error) = &name {
            let message = format!("{} is not a name for a credential: {error}", shown(&named.key));
            let hint = "for example `[credential.apns-prod]`, or `[credential.\"acme/apns-prod\"]`";
            sheet.report(&named.path, named.origin.clone(), message, hint);
        }
        if let (Some(credential), Ok(name)) = (one(sheet, &named, store), name) {
            credentials.insert(name, credential);
        }
    }
    credentials
}

fn one(sheet: &mut Sheet, named: &Named, store: Option<&StoreUrl>) -> Option<CredentialConfig> {
    let mut scope = Scope::of(sheet, named, "credential.*");
    let mut flavour = scope.choice("source", &FLAVOURS)?;
    if flavour == Flavour::Jwt && scope.is_written("preset") {
        flavour = scope.choice("preset", &PRESETS)?;
    }
    if flavour == Flavour::Exec && scope.sheet.home == Home::Worker {
        let fault = Fault::new(
            "cannot be `exec` on a Worker: there is nothing to run programs with",
            "let a service mint: `source = \"http\"`, with `url = \"service:NAME/path\"` for a Worker of yours",
        );
        scope.fault("source", &fault);
        return None;
    }
    let source = sources::read(&mut scope, flavour);
    let nature = match (flavour, &source) {
        (Flavour::Exec, _) | (Flavour::Http, Some(SourceConfig::Http { is_idempotent: false, .. })) => Nature::Opaque,
        (Flavour::Http, _) => Nature::Idempotent,
        _ => Nature::Deterministic,
    };
    let plan = plan::read(&mut scope, flavour, nature, store);
    let keep = scope.keep("keep");
    let wait_ms = scope.number("wait");
    if wait_ms > WAIT_MS_USUAL {
        scope.warn(
            "wait",
            "is longer than 1800ms: clients of cloud SDKs give up after 2s and ask again",
            "leave it out, or shorten it",
        );
    }
    Some(CredentialConfig { source: source?, plan: plan?, keep, wait_ms })
}
