//! What the fuzz targets do with their input. Each target in `targets/` is one call into one of these modules;
//! `.ci/fuzz` builds and runs them all, CONTRIBUTING.md says how to run one.

pub mod blocks;
pub mod duet;
pub mod dump;
pub mod input;
pub mod live;
pub mod mesh;
pub mod proxy_header;
pub mod records;
pub mod stream;
mod support;
pub mod zds;

/// The node's reading of a peer's headers, compiled from its source: it is private to the program.
#[path = "../../node/src/baggage.rs"]
#[allow(dead_code, reason = "only the reading side is fuzzed")]
mod baggage;
#[path = "../../node/src/inbound/headers/text.rs"]
mod text;
