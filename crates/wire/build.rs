//! Compiles `proto/` with a compiler written in Rust, so that building needs no `protoc`.
use std::path::Path;

const SCHEMAS: [&str; 6] =
    ["workload.proto", "authorization.proto", "discovery.proto", "ca.proto", "zds.proto", "join.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(SCHEMAS, [&folder])?;
    // Maps are sorted so that encoding is deterministic: resource versions are hashes of the bytes.
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.extern_path(".istio.workload.GatewayAddress", "crate::gateway::GatewayAddress");
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
