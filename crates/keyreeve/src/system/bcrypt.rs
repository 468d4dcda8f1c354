//! Comparisons with bcrypt hashes, on threads for work that blocks: as many at once as there are cores, and a bounded queue.

use std::sync::Arc;
use std::thread::available_parallelism;

use async_trait::async_trait;
use keyreeve_core::secret::Secret;
use tokio::sync::Semaphore;

use crate::access::{Bcrypt, Busy};

/// The most that wait for their turn.
const QUEUE_MAX: usize = 64;
/// What Hive's hashes cost.
const COST: u32 = 10;
/// The largest cost that is computed: four times as long as what Hive makes. A hash from elsewhere must not decide how long
/// a core is busy.
const COST_MAX: u32 = 12;

/// Computes as many at once as there are cores.
pub struct Blocking {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Blocking {
    /// Nothing is being computed yet.
    #[must_use]
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new(cores)), places: Arc::new(Semaphore::new(cores + QUEUE_MAX)) }
    }
}

impl Blocking {
    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((place, turn));
            done
        });
        done.await.map_err(|_| Busy)
    }
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Bcrypt for Blocking {
    async fn is_of(&self, secret: Secret<Vec<u8>>, hash: String) -> Result<bool, Busy> {
        self.in_turn(move || is_cheap(&hash) && bcrypt::verify(secret.expose(), &hash).unwrap_or(false)).await
    }

    async fn hash(&self, secret: Secret<Vec<u8>>, salt: [u8; 16]) -> Result<String, Busy> {
        let hashed = self.in_turn(move || bcrypt::hash_with_salt(secret.expose(), COST, salt)).await?;
        // Fails for no secret that is made here: none is empty, and none has more than 72 bytes.
        hashed.map(|parts| parts.format_for_version(bcrypt::Version::TwoA)).map_err(|_| Busy)
    }
}

/// Whether a hash says a cost that is computed: `$2a$10$..`.
fn is_cheap(hash: &str) -> bool {
    hash.split('$').nth(2).and_then(|cost| cost.parse().ok()).is_some_and(|cost: u32| cost <= COST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_of_another_program_is_recognized_and_nothing_else_is() {
        let blocking = Blocking::new();
        let is_of = |secret: &str, hash: &str| blocking.is_of(Secret::new(secret.as_bytes().to_vec()), hash.to_owned());
        let hash = bcrypt::hash("0123456789abcdef", 4).unwrap();
        assert_eq!(is_of("0123456789abcdef", &hash).await, Ok(true));
        assert_eq!(is_of("0123456789abcdee", &hash).await, Ok(false));
        let (short, _) = hash.split_at(59);
        for wrong in ["", "$2a$", "$2a$10$x", "plain", short] {
            assert_eq!(is_of("0123456789abcdef", wrong).await, Ok(false), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_hashed_for_others_has_their_form_and_is_recognized() {
        let blocking = Blocking::new();
        let secret = || Secret::new(b"0123456789abcdef0123456789abcdef01234567".to_vec());
        let hash = blocking.hash(secret(), [7; 16]).await.unwrap();
        assert!(hash.starts_with("$2a$10$") && hash.len() == 60, "{hash}");
        assert_eq!(blocking.is_of(secret(), hash).await, Ok(true));
    }

    #[tokio::test]
    async fn a_hash_that_would_take_minutes_is_not_computed() {
        let hash = bcrypt::hash("0123456789abcdef", 4).unwrap().replace("$04$", "$31$");
        let took = std::time::Instant::now();
        assert_eq!(Blocking::new().is_of(Secret::new(b"0123456789abcdef".to_vec()), hash).await, Ok(false));
        assert!(took.elapsed().as_secs() < 5);
    }
}
