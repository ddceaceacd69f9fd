//! A quick hash for maps whose keys are made by Slurm or by our own writers.

use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Builds [`Quick`] hashers.
pub type FastHash = BuildHasherDefault<Quick>;

/// xxh3 for text, one multiplication for numbers. Not for keys that a user
/// can choose: it has no secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_i64(&mut self, n: i64) {
        self.write_u64(n.cast_unsigned());
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = u128::from(self.0 ^ n.wrapping_add(0x9e37_79b9_7f4a_7c15)) * 0xd6e8_feb8_6659_fd93;
        self.0 = (mixed as u64) ^ ((mixed >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
