//! Who may ask an issuer for tokens, or about them.

use std::collections::{BTreeMap, BTreeSet};

use keyreeve_core::id::IssuerName;
use serde_json::{Map, Value};

use super::issuer::IssuerConfig;
use super::parse;
use super::problem::{Fault, nearest, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::types::{Listener, SecretRef, Surface};

/// The most clients.
const CLIENTS_MAX: usize = 4096;
/// How a secret gets into the configuration: as its hash.
const NEW_CLIENT: &str =
    "`keyreeve config new-client NAME` makes a secret, and prints the `secret_sha256` that belongs here";
const CERTIFICATE_NAME: &str = "for example \"dns:orders.internal\", \"uri:spiffe://example.org/orders\" or \"subject:CN=orders,O=Example\" (RFC 4514)";
const GRANTS: [(&str, Grant); 5] = [
    ("client-credentials", Grant::ClientCredentials),
    ("token-exchange", Grant::TokenExchange),
    ("jwt-bearer", Grant::JwtBearer),
    ("introspect", Grant::Introspect),
    ("revoke", Grant::Revoke),
];
/// Claims that the issuer says itself.
pub const OWN_CLAIMS: [&str; 12] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "act", "may_act", "cnf"];

/// Somebody who may ask an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The issuer that knows it.
    pub issuer: IssuerName,
    /// How it proves who it is.
    pub proof: ClientProof,
    /// What it may do.
    pub can: BTreeSet<Grant>,
    /// The scopes that its tokens can have.
    pub scopes: Vec<String>,
    /// Who its tokens can be for; never empty.
    pub audience: Vec<String>,
    /// Claims that its own tokens have besides.
    pub claims: Map<String, Value>,
    /// Whose tokens it may exchange, or bring as an assertion.
    pub trusts: Vec<Trusted>,
    /// For whom it may ask with an assertion of its own: names, or patterns with one trailing `*`.
    pub subjects: Vec<String>,
}

/// How a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// A secret, by its SHA-256.
    SecretSha256([u8; 32]),
    /// Assertions signed with one of these keys: where the JWKS is.
    Jwks(SecretRef),
    /// A client certificate, by the SHA-256 of its DER.
    CertificateSha256([u8; 32]),
    /// A client certificate, by a name that an authority of the listener vouches for: `dns:..`, `uri:..` or `subject:..`.
    CertificateName(String),
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// RFC 6749 4.4.
    ClientCredentials,
    /// RFC 8693.
    TokenExchange,
    /// RFC 7523 2.1.
    JwtBearer,
    /// RFC 7662.
    Introspect,
    /// RFC 7009.
    Revoke,
}

impl Grant {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        GRANTS.iter().find(|(_, grant)| *grant == self).map_or("", |(name, _)| *name)
    }
}

/// Whose tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trusted {
    /// `issuer:NAME`: an issuer of this fleet.
    Issuer(IssuerName),
    /// `verifier:NAME`: somebody else.
    Verifier(String),
}

/// Reads all clients.
pub(super) fn all(
    sheet: &mut Sheet,
    (issuers, listeners): (&BTreeMap<IssuerName, IssuerConfig>, &[Listener]),
    verifiers: &BTreeSet<String>,
) -> BTreeMap<String, ClientConfig> {
    let named = sheet.named("client.*");
    if named.len() > CLIENTS_MAX {
        let fault = Fault::new(
            format!("has {} entries, the most is {CLIENTS_MAX}", named.len()),
            "let replicas of one service be one client",
        );
        sheet.fault("client", sheet.place("client"), &fault, None);
        return BTreeMap::new();
    }
    let mut clients = BTreeMap::new();
    let mut secrets: BTreeMap<[u8; 32], String> = BTreeMap::new();
    for named in named {
        let Some(client) = one(sheet, &named, (issuers, listeners), verifiers) else { continue };
        if let ClientProof::SecretSha256(hash) = &client.proof
            && let Some(other) = secrets.insert(*hash, named.key.clone())
        {
            let fault = Fault::new(
                format!("is also that of client {}", shown(&other)),
                "one client could speak for the other: make another secret",
            );
            Scope::of(sheet, &named, "client.*").fault("secret_sha256", &fault);
        }
        clients.insert(named.key, client);
    }
    clients
}

fn one(
    sheet: &mut Sheet,
    named: &Named,
    (issuers, listeners): (&BTreeMap<IssuerName, IssuerConfig>, &[Listener]),
    verifiers: &BTreeSet<String>,
) -> Option<ClientConfig> {
    if IssuerName::parse(&named.key).is_err() {
        let message = format!("{} is not a name for a client", shown(&named.key));
        let hint = "a name has 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, and starts with a letter or digit";
        sheet.report(&named.path, named.origin.clone(), message, hint);
    }
    let mut scope = Scope::of(sheet, named, "client.*");
    let proof = proof(&mut scope);
    if let Some(proof) = &proof {
        is_asked_for(&mut scope, proof, listeners);
    }
    let issuer = scope.parsed("issuer", |text| known_issuer(text, issuers), ToString::to_string);
    let can = can(&mut scope);
    let scopes = texts(&mut scope, "scopes").unwrap_or_default();
    let claims = claims(&mut scope);
    let audience = audience(&mut scope, issuer.as_ref().and_then(|issuer| issuers.get(issuer)));
    let trusts = trusts(&mut scope, issuer.as_ref(), &can, issuers, verifiers);
    let subjects = subjects(&mut scope, &can, proof.as_ref());
    Some(ClientConfig { issuer: issuer?, proof: proof?, can, scopes, audience: audience?, claims, trusts, subjects })
}

fn proof(scope: &mut Scope<'_>) -> Option<ClientProof> {
    const WAYS: [&str; 4] = ["secret_sha256", "jwks", "certificate_sha256", "certificate_name"];
    let short =
        |hash: &[u8; 32]| hash.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}")) + "..";
    let hash = |text: &str| parse::sha256(text).map_err(|fault| Fault::new(fault.must, NEW_CLIENT));
    let secret = scope.parsed("secret_sha256", hash, short).map(ClientProof::SecretSha256);
    let jwks = scope.secret("jwks").map(ClientProof::Jwks);
    let certificate = scope.parsed("certificate_sha256", parse::sha256, short).map(ClientProof::CertificateSha256);
    let name = scope.parsed("certificate_name", certificate_name, Clone::clone).map(ClientProof::CertificateName);
    let written: Vec<&str> = WAYS.into_iter().filter(|way| scope.is_written(way)).collect();
    match written.as_slice() {
        [] => scope.missing("secret_sha256"),
        [first, second, ..] => {
            let fault = Fault::new(
                format!("and `{first}` are both there"),
                "a client proves itself in one way, or the weaker one decides: remove one",
            );
            scope.fault(second, &fault);
        }
        _ => {}
    }
    secret.or(jwks).or(certificate).or(name)
}

/// A certificate that no listener asks for proves nothing.
fn is_asked_for(scope: &mut Scope<'_>, proof: &ClientProof, listeners: &[Listener]) {
    let mut tls = listeners.iter().filter(|it| it.serve.contains(&Surface::Oauth2)).filter_map(|it| it.tls.as_ref());
    match proof {
        ClientProof::CertificateSha256(_) if tls.next().is_none() => scope.warn(
            "certificate_sha256",
            "proves nothing: no listener that serves `oauth2` has `tls`",
            "add `tls = { certificate = .., key = .. }` to it",
        ),
        ClientProof::CertificateName(_) if !tls.any(|tls| tls.client_ca.is_some()) => scope.warn(
            "certificate_name",
            "proves nothing: no listener that serves `oauth2` has `tls.client_ca`",
            "name there the authority that signs the certificates of clients",
        ),
        _ => {}
    }
}

/// RFC 8705 2.1.2: one name of a certificate, of one kind.
fn certificate_name(text: &str) -> Result<String, Fault> {
    let must = |what: &str| Fault::new(format!("{what}: {}", shown(text)), CERTIFICATE_NAME);
    let (kind, name) = text.split_once(':').ok_or_else(|| must("must say which kind of name it is"))?;
    let is_kind = matches!(kind, "dns" | "uri" | "subject");
    let is_name = !name.is_empty() && name.trim() == name && !name.contains('*');
    match (is_kind, is_name) {
        (true, true) => Ok(text.to_owned()),
        (true, false) => Err(must("must be one name, without patterns")),
        (false, _) => Err(must("must start with `dns:`, `uri:` or `subject:`")),
    }
}

fn known_issuer(text: &str, issuers: &BTreeMap<IssuerName, IssuerConfig>) -> Result<IssuerName, Fault> {
    let known = issuers.get_key_value(text).map(|(name, _)| name.clone());
    known.ok_or_else(|| {
        let names: Vec<&str> = issuers.keys().map(IssuerName::as_str).collect();
        let hint = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "issuers have the names under `[issuer.NAME]`".to_owned(),
        };
        Fault::new(format!("names no issuer: {}", shown(text)), hint)
    })
}

fn can(scope: &mut Scope<'_>) -> BTreeSet<Grant> {
    let Some(texts) = scope.texts("can") else { return BTreeSet::new() };
    if texts.is_empty() {
        let fault = Fault::new("must not be empty", "name what the client may do: `can = [\"client-credentials\"]`");
        scope.fault("can", &fault);
    }
    texts.iter().filter_map(|(text, _)| GRANTS.iter().find(|(name, _)| name == text)).map(|(_, grant)| *grant).collect()
}

fn texts(scope: &mut Scope<'_>, name: &str) -> Option<Vec<String>> {
    Some(scope.texts(name)?.into_iter().map(|(text, _)| text).collect())
}

fn claims(scope: &mut Scope<'_>) -> Map<String, Value> {
    let claims = scope.json("claims").unwrap_or_default();
    for name in OWN_CLAIMS.into_iter().filter(|name| claims.contains_key(*name)) {
        let fault = Fault::new(format!("must not say `{name}`"), "the issuer says that itself");
        scope.fault("claims", &fault);
    }
    claims
}

fn audience(scope: &mut Scope<'_>, issuer: Option<&IssuerConfig>) -> Option<Vec<String>> {
    let Some(written) = texts(scope, "audience") else { return Some(issuer?.audience.clone()) };
    if written.is_empty() {
        scope.fault("audience", &Fault::new("must not be empty", "leave it out, or name who its tokens are for"));
        return None;
    }
    let there_is = &issuer?.audience;
    for text in written.iter().filter(|text| !there_is.contains(text)) {
        let fault = Fault::new(
            format!("is not an audience of its issuer: {}", shown(text)),
            "add it to `audience` of the issuer, which says who its tokens can be for",
        );
        scope.fault("audience", &fault);
    }
    Some(written)
}

fn trusts(
    scope: &mut Scope<'_>,
    issuer: Option<&IssuerName>,
    can: &BTreeSet<Grant>,
    issuers: &BTreeMap<IssuerName, IssuerConfig>,
    verifiers: &BTreeSet<String>,
) -> Vec<Trusted> {
    let Some(written) = texts(scope, "trusts") else {
        let is_exchanging = can.contains(&Grant::TokenExchange);
        return issuer.filter(|_| is_exchanging).cloned().map(Trusted::Issuer).into_iter().collect();
    };
    let mut trusts = Vec::with_capacity(written.len());
    for text in &written {
        let trusted = match text.split_once(':') {
            Some(("issuer", name)) => issuers.get_key_value(name).map(|(name, _)| Trusted::Issuer(name.clone())),
            Some((_, name)) => verifiers.contains(name).then(|| Trusted::Verifier(name.to_owned())),
            None => None,
        };
        match trusted {
            Some(trusted) => trusts.push(trusted),
            None => {
                let fault = Fault::new(
                    format!("names nobody: {}", shown(text)),
                    "they have the names under `[issuer.NAME]` and `[verifier.NAME]`",
                );
                scope.fault("trusts", &fault);
            }
        }
    }
    trusts
}

fn subjects(scope: &mut Scope<'_>, can: &BTreeSet<Grant>, proof: Option<&ClientProof>) -> Vec<String> {
    let subjects = texts(scope, "subjects").unwrap_or_default();
    if subjects.is_empty() {
        return subjects;
    }
    if !can.contains(&Grant::JwtBearer) {
        scope.warn("subjects", "has no effect without `jwt-bearer`", "remove it, or add `jwt-bearer` to `can`");
    }
    if proof.is_some_and(|proof| !matches!(proof, ClientProof::Jwks(_))) {
        let fault = Fault::new("needs `jwks`", "an assertion is checked with the client's own keys");
        scope.fault("subjects", &fault);
    }
    subjects
}
