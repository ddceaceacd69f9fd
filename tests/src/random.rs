//! Numbers from a seed, the same on every machine: what tests print when they fail, and generated sites.

/// A small generator of numbers: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that begins at `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    /// True in `percent` of all cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Between `from` and `to`, small numbers as often as large ones by the
    /// logarithm.
    pub fn spread(&mut self, from: u64, to: u64) -> u64 {
        let share = self.below(1 << 32) as f64 / f64::from(u32::MAX);
        (from as f64 * (to as f64 / from as f64).powf(share)) as u64
    }
}
