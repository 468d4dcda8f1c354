//! Gates, and the rules that say who may pass.

use std::collections::{BTreeMap, BTreeSet};

use keyreeve_core::id::CredentialName;
use keyreeve_core::policy::{Act, Claim, Policy, Rule, Source, Who};

use super::access::FamilyConfig;
use super::artifact::{self, ArtifactConfig, ObjectsConfig};
use super::inbound::{GateConfig, Proxy, VerifierConfig};
use super::inject::{self, InjectConfig};
use super::problem::{Fault, Origin, nearest, shown};
use super::scope::Scope;
use super::sheet::{Named, Sheet};
use super::types::{Bind, CredentialConfig, Home, Listener, Surface};
use super::verifier::check_name;

/// The most gates.
const GATES_MAX: usize = 256;
const PROXIES: [(&str, Proxy); 5] = [
    ("any", Proxy::Any),
    ("nginx", Proxy::Nginx),
    ("envoy", Proxy::Envoy),
    ("traefik", Proxy::Traefik),
    ("caddy", Proxy::Caddy),
];
/// What answers say where nobody says what.
pub(crate) const IDENTITY: [(&str, &str); 6] = [
    ("x-auth-subject", "sub"),
    ("x-auth-issuer", "iss"),
    ("x-auth-scope", "scope"),
    ("x-auth-permissions", "permissions"),
    ("x-auth-roles", "roles"),
    ("x-auth-actor", "actor"),
];
/// Headers that mean something to HTTP or to proxies, and would be answered in the name of a token.
const TAKEN: [&str; 22] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "keep-alive",
    "location",
    "proxy-authenticate",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-request-id",
    "x-content-type-options",
];

/// What not every kind of gate has a use for, and which kinds have.
const OF_KINDS: [(&str, &[&str]); 30] = [
    ("proxy", &["auth"]),
    ("method_header", &["auth"]),
    ("uri_header", &["auth"]),
    ("identity", &["auth"]),
    ("bind", &["inject", "artifact"]),
    ("credential", &["inject"]),
    ("upstreams", &["inject"]),
    ("header", &["inject"]),
    ("value", &["inject"]),
    ("via", &["inject"]),
    ("ca", &["inject"]),
    ("timeout", &["inject"]),
    ("body", &["inject"]),
    ("requests", &["inject", "artifact"]),
    ("tls", &["artifact"]),
    ("allow_plaintext", &["artifact"]),
    ("compat", &["artifact"]),
    ("origins", &["artifact"]),
    ("hedge_after", &["artifact"]),
    ("deadline", &["artifact"]),
    ("deliver", &["artifact"]),
    ("fresh", &["artifact"]),
    ("stale_if_error", &["artifact"]),
    ("cache", &["artifact"]),
    ("cache_size", &["artifact"]),
    ("memory", &["artifact"]),
    ("kept", &["artifact"]),
    ("publish", &["artifact"]),
    ("cors", &["artifact"]),
    ("tokens", &["artifact"]),
];

/// The gates, by what they do.
#[derive(Default)]
pub(super) struct Gates {
    pub(super) auth: BTreeMap<String, GateConfig>,
    pub(super) inject: BTreeMap<String, InjectConfig>,
    pub(super) artifact: BTreeMap<String, ArtifactConfig>,
    /// The addresses that are listened on.
    pub(super) taken: Vec<Bind>,
}

impl Gates {
    /// Whether there is none that works without a credential.
    pub(super) fn is_empty(&self) -> bool {
        self.auth.is_empty() && self.artifact.is_empty()
    }
}

/// Reads all gates.
pub(super) fn all(
    sheet: &mut Sheet,
    listeners: &[Listener],
    credentials: &BTreeMap<CredentialName, CredentialConfig>,
    (objects, families): (&BTreeMap<String, ObjectsConfig>, &BTreeMap<String, FamilyConfig>),
) -> Gates {
    let taken = listeners.iter().map(|listener| listener.bind.clone()).collect();
    let mut gates = Gates { taken, ..Gates::default() };
    let named = sheet.named("gate.*");
    if named.len() > GATES_MAX {
        let fault = Fault::new(format!("has {} entries, the most is {GATES_MAX}", named.len()), "remove some");
        sheet.fault("gate", sheet.place("gate"), &fault, None);
        return gates;
    }
    let mut asked = Vec::new();
    for named in named {
        check_name(sheet, &named, "gate");
        let mut scope = Scope::of(sheet, &named, "gate.*");
        let Some(kind) = scope.text("kind") else { continue };
        for (name, kinds) in OF_KINDS {
            if scope.is_written(name) && !kinds.contains(&kind.as_str()) {
                let must = format!("is not for kind `{kind}`");
                scope.fault(name, &Fault::new(must, "remove it, or change `kind`"));
            }
        }
        if kind == "auth" {
            let gate = one(&mut scope);
            gates.auth.extend(gate.map(|gate| (named.key.clone(), gate)));
            asked.push(named);
        } else if scope.sheet.home == Home::Worker {
            let hint = "run a node beside the program: what a Worker asks, it can ask with the token itself";
            let must = format!("cannot be `{kind}` on a Worker, which has no address of its own");
            scope.fault("kind", &Fault::new(must, hint));
        } else if cfg!(target_arch = "wasm32") {
            // Not in its wasm.
        } else if kind == "inject" {
            if let Some(gate) = inject::one(&mut scope, &gates.taken, credentials) {
                gates.taken.push(gate.bind.clone());
                gates.inject.insert(named.key, gate);
            }
        } else if let Some(gate) = artifact::one(&mut scope, &gates.taken, objects, families) {
            if gate.cache.is_some() && gates.artifact.values().any(|other| other.cache == gate.cache) {
                scope.fault("cache", &Fault::new("is that of another gate", "give it a folder of its own"));
            }
            gates.taken.push(gate.bind.clone());
            gates.artifact.insert(named.key, gate);
        }
    }
    if let Some(first) = asked.first()
        && !listeners.is_empty()
        && !listeners.iter().any(|listener| listener.serve.contains(&Surface::Gate))
    {
        let message = format!("`{}` answers nobody: no listener serves `gate`", first.path);
        sheet.warn(&first.path, first.origin.clone(), message, "add `gate` to `serve` of a listener");
    }
    gates
}

fn one(scope: &mut Scope<'_>) -> Option<GateConfig> {
    let proxy = scope.choice_or("proxy", &PROXIES, Proxy::Any);
    if !matches!(proxy, Proxy::Any | Proxy::Nginx) {
        for name in ["method_header", "uri_header"] {
            if scope.is_written(name) {
                scope.warn(name, "has no effect: only nginx is told which headers to set", "remove it");
            }
        }
    }
    let method_header = scope.parsed("method_header", header_name, Clone::clone);
    let uri_header = scope.parsed("uri_header", header_name, Clone::clone);
    if method_header.is_some() && method_header == uri_header {
        let fault = Fault::new("is also the `method_header`", "a header says one thing");
        scope.fault("uri_header", &fault);
    }
    let identity = identity(scope);
    Some(GateConfig { proxy, method_header: method_header?, uri_header: uri_header?, identity: identity? })
}

fn header_name(text: &str) -> Result<String, Fault> {
    let Ok(name) = http::HeaderName::from_bytes(text.as_bytes()) else {
        return Err(Fault::plain(format!("must be the name of a header, not {}", shown(text))));
    };
    if TAKEN.contains(&name.as_str()) {
        return Err(Fault::new(
            format!("cannot be {}: it means something else to HTTP", shown(text)),
            "take a name of your own, such as `x-auth-subject`",
        ));
    }
    Ok(name.as_str().to_owned())
}

fn identity(scope: &mut Scope<'_>) -> Option<Vec<(String, Claim)>> {
    if !scope.is_written("identity") {
        let shown: Vec<String> = IDENTITY.iter().map(|(header, claim)| format!("{header} = {claim}")).collect();
        scope.explain("identity", format!("[{}]", shown.join(", ")), Origin::Default);
        return IDENTITY
            .iter()
            .map(|(header, claim)| Some(((*header).to_owned(), Claim::parse(claim).ok()?)))
            .collect();
    }
    let mut identity: Vec<(String, Claim)> = Vec::new();
    let mut is_whole = !scope.is_broken("identity");
    for (header, text) in scope.text_map("identity") {
        let claim = Claim::parse(&text)
            .map_err(|error| Fault::new(format!("must name a claim, not {}: {error}", shown(&text)), error.hint));
        let header = header_name(&header).and_then(|name| match identity.iter().any(|(other, _)| *other == name) {
            true => Err(Fault::new(format!("has the header `{name}` twice"), "names of headers know no case")),
            false => Ok(name),
        });
        match (header, claim) {
            (Ok(header), Ok(claim)) => identity.push((header, claim)),
            (Err(fault), _) | (_, Err(fault)) => {
                is_whole = false;
                scope.fault("identity", &fault);
            }
        }
    }
    is_whole.then_some(identity)
}

/// Reads the rules.
pub(super) fn policy(
    sheet: &mut Sheet,
    verifiers: &BTreeMap<String, VerifierConfig>,
    gates: &BTreeMap<String, GateConfig>,
) -> Policy {
    let known = Known {
        issuers: sheet.named("issuer.*").into_iter().map(|named| named.key).collect(),
        verifiers: sheet.named("verifier.*").into_iter().map(|named| named.key).collect(),
        gates: sheet.named("gate.*").into_iter().map(|named| named.key).collect(),
    };
    let rules: Vec<Rule> = sheet.named("policy[]").iter().filter_map(|named| rule(sheet, named, &known)).collect();
    for name in gates.keys() {
        let place = format!("gate:{name}");
        if !rules.iter().any(|rule| rule.on.contains(&place)) && !sheet.has_problems() {
            let path = super::tree::join("gate", name);
            let origin = sheet.place(&path);
            let hint = format!("add `[[policy]]` with `on = \"{place}\"`");
            sheet.warn(&path, origin, format!("`{path}` lets nothing through: no rule is `on` it"), &hint);
        }
    }
    if !gates.is_empty() && verifiers.is_empty() && known.issuers.is_empty() && !sheet.has_problems() {
        let hint = "add `[verifier.NAME]` for the issuer of the tokens";
        sheet.warn("gate", sheet.place("gate"), "no token is accepted at any gate".into(), hint);
    }
    Policy::new(rules)
}

/// The names that rules may use; those too whose tables have problems of their own.
struct Known {
    issuers: BTreeSet<String>,
    verifiers: BTreeSet<String>,
    gates: BTreeSet<String>,
}

fn rule(sheet: &mut Sheet, named: &Named, known: &Known) -> Option<Rule> {
    let mut scope = Scope::of(sheet, named, "policy[]");
    let who = scope.parsed(
        "who",
        |text| {
            let who = Who::parse(text).map_err(|error| Fault::new(format!("cannot be read: {error}"), error.hint))?;
            known.source(&who.source).map(|()| who)
        },
        ToString::to_string,
    );
    let can = each(&mut scope, "can", |text| {
        text.parse::<Act>().map_err(|error| {
            Fault::new(format!("{error}: {}", shown(text)), "for example `can = [\"POST /orders/*\"]`")
        })
    });
    let on = each(&mut scope, "on", |text| known.place(text));
    Some(Rule { who: who?, can: can?, on: on? })
}

/// The entries of a list, each parsed; or none of them.
fn each<T>(scope: &mut Scope<'_>, name: &str, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<Vec<T>> {
    let texts = scope.texts(name)?;
    let several = texts.len() > 1;
    let mut read = Vec::with_capacity(texts.len());
    let count = texts.len();
    for (at, (text, origin)) in texts.into_iter().enumerate() {
        match parse(&text) {
            Ok(item) => read.push(item),
            Err(fault) => {
                let path = scope.path(name);
                let path = if several { format!("{path}[{at}]") } else { path };
                scope.sheet.fault(&path, origin, &fault, None);
            }
        }
    }
    (read.len() == count).then_some(read)
}

impl Known {
    fn source(&self, source: &Source) -> Result<(), Fault> {
        let (kind, name, here, there, other) = match source {
            Source::Issuer(name) => ("issuer", name, &self.issuers, &self.verifiers, "verifier"),
            Source::Verifier(name) => ("verifier", name, &self.verifiers, &self.issuers, "issuer"),
        };
        if here.contains(name) {
            return Ok(());
        }
        let hint = if there.contains(name) {
            format!("did you mean `{other}:{name}`?")
        } else if let Some(near) = nearest(name, here.iter().map(String::as_str)) {
            format!("did you mean `{kind}:{near}`?")
        } else {
            format!("add `[{kind}.{name}]`")
        };
        Err(Fault::new(format!("names {}, which is not there", shown(&source.to_string())), hint))
    }

    fn place(&self, text: &str) -> Result<String, Fault> {
        let Some(name) = text.strip_prefix("gate:") else {
            return Err(Fault::new(
                format!("must be `gate:NAME`, not {}", shown(text)),
                "for example `on = \"gate:orders\"`",
            ));
        };
        if self.gates.contains(name) {
            return Ok(text.to_owned());
        }
        let hint = match nearest(name, self.gates.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `gate:{near}`?"),
            None => format!("add `[gate.{}]`", name.chars().take(40).collect::<String>()),
        };
        Err(Fault::new(format!("names {}, which is not there", shown(text)), hint))
    }
}
