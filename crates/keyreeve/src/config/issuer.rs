//! Who signs tokens here.

use std::collections::BTreeMap;

use keyreeve_core::id::IssuerName;
use keyreeve_core::issuer::{KEYS_MAX, KeyRules};
use keyreeve_core::time::Span;

use super::parse;
use super::problem::{Fault, shown};
use super::scope::Scope;
use super::settings::ISSUER_ALGORITHMS;
use super::sheet::{Named, Sheet};

const SECOND: u64 = 1000;
const MAX_AGE_MS_USUAL: u64 = 5 * 60 * SECOND;
/// The nodes other than the last writer look for what is due within this share of the overlap, and within a minute.
const SPREAD_SHARE: u64 = 20;
const SPREAD_MS_MAX: u64 = 60 * SECOND;

/// One issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The `iss` of its tokens. Without a slash at its end.
    pub url: String,
    /// Who its tokens can be for; never empty.
    pub audience: Vec<String>,
    /// The numbers of its keys.
    pub rules: KeyRules,
    /// How often a node reads its record, in milliseconds.
    pub poll_ms: u64,
    /// For how long verifiers may keep its key set, in milliseconds.
    pub max_age_ms: u64,
}

/// Reads all issuers.
pub(super) fn all(sheet: &mut Sheet, store_ms: u64) -> BTreeMap<IssuerName, IssuerConfig> {
    let mut issuers: BTreeMap<IssuerName, IssuerConfig> = BTreeMap::new();
    for named in sheet.named("issuer.*") {
        let name = IssuerName::parse(&named.key);
        if let Err(error) = &name {
            let message = format!("{} is not a name for an issuer: {error}", shown(&named.key));
            sheet.report(&named.path, named.origin.clone(), message, "for example `[issuer.gateway]`");
        }
        let (Some(issuer), Ok(name)) = (one(sheet, &named, store_ms), name) else { continue };
        let other = issuers.iter().find(|(_, other)| other.url == issuer.url);
        if let Some((other, _)) = other {
            let fault = Fault::new(
                format!("is also that of issuer `{other}`"),
                "a verifier tells issuers apart by it: end it with `/issuer/NAME`",
            );
            Scope::of(sheet, &named, "issuer.*").fault("url", &fault);
        }
        issuers.insert(name, issuer);
    }
    if issuers.len() > 1 {
        for named in sheet.named("issuer.*") {
            let is_at_home = IssuerName::parse(&named.key)
                .ok()
                .and_then(|name| issuers.get(&name))
                .is_none_or(|issuer| issuer.url.ends_with(&format!("/issuer/{}", named.key)));
            if !is_at_home {
                let hint = format!("end it with `/issuer/{}`, or let a proxy put that before the path", named.key);
                let why = "is not where this node has the issuer's documents, as there are several issuers";
                Scope::of(sheet, &named, "issuer.*").warn("url", why, &hint);
            }
        }
    }
    issuers
}

fn one(sheet: &mut Sheet, named: &Named, store_ms: u64) -> Option<IssuerConfig> {
    let mut scope = Scope::of(sheet, named, "issuer.*");
    let url = scope.parsed("url", parse::issuer_url, Clone::clone);
    let audience = audience(&mut scope);
    let ttl_ms = scope.number("ttl");
    if !ttl_ms.is_multiple_of(SECOND) {
        let must = format!("must be whole seconds, not {}", Span(ttl_ms));
        scope.fault("ttl", &Fault::new(must, "the times in a token are whole seconds (RFC 7519 2)"));
    }
    let mut keys = scope.inner("keys");
    let algorithms: Vec<(&str, &str)> = ISSUER_ALGORITHMS.iter().map(|name| (*name, *name)).collect();
    let algorithm = keys.choice_or("alg", &algorithms, "EdDSA").to_owned();
    let rotate_ms = keys.number("rotate");
    let overlap_ms = keys.number("overlap");
    let stale_ms = keys.number_or("stale", overlap_ms);
    let poll_ms = keys.number("poll");
    let max_age_ms = keys.number_or("max_age", (overlap_ms / 2).min(MAX_AGE_MS_USUAL));
    let skew_ms = keys.number("skew");
    let spread_ms = (overlap_ms / SPREAD_SHARE).min(SPREAD_MS_MAX);
    let rules = KeyRules { algorithm, rotate_ms, overlap_ms, stale_ms, ttl_ms, skew_ms, spread_ms };
    let issuer = IssuerConfig { url: url?, audience: audience?, rules, poll_ms, max_age_ms };
    let (at, is_broken) = (keys.at.clone(), keys.sheet.is_broken(&keys.at));
    if !is_broken && !keys.sheet.is_broken_in(&at) {
        adds_up(&mut keys, &issuer, store_ms);
    }
    Some(issuer)
}

fn audience(scope: &mut Scope<'_>) -> Option<Vec<String>> {
    let texts = scope.texts("audience")?;
    if texts.is_empty() {
        let fault = Fault::new("must not be empty", "a token for nobody is a token for everybody: name its verifiers");
        scope.fault("audience", &fault);
        return None;
    }
    Some(texts.into_iter().map(|(text, _)| text).collect())
}

/// Whether the numbers of the keys keep what the phases of keys promise.
fn adds_up(keys: &mut Scope<'_>, issuer: &IssuerConfig, store_ms: u64) {
    let rules = &issuer.rules;
    let known_ms = issuer.max_age_ms.saturating_add(issuer.poll_ms).saturating_add(store_ms);
    if known_ms > rules.overlap_ms {
        let must = format!(
            "does not add up: max_age {} + poll {} + store.timeout {} = {} > overlap {}",
            Span(issuer.max_age_ms),
            Span(issuer.poll_ms),
            Span(store_ms),
            Span(known_ms),
            Span(rules.overlap_ms)
        );
        let hint = "a key would sign before every verifier can know it: lengthen `overlap`, or shorten `max_age`";
        keys.fault("overlap", &Fault::new(must, hint));
    }
    if rules.stale_ms > rules.overlap_ms {
        let must = format!("must be at most `overlap`: {} > {}", Span(rules.stale_ms), Span(rules.overlap_ms));
        let hint = "a node that is cut off would sign with a key whose successor has taken over";
        keys.fault("stale", &Fault::new(must, hint));
    }
    let least_ms = issuer.poll_ms.saturating_add(store_ms);
    if rules.stale_ms < least_ms {
        let must = format!(
            "must be at least poll {} + store.timeout {} = {}, not {}",
            Span(issuer.poll_ms),
            Span(store_ms),
            Span(least_ms),
            Span(rules.stale_ms)
        );
        keys.fault("stale", &Fault::new(must, "one slow answer would stop every signature: lengthen `stale`"));
    }
    let change_ms = rules.overlap_ms.saturating_add(rules.skew_ms);
    if rules.rotate_ms <= change_ms {
        let must = format!(
            "must be longer than overlap {} + skew {} = {}, not {}",
            Span(rules.overlap_ms),
            Span(rules.skew_ms),
            Span(change_ms),
            Span(rules.rotate_ms)
        );
        keys.fault("rotate", &Fault::new(must, "a key has to be known before it signs: lengthen `rotate`"));
        return;
    }
    // The next, the active, and those whose tokens live on.
    let over_ms = rules.ttl_ms.saturating_add(rules.skew_ms.saturating_mul(2));
    let count = over_ms.div_ceil(rules.rotate_ms).saturating_add(2);
    if count > KEYS_MAX as u64 {
        let must = format!(
            "is too short for tokens of {}: {count} keys would be needed at once, the most is {KEYS_MAX}",
            Span(rules.ttl_ms)
        );
        keys.fault("rotate", &Fault::new(must, "lengthen `rotate`, or shorten `ttl`"));
    }
}
