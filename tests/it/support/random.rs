//! Numbers that are the same everywhere for a seed, and seeds that can be replayed.

/// A small generator (splitmix64, Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("a small number")
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `DRYSTONE_SEED`, or a seed of its own for this process.
pub fn seed() -> u64 {
    let own = || {
        std::fs::metadata("/proc/self")
            .map_or(0, |meta| std::os::unix::fs::MetadataExt::ctime_nsec(&meta).unsigned_abs())
    };
    number("DRYSTONE_SEED", own())
}
