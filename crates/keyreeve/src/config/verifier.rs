//! Whose tokens are accepted.

use std::collections::BTreeMap;

use keyreeve_core::id::CredentialName;
use keyreeve_core::jwt::{Algorithm, Expected, Thumbprint, TokenType};

use super::inbound::{FetchConfig, KeysConfig, KeysUrl, VerifierConfig};
use super::parse;
use super::problem::{Fault, nearest, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::types::Home;
use super::via;

/// The most verifiers.
const VERIFIERS_MAX: usize = 256;
/// What a verifier with a secret expects where nobody says.
const USUAL_WITH_SECRET: Algorithm = Algorithm::Hs512;
/// Settings that only fetched keys have a use for.
const ONLY_FETCHED: [&str; 5] = ["cooldown", "fresh", "stale", "via", "ca"];
const JWKS_EXAMPLE: &str = "for example `jwks_url = \"https://tenant.auth0.com/.well-known/jwks.json\"`";

/// Reads all verifiers.
pub(super) fn all(sheet: &mut Sheet) -> BTreeMap<String, VerifierConfig> {
    let named = sheet.named("verifier.*");
    if named.len() > VERIFIERS_MAX {
        let fault = Fault::new(format!("has {} entries, the most is {VERIFIERS_MAX}", named.len()), "remove some");
        sheet.fault("verifier", sheet.place("verifier"), &fault, None);
        return BTreeMap::new();
    }
    let mut verifiers: BTreeMap<String, VerifierConfig> = BTreeMap::new();
    for named in named {
        check_name(sheet, &named, "verifier");
        let Some(verifier) = one(sheet, &named) else { continue };
        let twin = verifiers.iter().find(|(_, other)| overlap(&other.expected, &verifier.expected));
        if let Some((other, _)) = twin {
            let must = format!("and `audience` are also those of verifier {}", shown(other));
            let fault = Fault::new(must, "one token would be of both: merge them, or give each audiences of its own");
            Scope::of(sheet, &named, "verifier.*").fault("issuer", &fault);
        }
        verifiers.insert(named.key, verifier);
    }
    verifiers
}

/// Says what is wrong with a name of the user's for something that has no tenant.
pub(super) fn check_name(sheet: &mut Sheet, named: &Named, what: &str) {
    if CredentialName::parse(&named.key).is_ok_and(|name| name.tenant().is_none()) {
        return;
    }
    let message = format!("{} is not a name for a {what}", shown(&named.key));
    let hint = "a name has 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, and starts with a letter or digit";
    sheet.report(&named.path, named.origin.clone(), message, hint);
}

fn overlap(one: &Expected, other: &Expected) -> bool {
    let has = |list: &[String], wanted: &[String]| wanted.iter().any(|text| list.contains(text));
    has(one.issuers(), other.issuers()) && has(one.audiences(), other.audiences())
}

fn one(sheet: &mut Sheet, named: &Named) -> Option<VerifierConfig> {
    let mut scope = Scope::of(sheet, named, "verifier.*");
    let issuer = issuer(&mut scope);
    let audience = scope.texts("audience");
    let algorithms = algorithms(&mut scope);
    let typ = scope.parsed("typ", token_type, |typ| match typ {
        TokenType::Ordinary => "ordinary".into(),
        TokenType::AccessToken => "at+jwt".into(),
        TokenType::Exactly(typ) => typ.clone(),
    });
    let leeway_ms = scope.number("leeway");
    let pins = pins(&mut scope);
    let keys = keys(&mut scope, issuer.as_deref());
    let algorithms = fitting(&mut scope, algorithms?, keys.as_ref());
    let expected = Expected::new([issuer?], audience?.into_iter().map(|(text, _)| text));
    let expected = expected.and_then(|expected| expected.with_leeway_s(leeway_ms.div_ceil(1000)));
    let expected = match expected {
        Ok(expected) => expected.with_type(typ?),
        Err(wrong) => {
            scope.fault(
                "audience",
                &Fault::new(format!("cannot be used: {wrong}"), "name the services that its tokens are for"),
            );
            return None;
        }
    };
    Some(VerifierConfig { expected, algorithms, keys: keys?, pins: pins? })
}

fn issuer(scope: &mut Scope<'_>) -> Option<String> {
    scope.parsed(
        "issuer",
        |text| match text {
            "" => Err(Fault::plain("must not be empty: without it, every holder of a key could speak for every other")),
            text if text.trim() != text => Err(Fault::new(
                format!("starts or ends with a space: {}", shown(text)),
                "it is compared byte by byte with the `iss` of tokens",
            )),
            text => Ok(text.to_owned()),
        },
        Clone::clone,
    )
}

/// What is written about algorithms; none is written as an empty list.
fn algorithms(scope: &mut Scope<'_>) -> Option<Vec<Algorithm>> {
    let Some(texts) = scope.texts("algorithms") else {
        return (!scope.is_broken("algorithms")).then(Vec::new);
    };
    if texts.is_empty() {
        scope.fault("algorithms", &Fault::plain("must not be empty"));
        return None;
    }
    Some(texts.iter().filter_map(|(text, _)| Algorithm::named(text)).collect())
}

/// The algorithms that go with the keys. A secret and public keys together would let whoever reads a public key sign.
fn fitting(scope: &mut Scope<'_>, written: Vec<Algorithm>, keys: Option<&KeysConfig>) -> Vec<Algorithm> {
    let has_secret = matches!(keys, Some(KeysConfig::Secret(_)));
    if written.is_empty() {
        let usual: Vec<Algorithm> = match has_secret {
            true => vec![USUAL_WITH_SECRET],
            false => Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect(),
        };
        let shown: Vec<&str> = usual.iter().map(|algorithm| algorithm.as_str()).collect();
        scope.explain("algorithms", format!("[{}]", shown.join(", ")), super::problem::Origin::Default);
        return usual;
    }
    if keys.is_none() {
        return written;
    }
    let strange = written.iter().find(|algorithm| algorithm.is_symmetric() != has_secret);
    if let Some(strange) = strange {
        let fault = match has_secret {
            true => Fault::new(
                format!("must be of `HS256`, `HS384` and `HS512`, not `{strange}`: there is a `secret`"),
                "a secret signs nothing else; public keys go without `secret`",
            ),
            false => Fault::new(
                format!("must not hold `{strange}`: its key is a secret, and these keys are public"),
                "whoever reads a public key could sign with it; a shared secret is `secret = \"file:..\"`",
            ),
        };
        scope.fault("algorithms", &fault);
    }
    written
}

fn token_type(text: &str) -> Result<TokenType, Fault> {
    match text {
        "ordinary" => Ok(TokenType::Ordinary),
        "at+jwt" | "application/at+jwt" => Ok(TokenType::AccessToken),
        text if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            if let Some(near) = nearest(text, ["ordinary", "at+jwt"]) {
                let hint = format!("did you mean `{near}`?");
                return Err(Fault::new(format!("is {}, which is hardly a type", shown(text)), hint));
            }
            Ok(TokenType::Exactly(text.to_owned()))
        }
        text => Err(Fault::plain(format!("must be the `typ` of tokens, not {}", shown(text)))),
    }
}

fn pins(scope: &mut Scope<'_>) -> Option<Vec<Thumbprint>> {
    let mut pins = Vec::new();
    let mut is_whole = !scope.is_broken("pins");
    for (at, (text, origin)) in scope.texts("pins").unwrap_or_default().into_iter().enumerate() {
        match Thumbprint::parse(&text) {
            Some(pin) => pins.push(pin),
            None => {
                is_whole = false;
                let path = format!("{}[{at}]", scope.path("pins"));
                let fault = Fault::new(
                    format!("must be a thumbprint of 43 characters (RFC 7638, SHA-256), not {}", shown(&text)),
                    "it is made of the key alone, and is not its `kid`",
                );
                scope.sheet.fault(&path, origin, &fault, None);
            }
        }
    }
    is_whole.then_some(pins)
}

fn keys(scope: &mut Scope<'_>, issuer: Option<&str>) -> Option<KeysConfig> {
    let written: Vec<&str> = ["jwks_url", "keys", "secret"].into_iter().filter(|name| scope.is_written(name)).collect();
    if let [first, second, ..] = written.as_slice() {
        let hint = match *second {
            "secret" => "whoever reads a public key could sign with it where a secret is taken too: keep one of them",
            _ => "keep one of them",
        };
        scope.fault(second, &Fault::new(format!("and `{first}` are both there"), hint));
        return None;
    }
    match written.first().copied() {
        Some("secret") => {
            only_fetched(scope);
            if scope.is_written("pins") {
                let fault = Fault::new("are of public keys, and this key is a `secret`", "remove them");
                scope.fault("pins", &fault);
            }
            scope.secret("secret").map(KeysConfig::Secret)
        }
        Some("keys") => {
            only_fetched(scope);
            let keys = scope.secrets("keys");
            if keys.is_empty() && !scope.is_broken("keys") {
                scope.fault("keys", &Fault::new("must not be empty", "leave it out to fetch them from `issuer`"));
            }
            (!keys.is_empty()).then_some(KeysConfig::Held(keys))
        }
        Some(_) => {
            let home = scope.sheet.home;
            let url = scope.parsed(
                "jwks_url",
                |text| jwks_url(text, home),
                |url| parse::origin_of(url).unwrap_or_else(|| "(a service binding)".into()),
            );
            fetched(scope, url.map(KeysUrl::Jwks))
        }
        None => {
            let url = discovery(scope, issuer?);
            fetched(scope, url.map(KeysUrl::Discovery))
        }
    }
}

fn only_fetched(scope: &mut Scope<'_>) {
    for name in ONLY_FETCHED {
        if scope.is_written(name) {
            scope.warn(name, "has no effect: these keys are not fetched", "remove it");
        }
    }
}

fn fetched(scope: &mut Scope<'_>, from: Option<KeysUrl>) -> Option<KeysConfig> {
    let (cooldown_ms, fresh_ms, stale_ms) = (scope.number("cooldown"), scope.number("fresh"), scope.number("stale"));
    let via = via::read(scope);
    if fresh_ms < cooldown_ms {
        let (fresh, cooldown) = (super::units::show_duration(fresh_ms), super::units::show_duration(cooldown_ms));
        let must = format!("must not be shorter than `cooldown`: {fresh} is shorter than {cooldown}");
        scope.fault("fresh", &Fault::new(must, "keys are never fetched more often than `cooldown` allows"));
    }
    Some(KeysConfig::Fetched(FetchConfig { from: from?, via, cooldown_ms, fresh_ms, stale_ms }))
}

fn jwks_url(text: &str, home: Home) -> Result<String, Fault> {
    if text.starts_with("service:") {
        return parse::url(text, home);
    }
    parse::absolute(
        text,
        text,
        "would let anybody on the way there name the keys: it is",
        JWKS_EXAMPLE,
        "the keys of an issuer are public: no password is needed",
    )
}

/// Where the discovery document is: OpenID Connect Discovery 1.0, section 4.
fn discovery(scope: &mut Scope<'_>, issuer: &str) -> Option<String> {
    const EXAMPLE: &str = "an issuer by another name needs `jwks_url` or `keys`";
    let url =
        parse::absolute(issuer, issuer, "would let anybody on the way there name the keys: it is", EXAMPLE, EXAMPLE);
    let url = url.and_then(|url| match url.contains('?') {
        true => Err(Fault::new("must not hold a query", EXAMPLE)),
        false => Ok(format!("{}/.well-known/openid-configuration", url.strip_suffix('/').unwrap_or(&url))),
    });
    match url {
        Ok(url) => Some(url),
        Err(fault) => {
            scope.fault("issuer", &fault);
            None
        }
    }
}
