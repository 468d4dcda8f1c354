//! Numbers that contradict each other are refused with the sum, and not one millisecond too early.

use keyreeve_core::rules::{Mode, OnDoubt, Rules};

use crate::given::{HOUR, MINUTE, SECOND, exclusive, lease, replay};

fn sums(rules: &Rules) -> Vec<(&'static str, String)> {
    rules.check().into_iter().map(|found| (found.field, found.sum)).collect()
}

/// `sound` holds; `broken`, one step further, is refused for `field` with exactly this sum.
#[track_caller]
fn edge(sound: &Rules, broken: &Rules, field: &'static str, sum: &str) {
    assert_eq!(sums(sound), [], "the sound side");
    assert_eq!(sums(broken), [(field, sum.to_owned())]);
    assert!(broken.check().iter().all(|found| !found.hint.is_empty() && !found.hint.ends_with('.')));
}

#[test]
fn the_numbers_of_the_examples_hold() {
    for rules in [exclusive(), lease(), replay()] {
        assert_eq!(sums(&rules), [], "{rules:?}");
    }
}

#[test]
fn a_lease_outlives_the_mint_under_it() {
    edge(
        &Rules { lease_ms: 15 * SECOND, ..exclusive() },
        &Rules { lease_ms: 15 * SECOND - 1, ..exclusive() },
        "lease",
        "lease 14s 999ms is less than send 5s + timeout 10s = 15s",
    );
}

#[test]
fn a_challenger_waits_a_fifth_longer_than_the_lease() {
    edge(
        &Rules { takeover_ms: 24 * SECOND, ..exclusive() },
        &Rules { takeover_ms: 24 * SECOND - 1, ..exclusive() },
        "takeover",
        "takeover 23s 999ms is less than lease 20s x 1.2 = 24s",
    );
}

#[test]
fn a_request_has_time_to_leave_and_to_be_answered() {
    let sum = "timeout 0s is less than the least, 1ms";
    edge(&Rules { send_ms: 1, ..exclusive() }, &Rules { send_ms: 0, ..exclusive() }, "timeout", sum);
    edge(&Rules { answer_ms: 1, ..exclusive() }, &Rules { answer_ms: 0, ..exclusive() }, "timeout", sum);
}

#[test]
fn every_mode_has_a_rate_floor() {
    for rules in [exclusive(), lease(), replay()] {
        edge(
            &Rules { min_interval_ms: 1, ..rules.clone() },
            &Rules { min_interval_ms: 0, ..rules },
            "min_interval",
            "min_interval 0s is less than the least, 1ms",
        );
    }
}

#[test]
fn a_lead_is_shorter_than_the_life() {
    edge(
        &Rules { lead_ms: HOUR - 10 * SECOND, ..lease() },
        &Rules { lead_ms: HOUR, ..lease() },
        "lead",
        "lead 1h is not shorter than max 1h",
    );
}

#[test]
fn a_renewal_does_not_fall_due_before_the_upstream_allows_it() {
    edge(
        &Rules { lead_ms: 40 * MINUTE, ..exclusive() },
        &Rules { lead_ms: 40 * MINUTE + 1, ..exclusive() },
        "min_interval",
        "max 1h - lead 40m 1ms = 19m 59s 999ms is less than min_interval 20m",
    );
}

#[test]
fn a_lead_absorbs_at_least_one_lost_answer() {
    let least = 20 * MINUTE + 17 * SECOND;
    edge(
        &Rules { lead_ms: least, ..exclusive() },
        &Rules { lead_ms: least - 1, ..exclusive() },
        "lead",
        "lead 20m 16s 999ms is less than one fault 20m 15s + skew 2s = 20m 17s",
    );
    edge(
        &Rules { lead_ms: 27 * SECOND, ..lease() },
        &Rules { lead_ms: 27 * SECOND - 1, ..lease() },
        "lead",
        "lead 26s 999ms is less than one fault 25s + skew 2s = 27s",
    );
}

#[test]
fn the_switch_comes_before_expiry() {
    edge(
        &Rules { handover_ms: 30 * MINUTE - 2 * SECOND - 1, ..exclusive() },
        &Rules { handover_ms: 30 * MINUTE - 2 * SECOND, ..exclusive() },
        "handover",
        "handover 29m 58s + skew 2s is not shorter than lead 30m",
    );
}

#[test]
fn a_backdated_credential_is_not_due_when_it_is_minted() {
    edge(
        &Rules { backdate_ms: 30 * MINUTE - 1, ..exclusive() },
        &Rules { backdate_ms: 30 * MINUTE, ..exclusive() },
        "backdate",
        "backdate 30m + lead 30m is not shorter than max 1h",
    );
}

#[test]
fn only_what_can_be_repeated_is_retried_in_doubt() {
    for rules in [exclusive(), lease()] {
        edge(
            &Rules { mode: Mode::Replay, on_doubt: OnDoubt::RetrySame, ..rules.clone() },
            &Rules { on_doubt: OnDoubt::RetrySame, ..rules },
            "on_doubt",
            "`retry-same` asks the upstream again for a mint that may have happened",
        );
    }
}

#[test]
fn an_exclusive_credential_is_never_served_past_its_expiry() {
    edge(
        &Rules { stale_ms: HOUR, ..lease() },
        &Rules { stale_ms: HOUR, ..exclusive() },
        "stale",
        "stale 1h keeps a second credential in use in exclusive mode",
    );
}

#[test]
fn all_contradictions_are_reported_together() {
    let broken = Rules {
        lease_ms: SECOND,
        takeover_ms: 0,
        send_ms: 0,
        min_interval_ms: 0,
        lead_ms: 2 * HOUR,
        on_doubt: OnDoubt::RetrySame,
        stale_ms: 1,
        ..exclusive()
    };
    let fields: Vec<&str> = broken.check().iter().map(|found| found.field).collect();
    assert_eq!(fields, ["lease", "takeover", "timeout", "min_interval", "lead", "on_doubt", "stale"]);
}

#[test]
fn the_worked_example_absorbs_one_lost_answer_and_no_setting_absorbs_two() {
    // Exclusive, 20 to 60 minutes: W = 5s + 10s + 20m.
    assert_eq!(exclusive().fault_ms(), 20 * MINUTE + 15 * SECOND);
    assert_eq!(exclusive().faults_absorbed(), 1);
    let two = Rules { lead_ms: 2 * exclusive().fault_ms() + 2 * SECOND, ..exclusive() };
    assert_eq!(two.faults_absorbed(), 2);
    assert_eq!(sums(&two).len(), 1, "such a lead leaves an age below min_interval: {:?}", sums(&two));
    // With an idempotency key, or signed locally, W is the takeover.
    assert_eq!(replay().fault_ms(), 25 * SECOND);
    assert_eq!(replay().faults_absorbed(), 71);
}

#[test]
fn a_lease_of_an_hour_with_ten_minutes_of_lead_absorbs_23_faults() {
    assert_eq!(lease().faults_absorbed(), 23);
    assert_eq!(Rules { lead_ms: 23 * 25 * SECOND + 2 * SECOND, ..lease() }.faults_absorbed(), 23);
    assert_eq!(Rules { lead_ms: 23 * 25 * SECOND + 2 * SECOND - 1, ..lease() }.faults_absorbed(), 22);
}

#[test]
fn numbers_at_the_end_of_the_scale_are_refused_and_do_not_panic() {
    let most = Rules {
        lease_ms: u64::MAX,
        takeover_ms: u64::MAX,
        send_ms: u64::MAX,
        answer_ms: u64::MAX,
        min_interval_ms: u64::MAX,
        skew_ms: u64::MAX,
        life_ms: u64::MAX,
        lead_ms: u64::MAX - 1,
        backdate_ms: u64::MAX,
        handover_ms: u64::MAX,
        ..exclusive()
    };
    assert!(!sums(&most).is_empty());
    assert_eq!(Rules { takeover_ms: 0, ..lease() }.faults_absorbed(), 0, "nothing is not absorbed endlessly");
}
