//! agent
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its own arguments (without the program's name).
pub fn run(_args: Vec<OsString>) -> ExitCode {
    ExitCode::FAILURE
}
