//! Reading single variables and collecting what is wrong with them.
use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use runtime::environment::Environment;

use super::duration;
use super::error::ConfigError;
use super::variables::is_declared;

/// The environment and the mistakes so far.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, errors: RefCell::default() }
    }

    pub(super) fn fail(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// The text of a variable, which may be empty.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        debug_assert!(is_declared(name), "{name} is missing in the list of variables");
        self.environment.get(name)
    }

    /// The text of a variable; empty counts as unset.
    pub(super) fn non_empty(&self, name: &str) -> Option<&'a str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    pub(super) fn with_prefix(&self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.environment.with_prefix(prefix)
    }

    /// A number.
    pub(super) fn number<T: FromStr<Err: Display>>(&self, name: &str) -> Option<T> {
        self.parsed(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.number(name)
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        self.parsed(name, duration::parse)
    }

    /// A value of any grammar; nothing if unset or wrong.
    pub(super) fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.text(name)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                let (name, value) = (name.to_owned(), value.to_owned());
                self.fail(ConfigError::InvalidVariable { name, value, reason });
                None
            }
        }
    }
}
