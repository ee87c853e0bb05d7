//! TLS records, before and after a handshake, against a server on a socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::records::records(data));
