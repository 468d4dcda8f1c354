//! Comparisons with bcrypt hashes, on threads for work that blocks: as many at once as there are cores, and a bounded queue.

use std::sync::Arc;
use std::thread::available_parallelism;

use async_trait::async_trait;
use keyreeve_core::secret::Secret;
use tokio::sync::Semaphore;

use crate::access::{Bcrypt, Busy};

/// The most that wait for their turn.
const QUEUE_MAX: usize = 64;
/// The largest cost that is computed: four times as long as what Hive makes. A hash from elsewhere must not decide how long
/// a core is busy.
const COST_MAX: u32 = 12;

/// Compares as many at once as there are cores.
pub struct Blocking {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Blocking {
    /// Nothing is being compared yet.
    #[must_use]
    pub fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new(cores)), places: Arc::new(Semaphore::new(cores + QUEUE_MAX)) }
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
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let compared = tokio::task::spawn_blocking(move || {
            let is_same = is_cheap(&hash) && bcrypt::verify(secret.expose(), &hash).unwrap_or(false);
            drop((place, turn));
            is_same
        });
        compared.await.map_err(|_| Busy)
    }
}

/// Whether a hash says a cost that is computed: `$2a$10$..`.
fn is_cheap(hash: &str) -> bool {
    hash.split('$').nth(2).and_then(|cost| cost.parse().ok()).is_some_and(|cost: u32| cost <= COST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Python's `bcrypt.hashpw(b"0123456789abcdef", bcrypt.gensalt(4, b"2a"))`.
    const HASH: &str = "$2a$04$QDmx1NaAALHVV.T9Iplv6eUzqYRwZg1PvMRuWZrSdN4TCnuOkSZxe";

    #[tokio::test]
    async fn a_hash_of_another_program_is_recognized_and_nothing_else_is() {
        let blocking = Blocking::new();
        let is_of = |secret: &str, hash: &str| blocking.is_of(Secret::new(secret.as_bytes().to_vec()), hash.to_owned());
        let hash = bcrypt::hash("0123456789abcdef", 4).unwrap();
        assert_eq!(is_of("0123456789abcdef", &hash).await, Ok(true));
        assert_eq!(is_of("0123456789abcdee", &hash).await, Ok(false));
        for wrong in ["", "$2a$", "$2a$10$x", "plain", HASH.trim_end_matches('e')] {
            assert_eq!(is_of("0123456789abcdef", wrong).await, Ok(false), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_hash_that_would_take_minutes_is_not_computed() {
        let hash = bcrypt::hash("0123456789abcdef", 4).unwrap().replace("$04$", "$31$");
        let took = std::time::Instant::now();
        assert_eq!(Blocking::new().is_of(Secret::new(b"0123456789abcdef".to_vec()), hash).await, Ok(false));
        assert!(took.elapsed().as_secs() < 5);
    }
}
