//! The binary `culvert`: reads the subcommand (or the name it was called by) and hands over.
fn main() {}
