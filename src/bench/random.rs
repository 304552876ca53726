//! Random numbers from a seed, the same on every machine: a run must be repeatable.

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): enough for schedules, prompts and resampling, and nothing else.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..most`; 0 if `most` is 0.
    pub fn below(&mut self, most: usize) -> usize {
        let most = most as u64;
        // Multiply-shift; its bias is below 2^-32 for the lengths in use here.
        usize::try_from((u128::from(self.bits()) * u128::from(most)) >> 64).unwrap_or(0)
    }

    /// Exponentially distributed with this mean: the gaps of a Poisson process.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// Bits that differ from run to run, for prompts that no cache has seen.
pub fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sequence() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn distributions_have_their_means_and_ranges() {
        let mut random = Random::new(1);
        let n = 50_000;
        let mean = (0..n).map(|_| random.exponential(2.0)).sum::<f64>() / f64::from(n);
        assert!((mean - 2.0).abs() < 0.05, "{mean}");
        assert!((0..n).all(|_| (0.0..1.0).contains(&random.unit()) && random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
