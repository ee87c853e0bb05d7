//! Sequences of operations on our core and on the `h2` crate, joined in memory: both must see the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::duet::play(data));
