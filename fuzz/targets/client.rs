//! Anything a server may send to the protocol core of a client with three requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::stream::client(data));
