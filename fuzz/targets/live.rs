//! Values that claim to be live tunnels.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::live::import(data));
