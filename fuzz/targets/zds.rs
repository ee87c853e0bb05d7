//! Messages of a node agent to the node proxy, and its answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::zds::packets(data));
