//! Resources of the control plane, applied to a mesh that then has to route.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::mesh::apply(data));
