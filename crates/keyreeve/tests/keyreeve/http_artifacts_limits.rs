//! More requests at once than a gate of artifacts takes.

use keyreeve::config::{ArtifactConfig, Compat};

use crate::http_artifacts::{Bucket, Does, Gate, T, config, timed};
use crate::http_world::{SECOND, pass};

#[tokio::test(start_paused = true)]
async fn too_many_at_once_are_503_and_not_kept_waiting() {
    let settings = ArtifactConfig { requests_max: 2, ..config(Compat::Own) };
    let gate = Gate::with(settings, (Bucket::new(), Bucket::new())).await;
    gate.both(Does::Hang);
    let paths = ["a", "b", "c"].map(|name| format!("/artifacts/v1/{T}/{name}"));
    let answers = futures::future::join_all(paths.iter().map(|path| timed(gate.get(path)))).await;
    assert!(answers.iter().all(|(answer, _)| answer.status == 503));
    assert_eq!(answers.iter().filter(|(_, ms)| *ms < 10).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_answered_where_too_many_wait_for_something_else() {
    let settings = ArtifactConfig { requests_max: 1, ..config(Compat::Own) };
    let gate = Gate::with(settings, (Bucket::new(), Bucket::new())).await;
    assert_eq!(gate.sdl().await.status, 200);
    pass(2 * SECOND).await;
    gate.both(Does::Hang);
    let path = format!("/artifacts/v1/{T}/a");
    let (waiting, (kept, ms)) = futures::future::join(gate.get(&path), timed(gate.sdl())).await;
    assert_eq!((waiting.status.as_u16(), kept.status.as_u16()), (503, 200), "{kept}");
    assert!(kept.header("warning").is_some() && ms < 10, "{ms} ms");
}
