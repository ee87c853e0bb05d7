//! Dumps as the command-line tool reads and shows them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::dump::read(data));
