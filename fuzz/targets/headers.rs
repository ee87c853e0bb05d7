//! What the headers of a CONNECT say: authority, baggage, forwarded, traceparent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::blocks::request(data));
