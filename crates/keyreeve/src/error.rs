//! Why there is no answer, by what the caller should do next.

use keyreeve_core::record::FaultClass;

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No credential has this name. Check the name.
    NotFound,
    /// The store does not answer. Wait.
    StoreUnavailable,
    /// The upstream, or the node that asks it, takes longer than the caller waits. Try again.
    UpstreamTimeout,
    /// The upstream, or the user's script, failed in a way that is likely to pass. Wait.
    UpstreamFailed,
    /// The upstream asked for fewer calls. Wait as long as it says.
    UpstreamThrottled,
    /// The upstream said no. Look at the message.
    UpstreamRejected,
    /// This side is set up wrongly. Look at the message.
    ConfigInvalid,
    /// A mint may or may not have happened; it is too early for the next one. Wait, or resolve.
    InDoubt,
    /// A mint may or may not have happened; an operator has to say.
    NeedsReauth,
    /// The upstream does not allow a mint yet. Wait.
    RenewalTooSoon,
    /// A valid credential exists, but not with as much life as was asked for. Ask for less.
    LifeTooShort,
    /// The stored secret cannot be opened with the keys of this node. Bring the key back.
    SealKeyMissing,
    /// The stored record is damaged or too new. It was left alone.
    RecordRefused,
    /// Somebody else changed the same thing at the same time. Try again.
    Conflict,
    /// Something that was asked for cannot be had. Look at the message.
    Unacceptable,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::NotFound,
        Self::StoreUnavailable,
        Self::UpstreamTimeout,
        Self::UpstreamFailed,
        Self::UpstreamThrottled,
        Self::UpstreamRejected,
        Self::ConfigInvalid,
        Self::InDoubt,
        Self::NeedsReauth,
        Self::RenewalTooSoon,
        Self::LifeTooShort,
        Self::SealKeyMissing,
        Self::RecordRefused,
        Self::Conflict,
        Self::Unacceptable,
    ];

    /// The name used in problem types, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::StoreUnavailable => "store-unavailable",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamThrottled => "upstream-throttled",
            Self::UpstreamRejected => "upstream-rejected",
            Self::ConfigInvalid => "config-invalid",
            Self::InDoubt => "in-doubt",
            Self::NeedsReauth => "needs-reauth",
            Self::RenewalTooSoon => "renewal-too-soon",
            Self::LifeTooShort => "life-too-short",
            Self::SealKeyMissing => "seal-key-missing",
            Self::RecordRefused => "record-refused",
            Self::Conflict => "conflict",
            Self::Unacceptable => "unprocessable",
        }
    }

    /// The kind that stands for a failed mint of this class.
    #[must_use]
    pub const fn of_fault(class: FaultClass) -> Self {
        match class {
            FaultClass::Transient => Self::UpstreamFailed,
            FaultClass::Throttled => Self::UpstreamThrottled,
            FaultClass::Terminal => Self::UpstreamRejected,
            FaultClass::Misconfigured => Self::ConfigInvalid,
        }
    }
}

/// No answer, and what to do about it. Cheap to share: all callers of one flight get the same one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What helps.
    pub kind: ErrorKind,
    /// A sentence that names the credential and the cause. Holds no secret.
    pub message: String,
    /// When trying again may help, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// An error that names its cause.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: None }
    }

    /// The same, with a time after which trying again may help.
    #[must_use]
    pub const fn after(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}
