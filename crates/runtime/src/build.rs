//! What this program was built from.

/// Package version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Git revision, `-dirty` for modified trees, or `unknown`.
pub const GIT_REVISION: &str = env!("CULVERT_BUILD_REVISION");
/// Compiler version.
pub const RUST_VERSION: &str = env!("CULVERT_BUILD_RUST");
/// `release` or `debug`.
pub const PROFILE: &str = env!("CULVERT_BUILD_PROFILE");
/// `Clean` or `Modified`.
pub const STATUS: &str = env!("CULVERT_BUILD_STATUS");
