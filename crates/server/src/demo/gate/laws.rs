//! What an answer may be: by what was asked for, and by who of those behind the gate answers at that time.

use super::fleet::{DEADLINE_MS, FRESH_MS, HEDGE_MS};

/// What a machine that does other things too may add, in milliseconds.
pub(super) const SLACK_MS: u64 = 250;
/// Within this a mirror has answered for a primary that hangs, in milliseconds.
pub(super) const MIRROR_MS: u64 = HEDGE_MS + SLACK_MS;
/// Within this what is kept is answered while nobody answers: both are asked, and are given a little time.
pub(super) const STALE_MS: u64 = 2 * HEDGE_MS + 250 + SLACK_MS;
/// Within this whoever gets nothing is told so.
pub(super) const AWAY_MS: u64 = DEADLINE_MS + SLACK_MS;
/// After a failure nobody waits for the origins again for a second; then everything is fresh again.
pub(super) const AGAIN_MS: u64 = 1000 + SLACK_MS;

/// One part of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Warm,
    Published,
    PrimaryHangs,
    BothHang,
    BothRefuse,
    Revoked,
    Dropped,
    Back,
}

/// Who of those behind the gate answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origins {
    Both,
    Mirror,
    Neither,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What each node has read and keeps.
    Known,
    /// What is there, and this node has not read yet.
    New,
    /// What is not there.
    Absent,
}

/// An answer of a gate.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    /// Whether it says that it is stale, and how old.
    pub(super) is_marked: bool,
    /// Whether it says when to come again.
    pub(super) says_when: bool,
    pub(super) version: Option<u64>,
    /// How long it took.
    pub(super) ms: u64,
}

impl Act {
    pub(super) const ALL: [Self; 8] = [
        Self::Warm,
        Self::Published,
        Self::PrimaryHangs,
        Self::BothHang,
        Self::BothRefuse,
        Self::Revoked,
        Self::Dropped,
        Self::Back,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Warm => "in order",
            Self::Published => "a new version",
            Self::PrimaryHangs => "the primary hangs",
            Self::BothHang => "both hang",
            Self::BothRefuse => "both say 403",
            Self::Revoked => "tokens revoked",
            Self::Dropped => "a target dropped",
            Self::Back => "both are back",
        }
    }

    const fn origins(self) -> Origins {
        match self {
            Self::Warm | Self::Published | Self::Back => Origins::Both,
            Self::PrimaryHangs => Origins::Mirror,
            Self::BothHang | Self::BothRefuse | Self::Revoked | Self::Dropped => Origins::Neither,
        }
    }

    /// Whether nobody behind the gate answers.
    pub(super) fn is_dark(self) -> bool {
        self.origins() == Origins::Neither
    }
}

/// The law that an answer to a good token breaks, which was asked for `into_ms` milliseconds after the act began.
pub(super) fn broken(act: Act, kind: Kind, got: Option<&Got>, into_ms: u64) -> Option<&'static str> {
    let Some(got) = got else { return Some("gave no answer") };
    let origins = act.origins();
    match (got.status, kind) {
        (401 | 403, _) => Some("refused a good token"),
        (200 | 304, Kind::Absent) => Some("handed out what is not there"),
        (200 | 304, _) => served(act, got, into_ms),
        (404, Kind::Absent) if origins == Origins::Both => None,
        (404, _) => Some("said 404 where nobody knew, or knew better"),
        (503, _) if !got.says_when => Some("answered 503 without `Retry-After`"),
        (503, _) if got.ms > AWAY_MS => Some("answered 503 after the deadline"),
        (503, Kind::Known) => Some("answered 503 for what it keeps"),
        (503, Kind::New) if origins != Origins::Neither => Some("answered 503 although an origin answers"),
        (503, Kind::Absent) if origins == Origins::Both => Some("answered 503 although the primary knows"),
        (503, _) => None,
        _ => Some("answered with a status that means nothing here"),
    }
}

fn served(act: Act, got: &Got, into_ms: u64) -> Option<&'static str> {
    let (is_settled, within_ms) = match act.origins() {
        Origins::Both => (act != Act::Back || into_ms > AGAIN_MS, AWAY_MS),
        Origins::Mirror => (true, MIRROR_MS),
        Origins::Neither => (into_ms > FRESH_MS + SLACK_MS, STALE_MS),
    };
    if got.ms > within_ms {
        return Some("handed out an artifact too late");
    }
    match (act.is_dark(), got.is_marked) {
        (true, false) if is_settled => Some("did not mark what is stale"),
        (false, true) if is_settled => Some("handed out something stale although an origin answers"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(status: u16, is_marked: bool, ms: u64) -> Got {
        Got { status, is_marked, says_when: status == 503, version: None, ms }
    }

    #[test]
    fn a_law_is_broken_by_each_answer_that_an_operator_fears() {
        let late = 60_000;
        let breaks = |act, kind, status, is_marked, ms| broken(act, kind, Some(&got(status, is_marked, ms)), late);
        for act in Act::ALL {
            assert!(broken(act, Kind::Known, None, late).is_some());
            for kind in [Kind::Known, Kind::New, Kind::Absent] {
                assert!(breaks(act, kind, 401, false, 1).is_some() && breaks(act, kind, 403, false, 1).is_some());
                assert!(breaks(act, kind, 500, false, 1).is_some());
            }
            assert!(breaks(act, Kind::Known, 503, false, 1).is_some());
            assert_eq!(breaks(act, Kind::Known, 304, act.is_dark(), 1), None, "{act:?}");
            assert!(breaks(act, Kind::Known, 200, !act.is_dark(), 1).is_some(), "{act:?}");
            assert_eq!(breaks(act, Kind::New, 503, false, 1).is_none(), act.is_dark(), "{act:?}");
            assert!(breaks(act, Kind::New, 404, false, 1).is_some(), "{act:?}");
        }
        assert_eq!(breaks(Act::Warm, Kind::Absent, 404, false, 1), None);
        assert!(breaks(Act::BothRefuse, Kind::Absent, 404, false, 1).is_some());
        assert_eq!(breaks(Act::PrimaryHangs, Kind::Absent, 503, false, DEADLINE_MS), None);
        assert!(breaks(Act::PrimaryHangs, Kind::Absent, 503, false, AWAY_MS + 1).is_some());
        assert!(breaks(Act::PrimaryHangs, Kind::New, 200, false, MIRROR_MS + 1).is_some());
        let silent = Got { says_when: false, ..got(503, false, 1) };
        assert!(broken(Act::BothHang, Kind::New, Some(&silent), late).is_some());
        // What was read a moment before is still fresh.
        assert_eq!(broken(Act::BothHang, Kind::Known, Some(&got(200, false, 1)), FRESH_MS), None);
    }
}
