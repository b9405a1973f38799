//! Choices out of bytes: one byte string is one run, wherever the bytes come from.
//!
//! A run's bytes are a header of [`HEADER`] bytes, from which its plan is drawn, and [`STEP`] bytes
//! for each step of its walk. A step that wants more than its own bytes gets what a generator
//! makes of them. So every byte string is a run, the same one at any time; leaving a step out
//! changes none of the others' bytes; and zeros are the tamest choices. That is what a shrinker and
//! a fuzzer need.

/// The bytes from which a run's plan is drawn.
pub const HEADER: usize = 64;
/// The bytes of one step.
pub const STEP: usize = 8;

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    bytes: &'a [u8],
    more: u64,
}

impl<'a> Draw<'a> {
    /// Choices out of these bytes, then out of a generator that they seed.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, more: fold(bytes) }
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let Some(last) = (n as u64).checked_sub(1) else { return 0 };
        let mut value = 0;
        let mut left = last;
        loop {
            value = value << 8 | u64::from(self.byte());
            left >>= 8;
            if left == 0 {
                break;
            }
        }
        usize::try_from(value % (last + 1)).unwrap_or(0)
    }

    /// A number from `from` to `to`, both included.
    pub fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True once in so many times; false for a zero.
    pub fn one_in(&mut self, n: usize) -> bool {
        n != 0 && self.below(n) + 1 == n
    }

    /// One of several; `None` where there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }

    /// A rate in thousandths: off for every other draw, else up to `most`.
    pub fn rate(&mut self, most: usize) -> usize {
        let byte = usize::from(self.byte());
        byte.saturating_sub(127) * most / 128
    }

    fn byte(&mut self) -> u8 {
        if let Some((first, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return *first;
        }
        // SplitMix64 (G. Steele, D. Lea, C. Flood, 2014)
        self.more = self.more.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.more;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as u8
    }
}

/// The byte string that a seed stands for.
#[must_use]
pub fn bytes_of(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let steps = random.usize(40..500);
    let mut bytes = vec![0; HEADER + steps * STEP];
    random.fill(&mut bytes);
    bytes
}

/// FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo): a hash that is the same everywhere and at any time.
#[must_use]
pub fn fold(bytes: &[u8]) -> u64 {
    fold_into(0xcbf2_9ce4_8422_2325, bytes)
}

/// Folds more bytes into a hash.
#[must_use]
pub fn fold_into(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_the_same_choices() {
        let run = |bytes: &[u8]| {
            let mut draw = Draw::new(bytes);
            (0..50).map(|n| draw.below(n * n)).collect::<Vec<_>>()
        };
        assert_eq!(run(b"abc"), run(b"abc"));
        assert_ne!(run(b"abc"), run(b"abd"));
        assert_eq!(bytes_of(7), bytes_of(7));
    }

    #[test]
    fn choices_are_in_range_and_zeros_are_tame() {
        let bytes = bytes_of(1);
        let mut draw = Draw::new(&bytes);
        for n in 1..2_000 {
            assert!(draw.below(n) < n);
            assert!((3..=5).contains(&draw.within(3, 5)));
        }
        let mut zeros = Draw::new(&[0; 16]);
        assert_eq!((zeros.below(1_000), zeros.within(2, 9), zeros.rate(100)), (0, 2, 0));
        assert!(!zeros.one_in(2));
        assert_eq!(zeros.pick::<u8>(&[]), None);
    }
}
