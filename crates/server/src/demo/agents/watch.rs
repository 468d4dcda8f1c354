//! What the store says: who has announced a refresh whose outcome is not known.

use std::path::Path;

use keyreeve::engine::sqlite::{Options, Sqlite};
use keyreeve::port::Register as _;
use keyreeve_core::record::Record;

/// Reads the store of the nodes.
pub(super) struct Watch(Sqlite);

impl Watch {
    pub(super) fn open(file: &Path) -> Result<Self, String> {
        Sqlite::open(file, Options::default()).map(Self).map_err(|error| error.to_string())
    }

    async fn record(&self) -> Option<Record> {
        let keys = self.0.list("cr/", None, 1).await.ok()?;
        let entry = self.0.read(keys.first()?).await.ok()??;
        Record::decode(&entry.bytes).ok()
    }

    /// The node that has announced a refresh, and has not said what became of it.
    pub(super) async fn minting(&self) -> Option<String> {
        let intent = self.record().await?.intent?;
        Some(intent.holder.node.as_str().to_owned())
    }

    /// The newest generation that is published.
    pub(super) async fn published(&self) -> u64 {
        self.record().await.and_then(|record| record.newest().map(|newest| newest.generation)).unwrap_or_default()
    }
}
