//! `keyreeve policy`: what the rules of a configuration allow, without a node and without a token.

use std::path::Path;

use keyreeve::config::Home;
use keyreeve::core::json::Json;
use keyreeve::core::policy::{Decision, Policy, Request, RequestPath, Source, Subject, Who};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::{ConfigFile, PolicyExplainArgs, PolicyTestArgs};
use crate::exit::{Code, Failure, say, tell};
use crate::load;

/// The largest file of claims or of cases, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the rules, and says what they are.
pub(crate) fn check(args: &ConfigFile) -> Result<(), Failure> {
    let policy = policy_of(&args.config, args.home.into())?;
    if args.json {
        let rules = policy.rules().iter().enumerate().map(|(at, rule)| {
            let can: Vec<String> = rule.can.iter().map(ToString::to_string).collect();
            json!({ "rule": at + 1, "who": rule.who.to_string(), "can": can, "on": rule.on })
        });
        say(&Value::from(rules.collect::<Vec<_>>()).to_string());
        return Ok(());
    }
    for (at, rule) in policy.rules().iter().enumerate() {
        let can: Vec<String> = rule.can.iter().map(ToString::to_string).collect();
        say(&format!("{}. {} can {} on {}", at + 1, rule.who, can.join(", "), rule.on.join(", ")));
    }
    say(&format!("{} rules; what none of them allows is denied", policy.rules().len()));
    Ok(())
}

fn policy_of(path: &Path, home: Home) -> Result<Policy, Failure> {
    Ok(load::read(path, home)?.config.policy)
}

/// Says whether claims allow a request: by which rule, or what came nearest.
pub(crate) fn explain(args: &PolicyExplainArgs) -> Result<(), Failure> {
    let policy = policy_of(&args.file.config, args.file.home.into())?;
    let claims = text_of(&args.claims)?;
    let case = Case {
        name: String::new(),
        source: args.source.clone(),
        claims: serde_json::from_str(&claims)
            .map_err(|error| usage(format!("the claims are no JSON object: {error}")))?,
        on: args.on.clone(),
        request: format!("{} {}", args.method, args.path),
        expect: Expect::Allow,
        rule: None,
    };
    let verdict = case.decide(&policy)?;
    let rule_text = |number: Option<usize>| {
        let rule = number.and_then(|number| policy.rules().get(number.checked_sub(1)?));
        rule.map(|rule| rule.who.to_string())
    };
    if args.file.json {
        say(&match &verdict {
            Verdict::Allowed { rule } => json!({ "allowed": true, "rule": rule, "who": rule_text(Some(*rule)) }),
            Verdict::Denied { reason, nearest } => {
                json!({ "allowed": false, "reason": reason, "nearest_rule": nearest, "who": rule_text(*nearest) })
            }
        }
        .to_string());
    } else {
        say(&verdict.to_string());
        let number = match &verdict {
            Verdict::Allowed { rule } => Some(*rule),
            Verdict::Denied { nearest, .. } => *nearest,
        };
        if let Some((number, text)) = number.zip(rule_text(number)) {
            say(&format!("rule {number}: {text}"));
        }
    }
    match verdict {
        Verdict::Allowed { .. } => Ok(()),
        Verdict::Denied { .. } => Err(Failure::quiet(Code::Denied)),
    }
}

/// Decides cases, and compares.
pub(crate) fn test(args: &PolicyTestArgs) -> Result<(), Failure> {
    let policy = policy_of(&args.file.config, args.file.home.into())?;
    let text = text_of(&args.cases.display().to_string())?;
    let cases: Vec<Case> = serde_json::from_str(&text).map_err(|error| {
        usage(format!("`{}` is no list of cases: {error}", args.cases.display())).hint(
            "a case is `{\"name\":\"..\",\"as\":\"verifier:auth0\",\"claims\":{},\"on\":\"gate:orders\",\"request\":\"GET /orders/7\",\"expect\":\"allow\"}`",
        )
    })?;
    if cases.is_empty() {
        return Err(usage(format!("`{}` has no cases", args.cases.display())));
    }
    let mut used = vec![false; policy.rules().len()];
    let (mut failed, mut results) = (0, Vec::new());
    for case in &cases {
        let verdict = case.decide(&policy)?;
        if let Verdict::Allowed { rule } = verdict
            && let Some(used) = used.get_mut(rule - 1)
        {
            *used = true;
        }
        let wrong = case.wrong(&verdict);
        failed += usize::from(wrong.is_some());
        if args.file.json {
            results.push(json!({ "name": case.name, "ok": wrong.is_none(), "verdict": verdict.to_string() }));
        } else {
            match wrong {
                None => say(&format!("ok    {}: {}", case.name, verdict)),
                Some(wrong) => say(&format!("WRONG {}: {wrong}", case.name)),
            }
        }
    }
    let unused: Vec<usize> = (1..).zip(&used).filter(|(_, used)| !**used).map(|(rule, _)| rule).collect();
    if args.file.json {
        say(&json!({ "ok": failed == 0, "cases": results, "rules_without_a_case": unused }).to_string());
    } else {
        say(&format!("{} cases, {failed} wrong", cases.len()));
        for rule in unused {
            tell(&format!("warning: no case is allowed by rule {rule}"));
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::quiet(Code::CheckFailed)) }
}

/// One question to the rules, and its right answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(rename = "as")]
    source: String,
    #[serde(default)]
    claims: Map<String, Value>,
    on: String,
    /// Method and path: `POST /orders/7`.
    request: String,
    expect: Expect,
    /// The number of the rule that has to be the one.
    rule: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

impl Case {
    fn decide(&self, policy: &Policy) -> Result<Verdict, Failure> {
        let of = if self.name.is_empty() { String::new() } else { format!("case `{}`: ", self.name) };
        let source = source(&self.source).map_err(|error| usage(format!("{of}{error}")))?;
        let Some((method, path)) = self.request.split_once(' ') else {
            return Err(usage(format!("{of}`{}` is not a method and a path", self.request)));
        };
        let claims = Json::parse(Value::Object(self.claims.clone()).to_string().into_bytes())
            .map_err(|error| usage(format!("{of}the claims cannot be read: {error}")))?;
        // As a gate does, before it asks a rule.
        let path = match RequestPath::parse(path) {
            Ok(path) => path,
            Err(error) => return Ok(Verdict::Denied { reason: error.to_string(), nearest: None }),
        };
        let subject = Subject { source: &source, claims: claims.root() };
        Ok(match policy.decide(subject, Request { on: &self.on, method, path: &path }) {
            Decision::Allow(rule) => Verdict::Allowed { rule: rule + 1 },
            Decision::Deny(denial) => {
                Verdict::Denied { reason: denial.to_string(), nearest: denial.nearest.map(|nearest| nearest.rule + 1) }
            }
        })
    }

    /// What is wrong with a verdict, if anything is.
    fn wrong(&self, verdict: &Verdict) -> Option<String> {
        match (self.expect, verdict) {
            (Expect::Deny, Verdict::Denied { .. }) => None,
            (Expect::Allow, Verdict::Allowed { rule }) => {
                let wanted = self.rule.filter(|wanted| wanted != rule)?;
                Some(format!("{verdict}, not by rule {wanted}"))
            }
            _ => Some(verdict.to_string()),
        }
    }
}

/// What became of a case. Rules are counted from 1, as everywhere that people read.
enum Verdict {
    Allowed { rule: usize },
    Denied { reason: String, nearest: Option<usize> },
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allowed { rule } => write!(f, "allowed by rule {rule}"),
            Self::Denied { reason, .. } => write!(f, "denied: {reason}"),
        }
    }
}

/// `issuer:NAME` or `verifier:NAME`.
fn source(text: &str) -> Result<Source, String> {
    match Who::parse(text) {
        Ok(who) if who.to_string() == who.source.to_string() => Ok(who.source),
        Ok(_) => Err(format!("`{text}` must be just `issuer:NAME` or `verifier:NAME`")),
        Err(error) => Err(format!("`{text}`: {error}")),
    }
}

fn usage(text: String) -> Failure {
    Failure::new(Code::Usage, text)
}

/// A text itself, where it is an object, or else the file of that name; `-` is standard input.
fn text_of(text: &str) -> Result<String, Failure> {
    use std::io::Read as _;
    if text.trim_start().starts_with('{') {
        return Ok(text.to_owned());
    }
    let refuse = |cause: &dyn std::fmt::Display| usage(format!("cannot read `{text}`: {cause}"));
    let mut read = String::new();
    let bytes = if text == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut read)
    } else {
        let file = std::fs::File::open(text).map_err(|error| refuse(&error))?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut read)
    };
    match bytes {
        Ok(bytes) if bytes as u64 <= FILE_BYTES_MAX => Ok(read),
        Ok(_) => Err(refuse(&format!("more than {FILE_BYTES_MAX} bytes"))),
        Err(error) => Err(refuse(&error)),
    }
}
