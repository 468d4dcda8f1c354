//! What each source has to know.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::asked;
use super::credential::Flavour;
use super::parse;
use super::problem::{Fault, Origin, nearest, shown};
use super::scope::Scope;
use super::tree::join;
use super::types::{Algorithm, HttpMapping, SecretRef, SourceConfig};
use super::value::is_variable;

const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("ES256", Algorithm::Es256),
    ("EdDSA", Algorithm::EdDsa),
    ("RS256", Algorithm::Rs256),
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
];
/// What stands for a value of each mint in a claim.
const CLAIM_PLACEHOLDERS: [&str; 4] = ["iat", "exp", "jti", "generation"];
/// What stands for a value of each mint in a request.
const REQUEST_PLACEHOLDERS: [&str; 3] = ["generation", "idempotency_key", "expires_at"];
/// Variables of keyreeve's own, which a script has no business with.
const OWN_VARIABLES: &str = "KEYREEVE_";
/// Headers whose value is a secret.
const SECRET_HEADERS: [&str; 7] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-vault-token"];
/// Headers that the client writes itself.
const OWN_HEADERS: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect", "idempotency-key"];

/// Reads the settings of one source.
pub(super) fn read(scope: &mut Scope<'_>, flavour: Flavour) -> Option<SourceConfig> {
    match flavour {
        Flavour::Apns => apns(scope),
        Flavour::Jwt => jwt(scope),
        Flavour::AppStoreConnect => app_store_connect(scope),
        Flavour::GithubApp => github_app(scope),
        Flavour::Exec => exec(scope),
        Flavour::Http => http(scope),
        _ => asked::read(scope, flavour),
    }
}

fn apns(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let team_id = params.parsed("team_id", parse::apple_id, Clone::clone);
    let key_id = params.parsed("key_id", parse::apple_id, Clone::clone);
    Some(SourceConfig::Apns { key: key?, team_id: team_id?, key_id: key_id? })
}

fn jwt(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let algorithm = params.choice("alg", &ALGORITHMS);
    let header = params.json("header").unwrap_or_default();
    for name in ["alg", "crit", "b64"].into_iter().filter(|name| header.contains_key(*name)) {
        // RFC 7515 4.1.11, RFC 7797: whoever reads `crit` or `b64` has to do something that the signer does not do.
        let hint = if name == "alg" { "the algorithm is `params.alg`" } else { "remove it" };
        params.fault("header", &Fault::new(format!("must not hold `{name}`"), hint));
    }
    let claims = params.json("claims");
    if let Some(claims) = &claims {
        check_claims(&mut params, claims);
    }
    Some(SourceConfig::Jwt { key: key?, algorithm: algorithm?, header, claims: claims? })
}

fn check_claims(params: &mut Scope<'_>, claims: &Map<String, Json>) {
    let mut found = Vec::new();
    claims.iter().for_each(|(name, value)| strange_placeholders(name, value, &mut found));
    for (name, placeholder) in found {
        let what =
            format!("holds {} in {}, which stands for nothing", shown(&format!("{{{placeholder}}}")), shown(&name));
        params.fault("claims", &Fault::new(what, placeholder_hint(&placeholder, &CLAIM_PLACEHOLDERS)));
    }
    for (name, placeholder) in [("iat", "{iat}"), ("exp", "{exp}")] {
        let is_fixed = claims.get(name).is_some_and(|value| match value {
            // Another placeholder, or a misspelt one, has been named already.
            Json::String(text) => text != placeholder && placeholders(text).next().is_none(),
            _ => true,
        });
        if is_fixed {
            let must = format!("must hold `{name} = \"{placeholder}\"`, not a fixed time");
            params.fault("claims", &Fault::new(must, "a fixed time is wrong after a while"));
        }
    }
    if claims.is_empty() {
        params.fault("claims", &Fault::plain("must not be empty"));
    } else if !claims.contains_key("exp") {
        params.warn("claims", "hold no `exp`: whoever gets such a token may use it for ever", "add `exp = \"{exp}\"`");
    }
}

/// Names in braces that are not placeholders of claims, with the claim they are in.
fn strange_placeholders(claim: &str, value: &Json, found: &mut Vec<(String, String)>) {
    match value {
        Json::String(text) => {
            let strange = placeholders(text).filter(|name| !CLAIM_PLACEHOLDERS.contains(name));
            found.extend(strange.map(|name| (claim.to_owned(), name.to_owned())));
        }
        Json::Array(items) => items.iter().for_each(|item| strange_placeholders(claim, item, found)),
        Json::Object(map) => map.values().for_each(|item| strange_placeholders(claim, item, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The names of a text's placeholders. Only `{`, lower-case letters or `_`, `}` is one, so that JSON needs no escapes.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |name: &&str| {
        (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    text.split('{').skip(1).filter_map(|after| after.split_once('}').map(|(name, _)| name)).filter(is_name)
}

fn placeholder_hint(placeholder: &str, known: &[&str]) -> String {
    match nearest(placeholder, known.iter().copied()) {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => {
            format!("there are {}", known.iter().map(|name| format!("`{{{name}}}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Checks the placeholders of a part of a request. The text may hold a secret, so a strange name is not repeated.
fn check_template(scope: &mut Scope<'_>, field: &str, text: &str) {
    if let Some(strange) = placeholders(text).find(|name| !REQUEST_PLACEHOLDERS.contains(name)) {
        let hint = placeholder_hint(strange, &REQUEST_PLACEHOLDERS);
        scope.fault(field, &Fault::new("holds a placeholder that stands for nothing (the value is not shown)", hint));
    }
}

fn app_store_connect(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let issuer_id = params.parsed("issuer_id", issuer_id, Clone::clone);
    let key_id = params.parsed("key_id", parse::apple_id, Clone::clone);
    let scopes = params.texts("scope");
    let (issuer_id, key_id) = (issuer_id?, key_id?);
    let header = texts([("kid", key_id), ("typ", "JWT".into())]);
    let mut claims = texts([
        ("iss", issuer_id),
        ("iat", "{iat}".into()),
        ("exp", "{exp}".into()),
        ("aud", "appstoreconnect-v1".into()),
    ]);
    if let Some(scopes) = scopes {
        claims.insert("scope".into(), scopes.into_iter().map(|(scope, _)| Json::String(scope)).collect());
    }
    preset(&mut params, "app-store-connect", "ES256", &header, &claims);
    Some(SourceConfig::Jwt { key: key?, algorithm: Algorithm::Es256, header, claims })
}

fn github_app(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let key = scope.secret("key");
    let mut params = scope.inner("params");
    let app_id = params.parsed("app_id", app_id, Clone::clone)?;
    let header = texts([("typ", "JWT".into())]);
    let claims = texts([("iat", "{iat}".into()), ("exp", "{exp}".into()), ("iss", app_id)]);
    preset(&mut params, "github-app-jwt", "RS256", &header, &claims);
    Some(SourceConfig::Jwt { key: key?, algorithm: Algorithm::Rs256, header, claims })
}

fn texts<const N: usize>(members: [(&str, String); N]) -> Map<String, Json> {
    members.into_iter().map(|(name, value)| (name.to_owned(), Json::String(value))).collect()
}

fn preset(
    params: &mut Scope<'_>,
    name: &'static str,
    alg: &str,
    header: &Map<String, Json>,
    claims: &Map<String, Json>,
) {
    let show = |map: &Map<String, Json>| serde_json::to_string(map).unwrap_or_default();
    params.explain("alg", alg.to_owned(), Origin::Preset(name));
    params.explain("header", show(header), Origin::Preset(name));
    params.explain("claims", show(claims), Origin::Preset(name));
}

fn issuer_id(text: &str) -> Result<String, Fault> {
    if text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Ok(text.to_owned());
    }
    Err(Fault::plain(format!("must be a UUID, not {}", shown(text))))
}

fn app_id(text: &str) -> Result<String, Fault> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Fault::plain(format!("must be the app id or the client id of the app, not {}", shown(text))))
}

fn exec(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let command = scope.texts("command");
    if let Some(command) = &command {
        check_command(scope, command);
    }
    let pass = scope.texts("pass").unwrap_or_default();
    for (at, (name, origin)) in pass.iter().enumerate() {
        if let Some(must) = strange_variable(name) {
            let path = format!("{}[{at}]", scope.path("pass"));
            scope.sheet.fault(&path, origin.clone(), &Fault::new(must, "for example `pass = [\"PATH\"]`"), None);
        }
    }
    let secrets = scope.secret_map("secrets");
    for (name, _) in &secrets {
        if let Some(must) = strange_variable(name) {
            let path = join(&scope.path("secrets"), name);
            let origin = scope.sheet.place(&scope.path("secrets"));
            scope.sheet.fault(
                &path,
                origin,
                &Fault::new(must, "for example `secrets = { PASSWORD = \"env:NAME\" }`"),
                None,
            );
        } else if pass.iter().any(|(passed, _)| passed == name) {
            scope
                .fault("secrets", &Fault::new(format!("and `pass` both set {}", shown(name)), "remove it from `pass`"));
        }
    }
    let output_bytes_max = usize::try_from(scope.number("output")).unwrap_or(usize::MAX);
    Some(SourceConfig::Exec {
        argv: command?.into_iter().map(|(argument, _)| argument).collect(),
        pass: pass.into_iter().map(|(name, _)| name).collect(),
        secrets: secrets.into_iter().collect(),
        output_bytes_max,
    })
}

/// What is wrong with the name of a variable for a script.
fn strange_variable(name: &str) -> Option<String> {
    if !is_variable(name) {
        return Some(format!("must be the name of an environment variable, not {}", shown(name)));
    }
    let is_own = name.starts_with(OWN_VARIABLES);
    is_own.then(|| format!("must not start with `{OWN_VARIABLES}`, which is keyreeve's own: {}", shown(name)))
}

fn check_command(scope: &mut Scope<'_>, command: &[(String, Origin)]) {
    let Some((program, _)) = command.first() else {
        scope.fault("command", &Fault::plain("must not be empty"));
        return;
    };
    if !program.starts_with('/') {
        let hint = if program.contains(' ') {
            "there is no shell: one text per argument, `command = [\"/bin/mint\", \"--json\"]`"
        } else {
            "`PATH` is not searched: write where the program is, `/usr/local/bin/..`"
        };
        scope.fault("command", &Fault::new(format!("must start with an absolute path, not {}", shown(program)), hint));
    }
    if command.iter().any(|(argument, _)| argument.contains('\0')) {
        scope.fault("command", &Fault::new("must not hold a NUL byte", "remove it"));
    }
}

fn http(scope: &mut Scope<'_>) -> Option<SourceConfig> {
    let home = scope.sheet.home;
    let url = scope.parsed("url", |text| parse::url(text, home), |url| shown_url(url));
    if scope.is_written("via") && url.as_ref().is_some_and(|url| url.starts_with("service:")) {
        scope
            .fault("via", &Fault::new("does not go with `service:`", "another Worker is reached by its binding alone"));
    }
    let method = scope.text_or("method", "POST");
    let headers = headers(scope);
    let secret_headers = secret_headers(scope, &headers);
    let body = scope.text("body");
    if let Some(url) = &url {
        check_template(scope, "url", url);
    }
    if let Some(body) = &body {
        check_template(scope, "body", body);
    }
    if body.is_some() && method == "GET" {
        scope.fault(
            "body",
            &Fault::new("does not go with `method = \"GET\"`", "use `method = \"POST\"`, or remove the body"),
        );
    }
    let mapping = mapping(&mut scope.inner("map"));
    let is_idempotent = scope.flag("idempotent");
    let answer_bytes_max = usize::try_from(scope.number("answer")).unwrap_or(usize::MAX);
    Some(SourceConfig::Http {
        url: url?,
        method,
        headers,
        secret_headers,
        body,
        mapping,
        is_idempotent,
        answer_bytes_max,
    })
}

/// A URL as `config explain` shows it.
pub(super) fn shown_url(url: &str) -> String {
    // What follows the host may be a capability.
    if let Some((name, _)) = url.strip_prefix("service:").and_then(|rest| rest.split_once('/')) {
        return format!("service:{name}/..");
    }
    parse::origin_of(url).map_or_else(|| "(a URL)".into(), |origin| format!("{origin}/.."))
}

fn headers(scope: &mut Scope<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in scope.text_map("headers") {
        check_header(scope, "headers", &name);
        let lower = name.to_ascii_lowercase();
        if SECRET_HEADERS.contains(&lower.as_str()) {
            let fault = Fault::new(
                format!("holds {}, whose value is a secret (the value is not shown)", shown(&name)),
                format!("move it: `secret_headers = {{ {lower} = \"env:NAME\" }}`"),
            );
            scope.fault("headers", &fault);
        }
        if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            let fault =
                format!("holds {} with a value that is not printable ASCII (the value is not shown)", shown(&name));
            scope.fault("headers", &Fault::new(fault, "headers carry printable ASCII only (RFC 9110 5.5)"));
        }
        check_template(scope, "headers", &value);
        if headers.insert(lower, value).is_some() {
            scope.fault(
                "headers",
                &Fault::new(format!("hold {} twice", shown(&name)), "names of headers have no case: remove one"),
            );
        }
    }
    headers
}

fn secret_headers(scope: &mut Scope<'_>, headers: &BTreeMap<String, String>) -> BTreeMap<String, SecretRef> {
    let mut secret_headers = BTreeMap::new();
    for (name, secret) in scope.secret_map("secret_headers") {
        check_header(scope, "secret_headers", &name);
        let lower = name.to_ascii_lowercase();
        let is_twice = headers.contains_key(&lower) || secret_headers.insert(lower, secret).is_some();
        if is_twice {
            let fault = Fault::new(
                format!("hold {}, which is there twice", shown(&name)),
                "names of headers have no case: remove one",
            );
            scope.fault("secret_headers", &fault);
        }
    }
    secret_headers
}

fn check_header(scope: &mut Scope<'_>, field: &str, name: &str) {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        let fault =
            Fault::new(format!("hold {}, which is not the name of a header", shown(name)), "for example `accept`");
        scope.fault(field, &fault);
    } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        scope.fault(field, &Fault::new(format!("hold {}, which keyreeve sets itself", shown(name)), "remove it"));
    }
}

fn mapping(map: &mut Scope<'_>) -> HttpMapping {
    let is_named = map.is_written("fields");
    let token = map.parsed("token", parse::pointer, Clone::clone);
    let mut fields = BTreeMap::new();
    for (name, text) in map.text_map("fields") {
        match parse::pointer(&text) {
            Ok(pointer) => drop(fields.insert(name, pointer)),
            Err(fault) => map.fault("fields", &Fault::new(format!("{} in {}", fault.must, shown(&name)), fault.hint)),
        }
    }
    if is_named && map.is_written("token") {
        map.fault(
            "fields",
            &Fault::new("and `token` are both there", "an answer is one token or several fields: remove one"),
        );
    }
    let token = match (token, is_named || map.is_written("token")) {
        (None, false) => {
            map.explain("token", "/access_token".into(), Origin::Default);
            Some("/access_token".into())
        }
        (token, _) => token,
    };
    let expires_at = map.parsed("expires_at", parse::pointer, Clone::clone);
    let expires_in = map.parsed("expires_in", parse::pointer, Clone::clone);
    let is_at_written = map.is_written("expires_at");
    if is_at_written && map.is_written("expires_in") {
        map.fault(
            "expires_at",
            &Fault::new("and `expires_in` are both there", "the answer says one of them: remove the other"),
        );
    }
    let expires_in = match expires_in {
        None if !is_at_written && !map.is_written("expires_in") => {
            map.explain("expires_in", "/expires_in".into(), Origin::Default);
            Some("/expires_in".into())
        }
        expires_in => expires_in,
    };
    HttpMapping { token, fields, expires_at, expires_in }
}
