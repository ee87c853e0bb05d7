//! Reading values, and collecting what is wrong with them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use runtime::environment::Environment;

use super::{ANYWHERE, ConfigError, ConfigErrors, variables};
use crate::authority::Account;

/// Reads values; mistakes are kept and a default goes on.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    mistakes: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, mistakes: Vec::new() }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        debug_assert!(variables::is_declared(name), "{name} is in no documentation");
        self.environment.get(name)
    }

    /// The value, if there was no mistake anywhere.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.mistakes.is_empty() { Ok(value) } else { Err(ConfigErrors::Mistakes(self.mistakes)) }
    }

    pub(super) fn missing(&mut self, name: &'static str, meaning: &'static str) -> PathBuf {
        self.mistakes.push(ConfigError::Missing { name, meaning });
        PathBuf::new()
    }

    /// `--state`, or this user's folder for what outlives a restart.
    pub(super) fn state_folder(&mut self, given: Option<PathBuf>) -> PathBuf {
        let default = || runtime::folders::lasting_base(self.environment).map(|base| base.join("control"));
        match given.or_else(default) {
            Some(folder) => folder,
            None => self.missing("--state", "a folder that outlives a restart"),
        }
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(super) fn text(&self, name: &'static str, default: &str) -> String {
        self.get(name).filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
    }

    /// The entries of a comma-separated list.
    pub(super) fn list(&self, name: &'static str) -> Vec<String> {
        let text = self.get(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn accounts(&mut self, name: &'static str, default: &str) -> Vec<Account> {
        let text = self.get(name).unwrap_or(default).to_owned();
        let mut accounts = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse() {
                Ok(account) => accounts.push(account),
                Err(error) => self.variable(name, entry, &error),
            }
        }
        accounts
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.optional_flag(name).unwrap_or(default)
    }

    pub(super) fn optional_flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.get(name)?;
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => {
                self.variable(name, value, &"must be true or false");
                None
            }
        }
    }

    pub(super) fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        let Some(value) = self.get(name) else { return default };
        duration(value).unwrap_or_else(|| {
            self.variable(name, value, &"must be a duration such as 100ms or 1h30m");
            default
        })
    }

    /// A rate per second; 0 keeps the default, as in the reference.
    pub(super) fn rate(&mut self, name: &'static str, default: f64) -> f64 {
        let Some(value) = self.get(name) else { return default };
        match value.parse::<f64>() {
            Ok(0.0) => default,
            Ok(rate) if rate.is_finite() && rate > 0.0 => rate,
            _ => {
                self.variable(name, value, &"must be a number of streams per second");
                default
            }
        }
    }

    /// A number; 0 keeps the default, as in the reference.
    pub(super) fn count(&mut self, name: &'static str, default: usize) -> usize {
        let Some(value) = self.get(name) else { return default };
        match value.parse() {
            Ok(0) => default,
            Ok(count) => count,
            Err(error) => {
                self.variable(name, value, &error);
                default
            }
        }
    }

    pub(super) fn optional_duration(&mut self, name: &'static str, value: Option<&str>) -> Option<Duration> {
        let value = value?;
        let parsed = duration(value).filter(|duration| !duration.is_zero());
        if parsed.is_none() {
            self.argument(name, value, &"must be a duration such as 12h or 30m");
        }
        parsed
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str, value: &str) -> Option<T> {
        value.parse().map_err(|error: T::Err| self.argument(name, value, &error)).ok()
    }

    /// A DNS suffix.
    pub(super) fn domain(&mut self, name: &'static str, value: &str) -> String {
        let is_label = |label: &str| {
            let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if value.len() > 253 || !value.split('.').all(is_label) {
            self.argument(name, value, &"must be a DNS name such as cluster.local");
        }
        value.to_owned()
    }

    /// `<ip>:<port>` or `:<port>`; empty means none.
    pub(super) fn address(&mut self, name: &'static str, value: &str) -> Option<SocketAddr> {
        if value.is_empty() {
            return None;
        }
        let parsed = match value.strip_prefix(':') {
            Some(port) => port.parse().ok().map(|port| SocketAddr::new(ANYWHERE, port)),
            None => value.replace("localhost:", "127.0.0.1:").parse().ok(),
        };
        if parsed.is_none() {
            self.argument(name, value, &"must be <ip>:<port> or :<port>");
        }
        parsed
    }

    fn variable(&mut self, name: &'static str, value: &str, reason: &dyn Display) {
        let mistake = ConfigError::Variable { name, value: value.to_owned(), reason: reason.to_string() };
        self.mistakes.push(mistake);
    }

    fn argument(&mut self, name: &'static str, value: &str, reason: &dyn Display) {
        let mistake = ConfigError::Flag { name, value: value.to_owned(), reason: reason.to_string() };
        self.mistakes.push(mistake);
    }
}

/// A duration as the reference writes it: numbers with units, put together.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}
