//! The key of token hashes, and calls to the register with a deadline.

use futures::future::{Either, select};
use keyreeve_core::seal::key_of;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Span;
use keyreeve_core::token::HashKey;
use keyreeve_core::token::hash::SealedHashKey;

use super::Inner;
use crate::error::{Error, ErrorKind};
use crate::port::{Entry, Key, StoreError, Swap, fresh_write_id};

/// How often somebody else may be faster.
const TRIES_MAX: usize = 8;

impl Inner {
    /// The key of the hashes: read, or drawn where there is none yet, once in the life of this driver.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`]; [`ErrorKind::SealKeyMissing`] where it cannot be opened here.
    pub(super) async fn hash_key(&self) -> Result<&Secret<[u8; 32]>, Error> {
        if let Some(key) = self.hash_key.get() {
            return Ok(key);
        }
        for _ in 0..TRIES_MAX {
            let key = Key::of_hash_key();
            let Some(entry) = self.read(&key).await? else {
                let mut fresh = [0; 32];
                self.host.fill(&mut fresh);
                let next = self.sealed_hash_key(&Secret::new(fresh))?;
                // Whatever comes of it: the next round reads what is there.
                self.swap(&key, None, next).await?;
                continue;
            };
            let record = HashKey::decode(&entry.bytes).map_err(|error| refused(&error.to_string()))?;
            let opened = self.keys.open(self.crypto.as_ref(), SealedHashKey, &record.sealed);
            let opened =
                opened.map_err(|error| Error::new(ErrorKind::SealKeyMissing, format!("access tokens: {error}")))?;
            let bytes: [u8; 32] = opened
                .expose()
                .as_slice()
                .try_into()
                .map_err(|_| refused("the key of token hashes has not 32 bytes"))?;
            let opened = Secret::new(bytes);
            if key_of(&record.sealed) != Some(self.keys.sealing_key()) {
                let next = self.sealed_hash_key(&opened)?;
                self.swap(&key, Some(entry.op), next).await?;
            }
            return Ok(self.hash_key.get_or_init(|| opened));
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "the key of token hashes changed each time it was read")
            .after(1000))
    }

    fn sealed_hash_key(&self, key: &Secret<[u8; 32]>) -> Result<Entry, Error> {
        let mut nonce = [0; 24];
        self.host.fill(&mut nonce);
        let sealed = self.keys.seal(self.crypto.as_ref(), &nonce, SealedHashKey, key.expose());
        let sealed = sealed.map_err(|error| Error::new(ErrorKind::SealKeyMissing, error.to_string()))?;
        let record = HashKey { op: fresh_write_id(self.host.as_ref()), sealed };
        Ok(Entry { op: record.op, bytes: record.encode().into() })
    }

    /// What is stored under `key`.
    pub(super) async fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.within(self.register.read(key)).await.map_err(|error| away(&error))
    }

    /// Puts an entry. `None` where nobody knows whether it was put: read again.
    pub(super) async fn swap(
        &self,
        key: &Key,
        expected: Option<keyreeve_core::id::WriteId>,
        next: Entry,
    ) -> Result<Option<Swap>, Error> {
        match self.within(self.register.swap(key, expected, next)).await {
            Ok(swap) => Ok(Some(swap)),
            Err(StoreError::Unknown(_)) => Ok(None),
            Err(error) => Err(away(&error)),
        }
    }

    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let until = self.host.now().mono.plus(self.store_ms);
        match select(Box::pin(call), self.host.sleep_until(until)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(StoreError::Unknown(format!("no answer within {}", Span(self.store_ms)))),
        }
    }
}

pub(super) fn away(error: &StoreError) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("access tokens: {error}")).after(1000)
}

pub(super) fn refused(why: &str) -> Error {
    Error::new(ErrorKind::RecordRefused, format!("access tokens: {why}"))
}
