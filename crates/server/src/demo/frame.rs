//! What demonstrations have in common: they end when somebody interrupts them, tell what happens, and end with a verdict.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::exit::{Code, Failure, say, tell};
use crate::signal::Signals;

/// How long those under way get to end what they are at.
const FINISH_WITHIN: Duration = Duration::from_secs(15);

/// Where the lines of a demonstration go.
pub(super) type Print = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs a demonstration until it ends, or until somebody has had enough of it. Dropping it ends its processes.
pub(super) async fn until_stopped(run: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(unavailable)?;
    tokio::select! {
        result = run => result,
        () = signals.until_stop() => Err(Failure::new(Code::CheckFailed, "interrupted; all nodes have been ended")),
    }
}

/// The demonstration itself cannot go on.
pub(super) fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Unavailable, error.to_string())
}

/// Lines go to standard output, and where the result goes there as JSON, to standard error.
pub(super) fn printer(is_json: bool) -> Print {
    Arc::new(move |line: &str| if is_json { tell(line) } else { say(line) })
}

/// Waits until all who were told to end have ended.
pub(super) async fn all_end(mut workers: JoinSet<()>) -> Result<(), Failure> {
    let all = async { while workers.join_next().await.is_some() {} };
    tokio::time::timeout(FINISH_WITHIN, all).await.map_err(|_| unavailable("those under way did not end"))
}

/// The wall clock, which all processes of this machine share, in milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Says what happens, and when.
pub(super) struct Diary {
    print: Print,
    start: Instant,
}

impl Diary {
    pub(super) fn new(print: &Print) -> Self {
        Self { print: Arc::clone(print), start: Instant::now() }
    }

    /// Something happens that is nobody's in particular.
    pub(super) fn tell(&self, what: &str) {
        (self.print)(&format!("{:>7.1}s  {what}", self.start.elapsed().as_secs_f64()));
    }

    /// Something happens to somebody.
    pub(super) fn tell_of(&self, who: &str, what: &str) {
        self.tell(&format!("{who:<8} {what}"));
    }
}

/// Says what was not held and the verdict: `held` where nothing is to be complained of. `result` goes to standard output with
/// it where it is wanted.
///
/// # Errors
/// Code 1, without a word more, where something was not held.
pub(super) fn conclude(print: &Print, complaints: &[String], held: &str, result: Option<Value>) -> Result<(), Failure> {
    for complaint in complaints {
        print(&format!("NOT HELD: {complaint}"));
    }
    let is_clean = complaints.is_empty();
    print(&if is_clean { format!("held: {held}") } else { "not held".to_owned() });
    if let Some(mut result) = result {
        if let Some(members) = result.as_object_mut() {
            members.insert("is_clean".to_owned(), json!(is_clean));
            members.insert("problems".to_owned(), json!(complaints));
        }
        say(&result.to_string());
    }
    if is_clean { Ok(()) } else { Err(Failure::quiet(Code::CheckFailed)) }
}
