//! The translation against what was recorded, and properties that hold for any objects.

mod golden;
mod intended;
mod mutations;
mod page;
mod properties;
mod record_json;

use std::path::PathBuf;

/// A folder of recorded data.
fn data(folder: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(folder)
}
