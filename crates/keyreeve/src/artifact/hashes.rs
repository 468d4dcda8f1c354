//! The hashes of tokens in the bucket of GraphQL Hive: `cdn-keys/TARGET/KEY-ID` and `cdn-legacy-keys/TARGET`.
//!
//! A hash that is not there was taken back; a bucket that does not answer, or refuses, says nothing about any token.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use futures::future::{Either, select};
use keyreeve_core::token::{TokenId, is_target};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStoreExt as _};

use super::objects::Objects;
use super::origins::is_absent;
use crate::access::{Imported, Unavailable};
use crate::port::Host;

/// The folder of the hashes of keys.
const KEYS: &str = "cdn-keys";
/// The folder of the hashes of legacy tokens.
const LEGACY: &str = "cdn-legacy-keys";
/// The folder of the artifacts.
const ARTIFACTS: &str = "artifact";
/// Far above what a hash of bcrypt has, in bytes.
const HASH_BYTES_MAX: u64 = 256;
/// How long the bucket may take for one object, in milliseconds.
const ANSWER_MS: u64 = 3000;
/// How long a list, or taking away all there is of a target, may take, in milliseconds.
const ALL_MS: u64 = 60_000;
/// The most hashes that are listed.
pub const LISTED_MAX: usize = 1_000_000;

/// Hashes in a bucket.
pub struct Hashes {
    objects: Objects,
    host: Arc<dyn Host>,
}

/// What a bucket holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Targets and ids of keys.
    pub keys: Vec<(String, TokenId)>,
    /// Targets with a legacy token.
    pub legacy: Vec<String>,
    /// Names under both folders that stand for neither.
    pub strange: usize,
}

impl Hashes {
    /// The hashes in this bucket. Deadlines are measured by `host`.
    #[must_use]
    pub fn new(objects: Objects, host: Arc<dyn Host>) -> Self {
        Self { objects, host }
    }

    /// Everything there is.
    ///
    /// # Errors
    /// [`Unavailable`]: no whole answer in time, or more than [`LISTED_MAX`] objects.
    pub async fn list(&self) -> Result<Listed, Unavailable> {
        let work = async {
            let mut listed = Listed::default();
            for folder in [KEYS, LEGACY] {
                let mut names = self.objects.store.list(Some(&Path::from(folder)));
                while let Some(found) = names.try_next().await.map_err(|error| told(&error))? {
                    listed.add(&found.location);
                    if listed.keys.len() + listed.legacy.len() + listed.strange > LISTED_MAX {
                        return Err(Unavailable(format!("there are more than {LISTED_MAX} hashes")));
                    }
                }
            }
            if listed == Listed::default() {
                self.objects.is_there().await.map_err(|error| told(&error))?;
            }
            Ok(listed)
        };
        self.in_time(ALL_MS, work).await
    }

    /// Whether a target has artifacts beside its hashes.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn has_artifacts(&self, target: &str) -> Result<bool, Unavailable> {
        // A target that could stand for another folder has none.
        name(target, None)?;
        let folder = Path::from(format!("{ARTIFACTS}/{target}"));
        let work = async {
            let mut names = self.objects.store.list(Some(&folder));
            Ok(names.try_next().await.map_err(|error| told(&error))?.is_some())
        };
        self.in_time(ANSWER_MS, work).await
    }

    async fn in_time<T>(&self, ms: u64, work: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let until = self.host.now().mono.plus(ms);
        match select(std::pin::pin!(work), self.host.sleep_until(until)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(Unavailable(format!("{} did not answer within {ms}ms", self.objects.place()))),
        }
    }

    async fn delete(&self, name: &Path) -> Result<(), Unavailable> {
        match self.objects.store.delete(name).await {
            Ok(()) => Ok(()),
            // A folder that is itself gone may come back with it.
            Err(error @ Error::NotFound { .. }) => match self.objects.judged(error).await {
                Error::NotFound { .. } => Ok(()),
                error => Err(told(&error)),
            },
            Err(error) => Err(told(&error)),
        }
    }
}

impl Listed {
    fn add(&mut self, name: &Path) {
        let parts: Vec<_> = name.parts().map(|part| part.as_ref().to_owned()).collect();
        match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [KEYS, target, id] if is_target(target) => match TokenId::parse(id) {
                Some(id) => self.keys.push(((*target).to_owned(), id)),
                None => self.strange += 1,
            },
            [LEGACY, target] if is_target(target) => self.legacy.push((*target).to_owned()),
            _ => self.strange += 1,
        }
    }
}

/// The name of a hash. `None` for a target that could stand for another folder.
fn name(target: &str, id: Option<TokenId>) -> Result<Path, Unavailable> {
    if !is_target(target) {
        return Err(Unavailable("no target is called that".to_owned()));
    }
    let text = match id {
        Some(id) => format!("{KEYS}/{target}/{id}"),
        None => format!("{LEGACY}/{target}"),
    };
    Path::parse(text).map_err(|_| Unavailable("no object is called that".to_owned()))
}

/// What went wrong. The library's own text may hold the URL, and with it nothing secret: requests are signed by headers.
fn told(error: &Error) -> Unavailable {
    Unavailable(error.to_string())
}

#[async_trait]
impl Imported for Hashes {
    async fn hash(&self, target: &str, id: Option<TokenId>) -> Result<Option<String>, Unavailable> {
        let name = name(target, id)?;
        let work = async {
            let options = GetOptions { range: Some((0..HASH_BYTES_MAX).into()), ..GetOptions::default() };
            let found = match self.objects.read(&name, options).await {
                Ok(found) => found,
                // A bucket or a folder that is itself gone has taken nothing back.
                Err(error) => return if is_absent(&error) { Ok(None) } else { Err(told(&error)) },
            };
            let bytes = found.bytes().await.map_err(|error| told(&error))?;
            // What is not text is no hash of any secret.
            Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
        };
        self.in_time(ANSWER_MS, work).await
    }

    async fn put(&self, target: &str, id: Option<TokenId>, hash: &str) -> Result<(), Unavailable> {
        let name = name(target, id)?;
        let work = async {
            self.objects.make_ready(&name).await.map_err(|error| told(&error))?;
            self.objects.store.put(&name, hash.to_owned().into()).await.map(drop).map_err(|error| told(&error))
        };
        self.in_time(ANSWER_MS, work).await
    }

    async fn remove(&self, target: &str, id: Option<TokenId>) -> Result<(), Unavailable> {
        let name = name(target, id)?;
        self.in_time(ANSWER_MS, self.delete(&name)).await
    }

    async fn drop_target(&self, target: &str) -> Result<(), Unavailable> {
        let legacy = name(target, None)?;
        let folder = Path::parse(format!("{KEYS}/{target}")).map_err(|_| Unavailable("no such folder".to_owned()))?;
        let work = async {
            self.delete(&legacy).await?;
            let mut names = self.objects.store.list(Some(&folder));
            while let Some(found) = names.try_next().await.map_err(|error| told(&error))? {
                self.delete(&found.location).await?;
            }
            Ok(())
        };
        self.in_time(ALL_MS, work).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::system::host::OsHost;

    const TARGET: &str = "6ae2b6f4-2ba8-4b2b-9f6d-1d2f0b9d5c11";

    fn hashes() -> (Hashes, Arc<InMemory>) {
        let store = Arc::new(InMemory::new());
        let objects = Objects::new(Arc::clone(&store) as _, "memory");
        (Hashes::new(objects, Arc::new(OsHost::new())), store)
    }

    #[tokio::test]
    async fn a_hash_is_where_hive_has_it_and_one_that_is_gone_is_none() {
        let (hashes, store) = hashes();
        let id = TokenId([7; 16]);
        assert_eq!(hashes.hash(TARGET, Some(id)).await, Ok(None));
        hashes.put(TARGET, Some(id), "$2a$10$x").await.unwrap();
        store.put(&Path::from(format!("cdn-legacy-keys/{TARGET}")), "$2a$10$y\n".into()).await.unwrap();
        store.put(&Path::from("cdn-keys/other/not-an-id"), "z".into()).await.unwrap();
        assert!(store.head(&Path::from(format!("cdn-keys/{TARGET}/{id}"))).await.is_ok());
        assert_eq!(hashes.hash(TARGET, Some(id)).await, Ok(Some("$2a$10$x".into())));
        assert_eq!(hashes.hash(TARGET, None).await, Ok(Some("$2a$10$y".into())));
        assert_eq!(
            hashes.list().await,
            Ok(Listed { keys: vec![(TARGET.into(), id)], legacy: vec![TARGET.into()], strange: 1 })
        );
        hashes.remove(TARGET, Some(id)).await.unwrap();
        hashes.remove(TARGET, Some(id)).await.unwrap();
        assert_eq!(hashes.hash(TARGET, Some(id)).await, Ok(None));
    }

    #[tokio::test]
    async fn dropping_a_target_leaves_others_alone_and_no_target_is_a_path() {
        let (hashes, _) = hashes();
        let id = TokenId([7; 16]);
        hashes.put(TARGET, Some(id), "a").await.unwrap();
        hashes.put("acme", Some(id), "b").await.unwrap();
        hashes.drop_target(TARGET).await.unwrap();
        assert_eq!(hashes.hash(TARGET, Some(id)).await, Ok(None));
        assert_eq!(hashes.hash("acme", Some(id)).await, Ok(Some("b".into())));
        for target in ["", "..", "a/b", "a\0"] {
            assert!(hashes.hash(target, None).await.is_err(), "{target:?}");
        }
    }
}
