//! Randomness from a seed: the same seed always draws the same numbers.

/// A generator (splitmix64; Steele, Lea, Flood 2014). Good enough to explore with, useless for secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams.
        let mut chance = Self(seed);
        chance.0 = chance.draw() ^ seed.rotate_left(32);
        chance
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number in `0..end`; 0 where `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        match self.draw().checked_rem(end) {
            Some(number) => number,
            None => 0,
        }
    }

    /// A number in `from..=to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.below(to.saturating_sub(from).saturating_add(1)))
    }

    /// True in `permille` of 1000 cases.
    pub const fn happens(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(usize::try_from(self.below(items.len() as u64)).unwrap_or(0))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.draw().to_le_bytes()) {
                *to = from;
            }
        }
    }
}
