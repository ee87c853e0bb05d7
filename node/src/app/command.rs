//! The command line (control-and-operations 9.1), that of the program this one stands in for.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use runtime::environment::Environment;

use crate::admin;

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// No argument, or `proxy` and anything.
    Run,
    Version,
    Help,
    Unknown(String),
}

impl Command {
    pub(super) fn parse(arguments: &[OsString]) -> Self {
        match arguments.first().map(|word| word.to_string_lossy()).as_deref() {
            None | Some("proxy") => Self::Run,
            Some("version") => Self::Version,
            Some("help" | "--help" | "-h") => Self::Help,
            Some(other) => Self::Unknown(other.to_owned()),
        }
    }

    /// Answers what is not running.
    pub(super) fn answer(self) -> ExitCode {
        match self {
            Self::Run => ExitCode::SUCCESS,
            Self::Version => say(&version_line()),
            Self::Help => say(&usage()),
            Self::Unknown(word) => {
                say(&usage());
                complain(&format!("unknown command: {word}"))
            }
        }
    }
}

fn version_line() -> String {
    let environment = Environment::of_process();
    let istio = environment.get("ISTIO_META_ISTIO_VERSION").unwrap_or("unknown");
    admin::version_line(&admin::version(istio))
}

fn usage() -> String {
    format!(
        "Culvert node proxy, version {}\nCommands:\n  proxy (default) - Start the node proxy\n  version - Print \
         the version\n  help - Print the commands and the version\nSettings come from the environment: see \
         docs/environment.md",
        version_line()
    )
}

fn say(text: &str) -> ExitCode {
    let written = writeln!(std::io::stdout(), "{text}");
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says why nothing was started.
pub(super) fn complain(text: &str) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_program_it_stands_in_for() {
        let parse = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            Command::parse(&words)
        };
        assert_eq!(parse(&[]), Command::Run);
        assert_eq!(parse(&["proxy", "ztunnel"]), Command::Run);
        assert_eq!(parse(&["version"]), Command::Version);
        assert_eq!(parse(&["help"]), Command::Help);
        assert_eq!(parse(&["x", "proxy"]), Command::Unknown("x".to_owned()));
    }
}
