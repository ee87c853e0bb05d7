//! PROXY protocol headers, read back by a foreign reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::proxy_header::header(data));
