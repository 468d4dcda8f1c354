//! How the fleet coordinates on a credential, and whether its numbers add up.

use keyreeve_core::quiet::Quiet;
use keyreeve_core::rules::{Contradiction, Mode, OnDoubt, Rules};
use keyreeve_core::schedule::Slots;
use keyreeve_core::time::Span;

use super::credential::{Flavour, Repeated};
use super::problem::{Fault, Origin};
use super::quiet;
use super::scope::Scope;
use super::types::{Plan, StoreUrl};
use super::units::show_duration;
use crate::source::Nature;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
/// What a signed token is backdated by, so that a host five minutes slow is still not early for long (R17).
const BACKDATE_MS: u64 = MINUTE;
/// Apple: no more than once every 20 minutes.
const APNS_MIN_INTERVAL_MS: u64 = 20 * MINUTE;
/// How long nodes other than the last holder keep back before they look for a renewal.
const AFFINITY_MS: u64 = 5 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Slot,
    Fleet(Mode),
}

const WAYS: [(&str, Way); 4] = [
    ("slot", Way::Slot),
    ("replay", Way::Fleet(Mode::Replay)),
    ("lease", Way::Fleet(Mode::Lease)),
    ("exclusive", Way::Fleet(Mode::Exclusive)),
];
const DOUBTS: [(&str, OnDoubt); 3] =
    [("retry-same", OnDoubt::RetrySame), ("wait", OnDoubt::Wait), ("reauth", OnDoubt::Reauthorize)];
const FIRST_MINTS: [(&str, bool); 2] = [("now", false), ("wait", true)];
/// What slot mode has no use for: of the credential, of its life.
const NOT_IN_SLOTS: [&[&str]; 2] = [
    &["on_doubt", "first_mint", "history"],
    &[
        "lead",
        "quiet",
        "handover",
        "jitter",
        "spread",
        "lease",
        "send",
        "timeout",
        "takeover",
        "poll",
        "hold",
        "hold_max",
        "hard_hold",
        "hard_hold_max",
    ],
];
/// What only slot mode has a use for.
const ONLY_IN_SLOTS: [&str; 2] = ["slot", "flight"];

/// Reads how the fleet coordinates.
pub(super) fn read(
    scope: &mut Scope<'_>,
    flavour: Flavour,
    repeated: Repeated,
    store: Option<&StoreUrl>,
) -> Option<Plan> {
    let nature = repeated.nature;
    let usual = if nature == Nature::Opaque { Mode::Lease } else { Mode::Replay };
    let way = scope.choice_or("mode", &WAYS, Way::Fleet(usual));
    check_way(scope, way, flavour, nature, store);
    let mode_is_right = !scope.sheet.is_broken(&scope.path("mode"));
    let plan = match way {
        Way::Slot => Plan::Slot(slots(scope, flavour)),
        Way::Fleet(mode) => Plan::Fleet(rules(scope, flavour, repeated, mode)),
    };
    let life = scope.path("life");
    // Sums with a number that could not be read would be about a default that nobody chose.
    if !mode_is_right || scope.sheet.is_broken_in(&life) || scope.sheet.is_broken(&life) {
        return Some(plan);
    }
    let contradictions = match &plan {
        Plan::Slot(slots) => slots.check(),
        Plan::Fleet(rules) => rules.check(),
    };
    for contradiction in &contradictions {
        contradicts(scope, contradiction);
    }
    if contradictions.is_empty() {
        notes(scope, &plan);
    }
    Some(plan)
}

fn check_way(scope: &mut Scope<'_>, way: Way, flavour: Flavour, nature: Nature, store: Option<&StoreUrl>) {
    let source = flavour.name();
    match (way, nature) {
        (Way::Slot, Nature::Opaque | Nature::Idempotent) => {
            let fault = Fault::new(
                format!("cannot be `slot` for `{source}`: each node would mint a credential of its own"),
                "slots are for what is signed here, `apns` and `jwt`: use `lease`, or `exclusive`",
            );
            scope.fault("mode", &fault);
        }
        (Way::Fleet(Mode::Replay), Nature::Opaque) => {
            let hint = if flavour == Flavour::Http {
                "set `idempotent = true` if the service honours `Idempotency-Key`, or use `lease` or `exclusive`"
            } else {
                "use `lease` where several may be valid at once, or `exclusive`"
            };
            let fault = format!("cannot be `replay` for `{source}`: a repeated mint brings another credential");
            scope.fault("mode", &Fault::new(fault, hint));
        }
        _ => {}
    }
    if way == Way::Fleet(Mode::Exclusive) && store == Some(&StoreUrl::Memory) {
        let hint = "use `store.url = \"sqlite:PATH\"` or `postgres://..`: what happened before must survive a restart";
        scope.warn("mode", "is `exclusive`, but a `memory:` store knows of one process only, and forgets", hint);
    }
}

/// Names the sum, at the line of the first setting in it that somebody wrote.
fn contradicts(scope: &mut Scope<'_>, found: &Contradiction) {
    let fault = Fault::new(format!("does not add up: {}", found.sum), found.hint.clone());
    if found.field == "on_doubt" {
        scope.fault("on_doubt", &fault);
        return;
    }
    let life = scope.inner("life");
    let words: Vec<&str> = found.sum.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mentioned = words.iter().copied().find(|word| !word.is_empty() && life.is_written(word));
    let place = if life.is_written(found.field) { Some(found.field) } else { mentioned };
    let origin =
        place.map_or_else(|| life.sheet.place(&life.path(found.field)), |name| life.sheet.place(&life.path(name)));
    let path = life.path(found.field);
    life.sheet.fault(&path, origin, &fault, None);
}

/// Life from issue, with the limits of the upstream.
fn life_ms(life: &mut Scope<'_>, flavour: Flavour) -> u64 {
    let usual = match flavour {
        Flavour::Apns => 55 * MINUTE,
        Flavour::Jwt | Flavour::AppStoreConnect => 15 * MINUTE,
        Flavour::GithubApp => 9 * MINUTE,
        _ => 60 * MINUTE,
    };
    let life_ms = match flavour {
        Flavour::AppStoreConnect | Flavour::GithubApp if !life.is_written("max") => {
            life.explain("max", show_duration(usual), Origin::Preset(flavour.name()));
            usual
        }
        _ => life.number_or("max", usual),
    };
    let (most, why) = match flavour {
        Flavour::Apns => (60 * MINUTE, "Apple refuses older tokens with 403 `ExpiredProviderToken`: `55m` is usual"),
        Flavour::AppStoreConnect => (20 * MINUTE, "App Store Connect refuses longer ones with 401: `15m` is usual"),
        Flavour::GithubApp => (10 * MINUTE, "GitHub refuses longer ones with 401: `9m` is usual"),
        Flavour::GithubInstallation => (60 * MINUTE, "installation tokens live an hour"),
        Flavour::GoogleServiceAccount => (60 * MINUTE, "tokens of service accounts live an hour"),
        Flavour::AwsWebIdentity => (720 * MINUTE, "STS refuses longer sessions; the role's own maximum may be shorter"),
        Flavour::GcpWorkloadIdentity => {
            (720 * MINUTE, "Google refuses longer ones; more than 1h needs a policy of the organization")
        }
        _ => (u64::MAX, ""),
    };
    if life_ms > most {
        let must = format!("must be at most {} for `{}`, not {}", Span(most), flavour.name(), Span(life_ms));
        life.fault("max", &Fault::new(must, why));
    } else if flavour == Flavour::AppStoreConnect && life_ms > 19 * MINUTE {
        life.warn(
            "max",
            "is so close to the 20m that App Store Connect allows that a small clock error exceeds it",
            why,
        );
    }
    let (least, why) = match flavour {
        Flavour::AwsWebIdentity => (15 * MINUTE, "STS refuses shorter sessions: `1h` is usual"),
        Flavour::GithubInstallation | Flavour::GoogleServiceAccount => {
            (60 * MINUTE, "its tokens live an hour, and one that lives longer than `max` is not taken: `1h`")
        }
        _ => (0, ""),
    };
    if life_ms < least {
        let must = format!("must be at least {} for `{}`, not {}", Span(least), flavour.name(), Span(life_ms));
        life.fault("max", &Fault::new(must, why));
    }
    let is_signed = matches!(flavour, Flavour::Jwt | Flavour::AppStoreConnect | Flavour::GithubApp);
    if is_signed && !life_ms.is_multiple_of(SECOND) {
        let must = format!("must be whole seconds, not {}", Span(life_ms));
        life.fault("max", &Fault::new(must, "the times in a token are whole seconds (RFC 7519 2)"));
    }
    life_ms
}

fn min_interval_ms(life: &mut Scope<'_>, flavour: Flavour, usual: u64) -> u64 {
    if flavour != Flavour::Apns {
        return life.number_or("min_interval", usual);
    }
    let min_interval_ms = life.number_or("min_interval", APNS_MIN_INTERVAL_MS);
    if min_interval_ms < APNS_MIN_INTERVAL_MS {
        let hint = "Apple answers 429 `TooManyProviderTokenUpdates` to new tokens within 20 minutes";
        life.warn("min_interval", &format!("is less than 20m: {}", Span(min_interval_ms)), hint);
    }
    min_interval_ms
}

/// `skew`, `upstream_skew` and `backdate`.
fn skews(life: &mut Scope<'_>, flavour: Flavour) -> (u64, u64, u64) {
    let skew_ms = life.number("skew");
    let upstream_skew_ms = life.number_or("upstream_skew", skew_ms);
    let backdate_ms = match flavour {
        _ if flavour.is_called() => 0,
        _ => {
            let needed = skew_ms.saturating_add(upstream_skew_ms).next_multiple_of(SECOND);
            life.number_or("backdate", BACKDATE_MS.max(needed))
        }
    };
    (skew_ms, upstream_skew_ms, backdate_ms)
}

fn slots(scope: &mut Scope<'_>, flavour: Flavour) -> Slots {
    let [outer, inner] = NOT_IN_SLOTS;
    useless(scope, outer, "has no effect in slot mode: nothing is kept in a store");
    let mut life = scope.inner("life");
    useless(&mut life, inner, "has no effect in slot mode: each node computes the token of the slot");
    let life_ms = life_ms(&mut life, flavour);
    let min_interval_ms = min_interval_ms(&mut life, flavour, 0);
    let (skew_ms, upstream_skew_ms, backdate_ms) = skews(&mut life, flavour);
    let usual = if flavour == Flavour::Apns { 30 * MINUTE } else { (life_ms / 2 / SECOND * SECOND).max(SECOND) };
    let period_ms = life.number_or("slot", usual);
    let flight_ms = life.number("flight");
    if !life.is_written("skew") {
        let hint = "write `skew`: nothing but the clocks keeps the nodes together in slot mode";
        life.warn("skew", "is assumed to be 2s, the default", hint);
    }
    Slots { period_ms, backdate_ms, life_ms, skew_ms, upstream_skew_ms, flight_ms, min_interval_ms }
}

fn rules(scope: &mut Scope<'_>, flavour: Flavour, repeated: Repeated, mode: Mode) -> Rules {
    let is_exclusive = mode == Mode::Exclusive;
    let doubt = match mode {
        Mode::Replay => OnDoubt::RetrySame,
        _ if repeated.spends => OnDoubt::Reauthorize,
        _ => OnDoubt::Wait,
    };
    let on_doubt = scope.choice_or("on_doubt", &DOUBTS, doubt);
    if repeated.spends && on_doubt != OnDoubt::Reauthorize {
        scope.warn(
            "on_doubt",
            "lets a refresh token be used again that may have been used: a server that rotates them may revoke all",
            "use `on_doubt = \"reauth\"`, or `params.rotates = false` if the server does not rotate",
        );
    }
    let first_mint_waits = scope.choice_or("first_mint", &FIRST_MINTS, is_exclusive);
    let history_max = usize::try_from(scope.number("history")).unwrap_or(usize::MAX);
    let mut life = scope.inner("life");
    useless(&mut life, &ONLY_IN_SLOTS, "has no effect outside slot mode");
    let life_ms = life_ms(&mut life, flavour);
    let min_interval_ms = min_interval_ms(&mut life, flavour, (life_ms / 10).min(MINUTE));
    let usual = match flavour {
        Flavour::Apns => 10 * MINUTE,
        // AWS SDKs ask before each signature when less than 15 minutes are left: with this, nobody gets there.
        Flavour::AwsWebIdentity => (life_ms / 5).max(20 * MINUTE).min(life_ms / 2),
        _ => life_ms / 5,
    };
    let lead_ms = life.share_or("lead", life_ms, usual);
    let is_clock_trusted = life.is_written("skew");
    let (skew_ms, upstream_skew_ms, backdate_ms) = skews(&mut life, flavour);
    // A switch that all nodes make together needs a credential that costs nothing until it is used.
    let switches = mode == Mode::Replay && repeated.nature == Nature::Deterministic;
    let handover_ms = life.number_or("handover", if switches { lead_ms / 2 } else { 0 });
    let refresh_jitter_ms = life.number_or("jitter", lead_ms / 4);
    let spread = if is_exclusive { (lead_ms / 4).min(2 * SECOND) } else { lead_ms / 4 };
    let wake_spread_ms = life.number_or("spread", spread);
    let stale_ms = if flavour.is_called() { life.number("stale") } else { 0 };
    let send_ms = life.number("send");
    let answer_ms = life.number("timeout");
    let window = send_ms.saturating_add(answer_ms).saturating_add(5 * SECOND);
    let lease_ms = life.number_or("lease", window.max(20 * SECOND));
    let takeover_ms = life.number_or("takeover", lease_ms.saturating_add(lease_ms.div_ceil(4)));
    let poll_ms = life.number("poll");
    let quiet = quiet(&mut life);
    let (hold_ms, hold_ms_max) = hold(&mut life, "hold", "hold_max");
    let (hard_hold_ms, hard_hold_ms_max) = hold(&mut life, "hard_hold", "hard_hold_max");
    Rules {
        mode,
        on_doubt,
        lease_ms,
        takeover_ms,
        send_ms,
        answer_ms,
        min_interval_ms,
        skew_ms: skew_ms.max(upstream_skew_ms),
        is_clock_trusted,
        life_ms,
        lead_ms,
        backdate_ms,
        handover_ms,
        wake_spread_ms,
        refresh_jitter_ms,
        hold_ms,
        hold_ms_max,
        hard_hold_ms,
        hard_hold_ms_max,
        poll_ms,
        stale_ms,
        first_mint_waits,
        quiet,
        history_max,
    }
}

fn quiet(life: &mut Scope<'_>) -> Vec<Quiet> {
    let Some(texts) = life.texts("quiet") else {
        life.explain("quiet", "[]".into(), Origin::Default);
        return Vec::new();
    };
    let mut all = Vec::new();
    for (at, (text, origin)) in texts.into_iter().enumerate() {
        match quiet::windows(&text) {
            Ok(windows) => all.extend(windows),
            Err(fault) => {
                let path = format!("{}[{at}]", life.path("quiet"));
                life.sheet.fault(&path, origin, &fault, None);
            }
        }
    }
    all
}

fn hold(life: &mut Scope<'_>, first: &str, longest: &str) -> (u64, u64) {
    let first_ms = life.number(first);
    let longest_ms = life.number(longest);
    if first_ms > longest_ms {
        let must = format!("must not be longer than `{longest}`: {} is more than {}", Span(first_ms), Span(longest_ms));
        life.fault(first, &Fault::new(must, format!("lengthen `{longest}`")));
    }
    (first_ms, longest_ms)
}

fn useless(scope: &mut Scope<'_>, names: &[&str], why: &str) {
    for name in names {
        if scope.is_written(name) {
            scope.warn(name, why, "remove it, or change `mode`");
        }
    }
}

/// What holds, but closely.
fn notes(scope: &mut Scope<'_>, plan: &Plan) {
    let Plan::Fleet(rules) = plan else { return };
    let mut life = scope.inner("life");
    if rules.faults_absorbed() == 1 {
        let needed = rules.fault_ms().saturating_mul(2).saturating_add(rules.skew_ms);
        let message = format!(
            "absorbs one lost answer or crash, not two in a row: {} is less than 2 x {} + skew {} = {}",
            Span(rules.lead_ms),
            Span(rules.fault_ms()),
            Span(rules.skew_ms),
            Span(needed)
        );
        life.warn("lead", &message, "lengthen `lead`, as far as `max` and `min_interval` allow");
    }
    let settled = rules.wake_spread_ms.saturating_add(rules.skew_ms.saturating_mul(2)).saturating_add(AFFINITY_MS);
    if rules.handover_ms > 0 && rules.handover_ms < settled {
        let message = format!(
            "is shorter than spread {} + 2 x skew {} + {} = {}: {}",
            Span(rules.wake_spread_ms),
            Span(rules.skew_ms),
            Span(AFFINITY_MS),
            Span(settled),
            Span(rules.handover_ms)
        );
        life.warn("handover", &message, "nodes that look late switch late: lengthen `handover`, or shorten `spread`");
    }
}
