use super::claims::{Claims, Verified};
use super::draft::Draft;
use super::refusal::{Refusal, Shown};
use crate::json::{DEPTH_MAX, Node, Value};
use crate::time::Timestamp;

/// The most actors of one token, one behind the other.
pub const ACTORS_MAX: usize = 8;
/// Lists of texts that a delegated token takes over, and that may be narrowed.
const LISTS: [&str; 3] = ["permissions", "roles", "groups"];
/// Texts that a delegated token takes over.
const TEXTS: [&str; 5] = ["email", "name", "tid", "org_id", "department"];

/// A wish to act for somebody (RFC 8693): who acts, at whose door, for how long, with how much of it.
#[derive(Clone, Debug)]
pub struct Delegation<'a> {
    /// Who will act: the `sub` of the new `act`.
    pub actor: &'a str,
    /// Who says so: the new `iss`.
    pub issuer: &'a str,
    /// For whom: the new `aud`.
    pub audience: &'a [String],
    /// Wished life, in seconds; never beyond that of the original.
    pub life_s: u64,
    /// Only these permissions; each must be one of the original's. `None` for all of them.
    pub permissions: Option<&'a [&'a str]>,
    /// Only these roles; each must be one of the original's. `None` for all of them.
    pub roles: Option<&'a [&'a str]>,
    /// Only these scopes; each must be one of the original's. `None` for all of them.
    pub scopes: Option<&'a [&'a str]>,
}

impl<'a> Delegation<'a> {
    /// All that the original may, for five minutes.
    #[must_use]
    pub const fn new(actor: &'a str, issuer: &'a str, audience: &'a [String]) -> Self {
        Self { actor, issuer, audience, life_s: 300, permissions: None, roles: None, scopes: None }
    }

    /// The claims of the delegated token: the subject of `original`, what it may, and who acts for it, with everybody who
    /// acted before behind. Nothing is gained, and it ends no later than the original does.
    ///
    /// # Errors
    /// [`Refusal::Expired`], [`Refusal::MissingClaim`] for an original without a subject, [`Refusal::Delegation`] for more than
    /// the original allows.
    pub fn draft(&self, original: &Verified<Claims>, now: Timestamp) -> Result<Draft, Refusal> {
        let claims = original.claims();
        let now_s = now.seconds();
        let ends_s = claims.expires_at_s().ok_or(Refusal::MissingClaim("exp"))?;
        if ends_s <= now_s {
            return Err(Refusal::Expired { by_s: now_s.saturating_sub(ends_s) });
        }
        let subject = claims.subject().ok_or(Refusal::MissingClaim("sub"))?;
        claims.check_actor(self.actor, self.issuer)?;
        let mut draft = Draft::new()
            .text("iss", self.issuer)
            .text("sub", subject)
            .audience(self.audience)
            .number("iat", now_s)
            .number("exp", ends_s.min(now_s.saturating_add(self.life_s)));
        for name in LISTS {
            let wanted = match name {
                "permissions" => self.permissions,
                "roles" => self.roles,
                _ => None,
            };
            draft = narrowed(draft, claims, name, wanted)?;
        }
        draft = self.scoped(draft, claims)?;
        for name in TEXTS {
            if let Some(text) = claims.text(name) {
                draft = draft.text(name, text);
            }
        }
        let mut act = Draft::new().text("sub", self.actor);
        if let Some(before) = claims.claim("act") {
            if depth(Some(before)) >= ACTORS_MAX {
                return Err(Refusal::Delegation(format!("{ACTORS_MAX} actors already stand behind this token")));
            }
            // It stands one level deeper than it did, and what nobody reads is no token.
            if nesting(before).saturating_add(2) > DEPTH_MAX {
                return Err(Refusal::Delegation(
                    "`act` of the original is nested too deep to stand behind another".into(),
                ));
            }
            act = act.node("act", before);
        }
        Ok(draft.object("act", &act))
    }

    fn scoped(&self, draft: Draft, claims: &Claims) -> Result<Draft, Refusal> {
        let has = |scope: &&str| claims.scopes().any(|one| one == *scope);
        match self.scopes {
            None => Ok(claims.text("scope").map_or(draft.clone(), |scope| draft.text("scope", scope))),
            Some(wanted) => match wanted.iter().find(|scope| !has(scope)) {
                Some(more) => Err(more_than("scope", more)),
                // RFC 6749 3.3: a scope that is empty is none.
                None if wanted.is_empty() => Ok(draft),
                None => Ok(draft.text("scope", &wanted.join(" "))),
            },
        }
    }
}

fn narrowed(draft: Draft, claims: &Claims, name: &'static str, wanted: Option<&[&str]>) -> Result<Draft, Refusal> {
    let Some(wanted) = wanted else {
        // A list of texts or nothing: what is of another kind means something to nobody here.
        let is_list = claims.claim(name).and_then(Node::items).is_some();
        return Ok(if is_list { draft.list(name, claims.list(name)) } else { draft });
    };
    match wanted.iter().find(|one| !claims.list(name).any(|had| had == **one)) {
        Some(more) => Err(more_than(name, more)),
        None => Ok(draft.list(name, wanted.iter().copied())),
    }
}

fn more_than(name: &str, wanted: &str) -> Refusal {
    Refusal::Delegation(format!(
        "`{}` is not in `{name}` of the original: a delegated token gains nothing",
        Shown::of(wanted)
    ))
}

/// How many levels of lists and objects a value has.
fn nesting(node: Node<'_>) -> usize {
    let inside = match node.value() {
        Value::List(items) => items.map(nesting).max(),
        Value::Object(members) => members.map(|(_, value)| nesting(value)).max(),
        _ => return 0,
    };
    inside.unwrap_or(0).saturating_add(1)
}

fn depth(act: Option<Node<'_>>) -> usize {
    std::iter::successors(act, |act| act.member("act")).count()
}

impl Claims {
    /// Whether `actor`, as `issuer` calls it, may act for the subject (RFC 8693 4.4): anybody where there is no `may_act`, else
    /// whom that names.
    ///
    /// # Errors
    /// [`Refusal::Delegation`].
    pub fn check_actor(&self, actor: &str, issuer: &str) -> Result<(), Refusal> {
        let Some(named) = self.claim("may_act") else { return Ok(()) };
        let is_here = named.member("iss").is_none_or(|named| named.text() == Some(issuer));
        if is_here && named.member("sub").and_then(Node::text) == Some(actor) {
            return Ok(());
        }
        Err(Refusal::Delegation(format!("`may_act` does not let `{}` act for the subject", Shown::of(actor))))
    }

    /// Who acts for the subject (RFC 8693 4.1), the latest first. Only the first one is acting; the others did before.
    pub fn actors(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.claim("act"), |act| act.member("act")).filter_map(|act| act.member("sub")?.text())
    }
}
