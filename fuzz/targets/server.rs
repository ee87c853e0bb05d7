//! Anything a client may send to the protocol core of a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::stream::server(data));
