//! Header blocks, one after the other on one decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::blocks::blocks(data));
