//! The credentials.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;
use keyreeve_core::time::Span;

use super::asked::{AssertionConfig, SignedAssertion};
use super::plan;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::sources;
use super::tree::join;
use super::types::{CredentialConfig, Home, Plan, SourceConfig, StoreUrl};
use super::via;
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
    Oauth2Client,
    Oauth2Refresh,
    TokenExchange,
    GithubInstallation,
    GoogleServiceAccount,
    AwsWebIdentity,
    GcpWorkloadIdentity,
    AzureFederated,
}

const FLAVOURS: [(&str, Flavour); 12] = [
    ("apns", Flavour::Apns),
    ("jwt", Flavour::Jwt),
    ("exec", Flavour::Exec),
    ("http", Flavour::Http),
    ("oauth2-client", Flavour::Oauth2Client),
    ("oauth2-refresh", Flavour::Oauth2Refresh),
    ("token-exchange", Flavour::TokenExchange),
    ("github-app", Flavour::GithubInstallation),
    ("google-service-account", Flavour::GoogleServiceAccount),
    ("aws-web-identity", Flavour::AwsWebIdentity),
    ("gcp-workload-identity", Flavour::GcpWorkloadIdentity),
    ("azure-federated", Flavour::AzureFederated),
];
const PRESETS: [(&str, Flavour); 2] =
    [("app-store-connect", Flavour::AppStoreConnect), ("github-app-jwt", Flavour::GithubApp)];

impl Flavour {
    /// Whether it sends requests itself.
    const fn sends(self) -> bool {
        self.is_called() && !matches!(self, Self::Exec)
    }

    /// Whether somebody else mints.
    pub(super) const fn is_called(self) -> bool {
        !matches!(self, Self::Apns | Self::Jwt | Self::AppStoreConnect | Self::GithubApp)
    }

    pub(super) fn name(self) -> &'static str {
        FLAVOURS.iter().chain(&PRESETS).find(|(_, flavour)| *flavour == self).map_or("", |(name, _)| *name)
    }
}

/// What a repeated mint brings, and costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated {
    pub(super) nature: Nature,
    /// A mint uses something up that cannot be used twice.
    pub(super) spends: bool,
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
    sign_assertions(sheet, &mut credentials);
    credentials
}

/// Gives every source that shows a signed assertion what the credential it names says.
fn sign_assertions(sheet: &mut Sheet, credentials: &mut BTreeMap<CredentialName, CredentialConfig>) {
    let signed: BTreeMap<_, _> = credentials
        .iter()
        .filter(|(_, credential)| matches!(credential.source, SourceConfig::Jwt { .. }))
        .map(|(name, credential)| {
            let (life_ms, backdate_ms) = match &credential.plan {
                Plan::Slot(slots) => (slots.life_ms, slots.backdate_ms),
                Plan::Fleet(rules) => (rules.life_ms, rules.backdate_ms),
            };
            (name.clone(), SignedAssertion { source: credential.source.clone(), life_ms, backdate_ms })
        })
        .collect();
    let others: Vec<_> = credentials.keys().cloned().collect();
    for (at, credential) in credentials.iter_mut() {
        let Some(AssertionConfig::Credential { name, signed: says }) = credential.source.assertion_mut() else {
            continue;
        };
        *says = signed.get(name).cloned().map(Box::new);
        if says.is_none() {
            let (must, hint) = if others.contains(name) {
                (
                    "does not sign: its source is not `jwt`",
                    "let an assertion be signed by a credential whose source is `jwt`, or read it: `file:PATH`",
                )
            } else {
                ("is not there", "add it: `[credential.NAME]` with `source = \"jwt\"`")
            };
            let path = format!("{}.params.assertion", join("credential", at.as_str()));
            let origin = sheet.place(&path);
            sheet.fault(&path, origin, &Fault::new(format!("names `{name}`, which {must}"), hint), None);
        }
    }
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
    let via = if flavour.sends() { via::read(&mut scope) } else { None };
    let source = sources::read(&mut scope, flavour);
    let nature = match (flavour, &source) {
        (Flavour::Exec, _) | (Flavour::Http, Some(SourceConfig::Http { is_idempotent: false, .. })) => Nature::Opaque,
        (Flavour::Http, _) => Nature::Idempotent,
        _ if flavour.is_called() => Nature::Opaque,
        _ => Nature::Deterministic,
    };
    let spends = matches!(&source, Some(SourceConfig::Oauth2Refresh(refresh)) if refresh.rotates);
    let plan = plan::read(&mut scope, flavour, Repeated { nature, spends }, store);
    if let (Some(source), Some(Plan::Fleet(rules))) = (&source, &plan) {
        check_default_life(&mut scope, source, rules.life_ms);
    }
    let keep = scope.keep("keep");
    let wait_ms = scope.number("wait");
    if wait_ms > WAIT_MS_USUAL {
        scope.warn(
            "wait",
            "is longer than 1800ms: clients of cloud SDKs give up after 2s and ask again",
            "leave it out, or shorten it",
        );
    }
    Some(CredentialConfig { source: source?, plan: plan?, keep, wait_ms, via })
}

/// What is assumed where an answer does not say is no longer than what is believed where it does.
fn check_default_life(scope: &mut Scope<'_>, source: &SourceConfig, life_ms: u64) {
    let assumed_ms = source.token_config().and_then(|token| token.default_life_ms).unwrap_or(0);
    let life = scope.path("life");
    if assumed_ms > life_ms && !scope.sheet.is_broken_in(&life) {
        let must = format!("must not be longer than `life.max`: {} is more than {}", Span(assumed_ms), Span(life_ms));
        scope.inner("params").fault("default_life", &Fault::new(must, "shorten it, or lengthen `life.max`"));
    }
}
