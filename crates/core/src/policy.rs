//! Who may do what: rules over the claims of a verified token.
//!
//! Nothing is allowed that no rule allows, and a rule can only ask for more: there is no "not", so that a claim which is
//! missing, of another type or in a form that nobody thought of never opens anything. A refusal names the rule that came
//! nearest and what it lacked.
//!
//! ```
//! use keyreeve_core::json::Json;
//! use keyreeve_core::policy::{Decision, Policy, Request, RequestPath, Rule, Source, Subject, Who};
//!
//! let policy = Policy::new(vec![Rule {
//!     who: Who::parse("issuer:gateway[permissions has 'orders:write']").unwrap(),
//!     can: vec!["POST /orders/*".parse().unwrap()],
//!     on: vec!["gate:orders".into()],
//! }]);
//! let claims = Json::parse(r#"{ "sub": "ann", "permissions": ["orders:read"] }"#.into()).unwrap();
//! let ann = Subject { source: &Source::Issuer("gateway".into()), claims: claims.root() };
//! let path = RequestPath::parse("/orders/7?draft=1").unwrap();
//! let Decision::Deny(denial) = policy.decide(ann, Request { on: "gate:orders", method: "POST", path: &path }) else {
//!     panic!("nothing allows it")
//! };
//! assert_eq!(denial.to_string(), "no rule allows it: rule 1 would if `permissions` had 'orders:write'");
//! ```
//!
//! This module verifies no token: whoever calls it with the claims of an unverified one has only asked "what if".

mod can;
mod read;
mod who;

use std::collections::BTreeMap;
use std::fmt;

use crate::json::Node;

pub use can::{Act, ActError, CAN_BYTES_MAX, PATH_BYTES_MAX, PathError, RequestPath};
pub use read::{DEPTH_MAX, ReadError, TESTS_MAX, WHO_BYTES_MAX};
pub use who::{Ask, Claim, Condition, LIST_MAX, Literal, Pattern, Source, Test, Who};

/// The most rules of a policy.
pub const RULES_MAX: usize = 1000;
/// What another source, and what another path costs a rule on its way to be the nearest; a claim costs 1.
const FAR: u32 = 1000;
const METHOD_AWAY: u32 = 100;

/// One rule: who can do what, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whose tokens, and what they must say.
    pub who: Who,
    /// The requests that it allows.
    pub can: Vec<Act>,
    /// The places where it holds, such as `gate:orders`.
    pub on: Vec<String>,
}

/// All rules, in the order in which they are numbered.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    by_place: BTreeMap<String, Vec<usize>>,
}

/// Whose claims, and who vouched for them.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// The issuer or verifier that accepted the token.
    pub source: &'s Source,
    /// The claims: an object.
    pub claims: Node<'s>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Where: `gate:orders`.
    pub on: &'r str,
    /// The method (RFC 9110 9.1), in its own case.
    pub method: &'r str,
    /// The path.
    pub path: &'r RequestPath<'r>,
}

/// Whether it may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By the rule with this index, counted from 0. Messages count from 1.
    Allow(usize),
    /// By no rule.
    Deny(Denial),
}

/// Why nothing allows it. Prints as a sentence for the operator; strangers should not read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Where it was asked for.
    pub on: String,
    /// How many rules hold there.
    pub rules: usize,
    /// The rule that came nearest, if one did.
    pub nearest: Option<Nearest>,
}

/// A rule that would have allowed it, had things been a little different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Its index, counted from 0.
    pub rule: usize,
    /// What would have to be different; all of it. Never empty.
    pub lacks: Vec<Lack>,
}

/// One thing that would have to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The token would have to come from there.
    Source(Source),
    /// The method would have to be one of these.
    Method(Vec<String>),
    /// The path would have to be like one of these.
    Path(Vec<String>),
    /// The request would have to be one of these.
    Request(Vec<String>),
    /// This would have to hold; and why it does not, where that is not plain.
    Claim(Test, Option<&'static str>),
}

impl Policy {
    /// A policy of these rules. More than [`RULES_MAX`] are for the caller to refuse.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut by_place: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            for place in &rule.on {
                let indices = by_place.entry(place.clone()).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        Self { rules, by_place }
    }

    /// The rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether `who` may do this: by the first rule that allows it, or not at all.
    #[must_use]
    pub fn decide(&self, who: Subject<'_>, request: Request<'_>) -> Decision {
        let here = || self.at(request.on);
        match here().find(|(_, rule)| rule.allows(who, request)) {
            Some((index, _)) => Decision::Allow(index),
            None => Decision::Deny(Denial {
                on: request.on.to_owned(),
                rules: here().count(),
                nearest: nearest(here(), who, request),
            }),
        }
    }

    fn at(&self, place: &str) -> impl Iterator<Item = (usize, &Rule)> {
        let indices = self.by_place.get(place).map_or(&[] as &[usize], Vec::as_slice);
        indices.iter().filter_map(|index| Some((*index, self.rules.get(*index)?)))
    }
}

impl Rule {
    fn allows(&self, who: Subject<'_>, request: Request<'_>) -> bool {
        self.who.source == *who.source
            && self.can.iter().any(|act| act.has_method(request.method) && act.has_path(request.path))
            && self.who.condition.holds(who.claims)
    }

    /// How far this rule is from allowing it: 0 where it does.
    fn distance(&self, who: Subject<'_>, request: Request<'_>) -> u32 {
        let source = if self.who.source == *who.source { 0 } else { FAR };
        let acts = self.can.iter().map(|act| {
            let method = if act.has_method(request.method) { 0 } else { METHOD_AWAY };
            let path = if act.has_path(request.path) { 0 } else { FAR };
            method + path
        });
        source + acts.min().unwrap_or(FAR) + self.who.condition.missing(who.claims)
    }

    fn lacks(&self, who: Subject<'_>, request: Request<'_>) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if self.who.source != *who.source {
            lacks.push(Lack::Source(self.who.source.clone()));
        }
        lacks.extend(self.other_request(request));
        self.who.condition.lacks(who.claims, &mut lacks);
        lacks
    }

    fn other_request(&self, request: Request<'_>) -> Option<Lack> {
        let of_path: Vec<&Act> = self.can.iter().filter(|act| act.has_path(request.path)).collect();
        if of_path.iter().any(|act| act.has_method(request.method)) {
            return None;
        }
        if !of_path.is_empty() {
            return Some(Lack::Method(of_path.iter().map(|act| act.method().to_owned()).collect()));
        }
        let of_method = self.can.iter().filter(|act| act.has_method(request.method));
        let paths: Vec<String> = of_method.map(|act| act.path().to_owned()).collect();
        if paths.is_empty() {
            return Some(Lack::Request(self.can.iter().map(ToString::to_string).collect()));
        }
        Some(Lack::Path(paths))
    }
}

/// The rule that lacks least, the first of several; none where all of them are about something else.
fn nearest<'p>(
    rules: impl Iterator<Item = (usize, &'p Rule)>,
    who: Subject<'_>,
    request: Request<'_>,
) -> Option<Nearest> {
    let measured = rules.map(|(index, rule)| (rule.distance(who, request), index, rule));
    let (distance, index, rule) = measured.min_by_key(|(distance, index, _)| (*distance, *index))?;
    (distance < 2 * FAR).then(|| Nearest { rule: index, lacks: rule.lacks(who, request) })
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.nearest, self.rules) {
            (_, 0) => write!(f, "there is no rule on `{}`, and what no rule allows is denied", self.on),
            (None, 1) => write!(f, "no rule allows it: the one on `{}` is about something else", self.on),
            (None, count) => write!(f, "no rule allows it: the {count} on `{}` are about something else", self.on),
            (Some(nearest), _) => write!(f, "no rule allows it: {nearest}"),
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} would if ", self.rule + 1)?;
        for (at, lack) in self.lacks.iter().enumerate() {
            if at > 0 {
                f.write_str(" and ")?;
            }
            write!(f, "{lack}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => write!(f, "the token came from `{source}`"),
            Self::Method(methods) => write!(f, "the method were {}", one_of(methods)),
            Self::Path(paths) => write!(f, "the path were {}", one_of(paths)),
            Self::Request(requests) => write!(f, "the request were {}", one_of(requests)),
            Self::Claim(test, None) => f.write_str(&test.wished()),
            Self::Claim(test, Some(why)) => write!(f, "{} ({why})", test.wished()),
        }
    }
}

/// `` `a`, `b` or `c` ``; not more than four of them.
fn one_of(items: &[String]) -> String {
    let shown: Vec<String> = items.iter().take(4).map(|item| format!("`{item}`")).collect();
    match shown.as_slice() {
        _ if items.len() > 4 => format!("{} or another one", shown.join(", ")),
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        one => one.concat(),
    }
}
