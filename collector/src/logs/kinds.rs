//! Lines of one kind: equal but for the digits in them.
//!
//! A log repeats itself. A kind that was searched once need not be searched
//! again, and one that was kept often says nothing new.

/// Kinds that are remembered at once. A newer one takes the place of an older
/// one, which is then new again.
const SLOTS: usize = 4096;

#[derive(Clone, Copy, Default)]
struct Slot {
    kind: u64,
    /// 0: the kind has no hit; else how often it was seen.
    hits: u32,
}

/// What is known of a line before it is read.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    /// Its kind has no hit.
    Plain,
    /// Its kind has a hit; true when this line is worth keeping.
    Hit(bool),
    /// Its kind was not seen lately.
    New,
}

/// The kinds that a log showed lately.
pub(super) struct Kinds(Box<[Slot]>);

impl Default for Kinds {
    fn default() -> Self {
        Kinds(vec![Slot::default(); SLOTS].into_boxed_slice())
    }
}

impl Kinds {
    /// What earlier lines of the kind tell.
    pub(super) fn seen(&mut self, kind: u64) -> Seen {
        let slot = self.slot(kind);
        if slot.kind != kind {
            return Seen::New;
        }
        if slot.hits == 0 {
            return Seen::Plain;
        }
        slot.hits = slot.hits.saturating_add(1);
        // The latest of each kind matter too: one in a while is refreshed.
        let n = slot.hits;
        Seen::Hit(n <= 64 || n.is_power_of_two() || n.is_multiple_of(256))
    }

    /// Remembers a new kind.
    pub(super) fn learn(&mut self, kind: u64, hit: bool) {
        *self.slot(kind) = Slot { kind, hits: u32::from(hit) };
    }

    fn slot(&mut self, kind: u64) -> &mut Slot {
        &mut self.0[kind as usize % SLOTS]
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// The kind of a line. Digits do not count, except a zero that stands alone:
/// `0 errors` and `1 errors` are of two kinds. Never 0.
///
/// Eight bytes at a time, since every line of a log passes here.
pub(super) fn kind(line: &[u8]) -> u64 {
    let mut h = line.len() as u64;
    let mut before = 0;
    let mut word = load(line, 0);
    let mut digits = digits(word);
    let mut at = 0;
    while at < line.len() {
        let next = load(line, at + 8);
        let next_digits = self::digits(next);
        let alone = zeros(word, digits) & !(digits << 8 | before) & !(digits >> 8 | next_digits << 56);
        // 0x80 in a byte becomes 0xff, and 0x30 for the lone zero.
        let masked = (word & !((digits >> 7) * 0xff)) | ((alone >> 7) * 0x30);
        h = (h ^ masked).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        before = digits >> 56;
        (word, digits) = (next, next_digits);
        at += 8;
    }
    // The low bits choose the slot.
    (h ^ h >> 32).max(1)
}

/// Eight bytes, those beyond the end as zeros.
fn load(line: &[u8], at: usize) -> u64 {
    let word = |at: usize| line.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    match word(at) {
        Some(word) => word,
        None if at >= line.len() => 0,
        // The last eight bytes, without those that were loaded before.
        None => match line.len().checked_sub(8).and_then(word) {
            Some(last) => last >> (8 * (at + 8 - line.len())),
            None => line[at..].iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)),
        },
    }
}

/// 0x80 in each byte that is a digit.
fn digits(word: u64) -> u64 {
    let off = word ^ (0x30 * ONES);
    !(((off & !HIGH) + 0x76 * ONES) | off) & HIGH
}

/// 0x80 in each byte that is the digit 0, given where the digits are.
fn zeros(word: u64, digits: u64) -> u64 {
    let off = word ^ (0x30 * ONES);
    !((off & !HIGH) + 0x7f * ONES) & digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_do_not_make_a_kind() {
        for (a, b, same) in [
            ("step 0123 failed on n07", "step 9876 failed on n42", true),
            ("step 0123 failed on n07", "step 0123 failed at n07", false),
            ("a", "b", false),
            ("é", "ö", false),
            ("0 errors", "3 errors", false),
            ("10 errors", "30 errors", true),
            ("all is well, errors: 0", "all is well, errors: 7", false),
            ("usage: x", "usage5 x", false),
            ("", "\0", false),
        ] {
            assert_eq!(kind(a.as_bytes()) == kind(b.as_bytes()), same, "{a} | {b}");
        }
    }

    #[test]
    fn a_kind_is_judged_once() {
        let mut kinds = Kinds::default();
        let k = kind(b"slow write, retry 3");
        assert_eq!(kinds.seen(k), Seen::New);
        kinds.learn(k, false);
        assert_eq!(kinds.seen(k), Seen::Plain);
        kinds.learn(k, true);
        assert_eq!((0..63).filter(|_| kinds.seen(k) == Seen::Hit(true)).count(), 63);
        assert!((0..10_000).filter(|_| kinds.seen(k) == Seen::Hit(true)).count() < 100);
    }

    /// The same, a byte at a time.
    fn plainly(line: &[u8]) -> Vec<u8> {
        let digit = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(u8::is_ascii_digit);
        let alone = |i: usize| line[i] == b'0' && !digit(i.checked_sub(1)) && !digit(Some(i + 1));
        (0..line.len()).map(|i| if digit(Some(i)) && !alone(i) { b'1' } else { line[i] }).collect()
    }

    proptest! {
        #[test]
        fn words_and_bytes_agree(a in "[0-3ab:é]{0,20}", b in "[0-3ab:é]{0,20}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            prop_assert_eq!(kind(a) == kind(b), plainly(a) == plainly(b));
            // The same line with other digits.
            let other: Vec<u8> = a.iter().map(|&c| if matches!(c, b'1'..=b'3') { b'9' } else { c }).collect();
            prop_assert_eq!(kind(a) == kind(&other), plainly(a) == plainly(&other));
        }
    }
}
