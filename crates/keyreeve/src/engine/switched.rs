//! A register with a switch: cuts a node off from its store on purpose.
//!
//! For `keyreeve demo fleet` and tests with real processes, which cannot reach into a process to break its store. The
//! server puts it around its engine only where `KEYREEVE_TEST_FAULTS` names a folder. Not for production.

use std::future::ready;
use std::path::PathBuf;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use keyreeve_core::id::WriteId;

use crate::port::{Capabilities, Entry, Key, Register, StoreError, Swap};

/// An engine that obeys the files in a folder.
///
/// - `store-cut`: nothing reaches the engine; every call is refused
/// - `store-lost-answers`: every call reaches the engine, and its answer is lost
/// - `push-cut`: nobody hears of changes; whoever asks hears
#[derive(Debug)]
pub struct Switched<R> {
    engine: R,
    folder: PathBuf,
}

impl<R: Register> Switched<R> {
    /// Puts a switch around `engine`. The files in `folder` are looked at on every call.
    pub const fn new(engine: R, folder: PathBuf) -> Self {
        Self { engine, folder }
    }

    fn check_cut(&self) -> Result<(), StoreError> {
        if self.folder.join("store-cut").exists() {
            return Err(StoreError::Refused("cut off by KEYREEVE_TEST_FAULTS".into()));
        }
        Ok(())
    }

    fn deliver<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if self.folder.join("store-lost-answers").exists() {
            return Err(StoreError::Unknown("answer lost by KEYREEVE_TEST_FAULTS".into()));
        }
        answer
    }
}

#[async_trait]
impl<R: Register> Register for Switched<R> {
    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.check_cut()?;
        let answer = self.engine.read(key).await;
        self.deliver(answer)
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        self.check_cut()?;
        let answer = self.engine.swap(key, expected, next).await;
        self.deliver(answer)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.check_cut()?;
        let answer = self.engine.list(prefix, after, limit).await;
        self.deliver(answer)
    }

    fn changes(&self) -> Option<BoxStream<'static, Key>> {
        let folder = self.folder.clone();
        let is_told = move |_: &Key| !["store-cut", "push-cut"].iter().any(|name| folder.join(name).exists());
        Some(self.engine.changes()?.filter(move |key| ready(is_told(key))).boxed())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::memory::Memory;

    #[tokio::test]
    async fn a_cut_reaches_nothing_and_a_lost_answer_has_happened() {
        let folder = tempfile::tempdir().unwrap();
        let register = Switched::new(Memory::new(), folder.path().to_owned());
        let key = Key::new("k").unwrap();
        let entry = |n| Entry { op: WriteId([n; 16]), bytes: Bytes::from_static(b"v") };
        let touch = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();

        touch("store-cut");
        assert!(matches!(register.swap(&key, None, entry(1)).await, Err(StoreError::Refused(_))));
        assert!(matches!(register.read(&key).await, Err(StoreError::Refused(_))));
        std::fs::remove_file(folder.path().join("store-cut")).unwrap();
        assert_eq!(register.read(&key).await, Ok(None));

        touch("store-lost-answers");
        assert!(matches!(register.swap(&key, None, entry(2)).await, Err(StoreError::Unknown(_))));
        std::fs::remove_file(folder.path().join("store-lost-answers")).unwrap();
        assert_eq!(register.read(&key).await, Ok(Some(entry(2))));
    }
}
