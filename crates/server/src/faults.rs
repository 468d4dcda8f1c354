//! Switches for tests and demonstrations with real processes. Each one in use is a warning in the log.
//!
//! | switch | what it does |
//! |---|---|
//! | `KEYREEVE_TEST_FAULTS=DIR`, file `store-cut` in it | no call reaches the store |
//! | the same, file `store-lost-answers` | calls reach the store, their answers are lost |
//! | the same, file `key-delay-ms` with a number | every new key of an issuer waits that long by the node's clock before it is published |
//! | the same, file `mint-delay-ms` with a number | every mint waits that long by the node's clock before it begins |
//! | the same, file `commit-delay-ms` with a number | what every mint brought waits that long before anybody gets to know it |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use keyreeve::core::jwt::Algorithm;
use keyreeve::core::lifecycle::Order;
use keyreeve::core::record::OneUse;
use keyreeve::engine::switched::Switched;
use keyreeve::inbound::issuer::{KeyMaker, KeyPair};
use keyreeve::port::{Host, Register};
use keyreeve::source::{Before, Identity, Kept, MintError, Minting, Nature, Source};

/// The variable that names the folder.
const VARIABLE: &str = "KEYREEVE_TEST_FAULTS";
/// A switch file with more than this is not read, in bytes.
const FILE_BYTES_MAX: u64 = 64;

/// The switches of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    folder: Option<PathBuf>,
}

impl Faults {
    /// Reads the environment, and says so in the log where there is something.
    pub(crate) fn from_environment() -> Self {
        let folder = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        if let Some(folder) = &folder {
            tracing::warn!(folder = %folder.display(), "{VARIABLE} is set: this node obeys fault switches and is not fit for production");
        }
        Self { folder }
    }

    /// Puts the store's switches around an engine.
    pub(crate) fn around_register(&self, engine: impl Register + 'static) -> Arc<dyn Register> {
        match &self.folder {
            Some(folder) => Arc::new(Switched::new(engine, folder.clone())),
            None => Arc::new(engine),
        }
    }

    /// Puts the key's switch around a maker of keys.
    pub(crate) fn around_maker(&self, maker: Arc<dyn KeyMaker>, host: &Arc<dyn Host>) -> Arc<dyn KeyMaker> {
        match &self.folder {
            Some(folder) => Arc::new(DelayedMaker { maker, host: Arc::clone(host), file: folder.join("key-delay-ms") }),
            None => maker,
        }
    }

    /// Puts the mint's switch around a source.
    pub(crate) fn around_source(&self, source: Arc<dyn Source>, host: &Arc<dyn Host>) -> Arc<dyn Source> {
        match &self.folder {
            Some(folder) => Arc::new(Delayed { source, host: Arc::clone(host), folder: folder.clone() }),
            None => source,
        }
    }
}

/// A maker of keys that takes its time.
struct DelayedMaker {
    maker: Arc<dyn KeyMaker>,
    host: Arc<dyn Host>,
    file: PathBuf,
}

#[async_trait]
impl KeyMaker for DelayedMaker {
    async fn make(&self, algorithm: Algorithm) -> Result<KeyPair, String> {
        let made = self.maker.make(algorithm).await;
        let delay_ms = number_in(&self.file);
        if delay_ms > 0 {
            tracing::warn!(delay_ms, "this key waits first, as `key-delay-ms` says");
            self.host.sleep_until(self.host.now().mono.plus(delay_ms)).await;
        }
        made
    }
}

/// A source that takes its time.
struct Delayed {
    source: Arc<dyn Source>,
    host: Arc<dyn Host>,
    folder: PathBuf,
}

#[async_trait]
impl Source for Delayed {
    fn kind(&self) -> &'static str {
        self.source.kind()
    }

    fn nature(&self) -> Nature {
        self.source.nature()
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        self.wait("mint-delay-ms").await;
        let result = self.source.mint(order, idempotency_key).await;
        self.wait("commit-delay-ms").await;
        result
    }

    fn identity(&self) -> Option<Identity> {
        self.source.identity()
    }

    fn is_chained(&self) -> bool {
        self.source.is_chained()
    }

    fn uses(&self, before: Before<'_>) -> Option<OneUse> {
        self.source.uses(before)
    }

    async fn mint_after(
        &self,
        order: &Order,
        idempotency_key: &str,
        before: Before<'_>,
    ) -> Result<(Minting, Option<Kept>), MintError> {
        self.wait("mint-delay-ms").await;
        let result = self.source.mint_after(order, idempotency_key, before).await;
        self.wait("commit-delay-ms").await;
        result
    }
}

impl Delayed {
    async fn wait(&self, switch: &str) {
        let delay_ms = number_in(&self.folder.join(switch));
        if delay_ms > 0 {
            tracing::warn!(delay_ms, "this mint waits, as `{switch}` says");
            self.host.sleep_until(self.host.now().mono.plus(delay_ms)).await;
        }
    }
}

/// The number in a switch file; 0 without one.
fn number_in(file: &Path) -> u64 {
    let is_small = std::fs::metadata(file).is_ok_and(|found| found.len() <= FILE_BYTES_MAX);
    let text = if is_small { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_file_is_a_number_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mint-delay-ms");
        assert_eq!(number_in(&file), 0);
        std::fs::write(&file, "1500\n").unwrap();
        assert_eq!(number_in(&file), 1500);
        std::fs::write(&file, "soon").unwrap();
        assert_eq!(number_in(&file), 0);
    }
}
