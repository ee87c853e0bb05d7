//! Reads choices off the front of a fuzzer's input. What is missing reads as zero, so that every input is a whole.

use std::time::Instant;

/// The rest of an input.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One octet.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Two octets.
    pub fn short(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Up to `length` octets.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        front
    }
}

/// A short sequence of numbers that follows from its seed.
#[derive(Debug)]
pub struct Dice(pub u32);

impl Dice {
    /// The next number below `below`.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % below.max(1)
    }
}

/// The moment that is the present of all targets.
pub fn now() -> Instant {
    thread_local!(static NOW: Instant = Instant::now());
    NOW.with(|now| *now)
}
