//! One line of log in either layout.
use std::cell::RefCell;
use std::fmt::{self, Display, Write};
use std::time::SystemTime;

use tracing::Level;

/// Layout of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Tab-separated text.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

/// A line being built, at the end of a buffer that may hold lines already.
#[derive(Debug)]
pub struct Line {
    format: Format,
    text: String,
    first_field: bool,
}

impl Line {
    /// Begins a line: time, level, target, message. An absent message is left out.
    pub fn begin(
        text: String,
        format: Format,
        now: SystemTime,
        level: Level,
        target: &str,
        message: Option<&str>,
    ) -> Self {
        let mut line = Self::head(text, format, now, level, target);
        if format == Format::Plain {
            line.text.push('\t');
        }
        if let Some(message) = message {
            line.message(&message);
        }
        line
    }

    /// Time, level and target only; in the plain layout the caller adds spans and the tab.
    pub(super) fn head(
        mut text: String,
        format: Format,
        now: SystemTime,
        level: Level,
        target: &str,
    ) -> Self {
        match format {
            Format::Plain => {
                time(&mut text, now);
                text.push('\t');
                text.push_str(level_name(level));
                text.push('\t');
                text.push_str(short_target(target));
            }
            Format::Json => {
                text.push_str("{\"level\":\"");
                text.push_str(level_name(level));
                text.push_str("\",\"time\":\"");
                time(&mut text, now);
                text.push_str("\",\"scope\":");
                json_text(&mut text, target);
            }
        }
        Self { format, text, first_field: true }
    }

    pub(super) fn raw(&mut self) -> &mut String {
        &mut self.text
    }

    pub(super) fn message(&mut self, message: &dyn Display) {
        match self.format {
            Format::Plain => {
                let _ = write!(self.text, "{message}\t");
            }
            Format::Json => {
                self.text.push_str(",\"message\":");
                json_display(&mut self.text, message);
            }
        }
    }

    /// A text field: quoted in both layouts.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        match self.format {
            Format::Plain if is_plain(value) => {
                self.text.push('"');
                self.text.push_str(value);
                self.text.push('"');
            }
            Format::Plain => {
                let _ = write!(self.text, "{value:?}");
            }
            Format::Json => json_text(&mut self.text, value),
        }
        self
    }

    /// A field such as an address or an id: bare in the plain layout, a string in JSON.
    pub fn display(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        match self.format {
            Format::Plain => {
                let _ = write!(self.text, "{value}");
            }
            Format::Json => json_display(&mut self.text, &value),
        }
        self
    }

    /// A number or a boolean: bare in both layouts.
    pub fn bare(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        let _ = write!(self.text, "{value}");
        self
    }

    fn key(&mut self, key: &str) {
        match self.format {
            Format::Plain => {
                if !std::mem::replace(&mut self.first_field, false) {
                    self.text.push(' ');
                }
                self.text.push_str(key);
                self.text.push('=');
            }
            Format::Json => {
                self.text.push(',');
                json_text(&mut self.text, key);
                self.text.push(':');
            }
        }
    }

    /// The buffer with the line in it.
    pub fn end(mut self) -> String {
        self.text.push_str(match self.format {
            Format::Plain => "\n",
            Format::Json => "}\n",
        });
        self.text
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

thread_local! {
    /// The second of this thread's last line, and its text: most lines are of the same one.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

fn time(text: &mut String, now: SystemTime) {
    let Ok(since) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        return stamp(text, now);
    };
    SECOND.with_borrow_mut(|(second, written)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            written.clear();
            stamp(written, now);
            // The fraction and the Z behind it are each line's own.
            written.truncate(written.rfind('.').unwrap_or(0));
        }
        text.push_str(written);
    });
    let mut micros = since.subsec_micros();
    let mut fraction = *b".000000Z";
    for digit in fraction.iter_mut().skip(1).take(6).rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    text.push_str(std::str::from_utf8(&fraction).unwrap_or_default());
}

fn stamp(text: &mut String, now: SystemTime) {
    let stamp = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{stamp:.6}");
}

/// Quoting leaves it as it is.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// What a reader of logs should see: `xds::client`, not which of our crates it is in.
fn short_target(target: &str) -> &str {
    let prefixes = ["ztunnel::", "culvert_node::", "culvert::", "culvert_"];
    prefixes.iter().find_map(|prefix| target.strip_prefix(prefix)).unwrap_or(target)
}

pub(super) fn json_text(out: &mut String, value: &str) {
    out.push('"');
    escape(out, value);
    out.push('"');
}

pub(super) fn json_display(out: &mut String, value: &dyn Display) {
    out.push('"');
    let _ = write!(Escaper(out), "{value}");
    out.push('"');
}

struct Escaper<'a>(&'a mut String);

impl Write for Escaper<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        escape(self.0, piece);
        Ok(())
    }
}

fn escape(out: &mut String, value: &str) {
    if is_plain(value) {
        return out.push_str(value);
    }
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(now: SystemTime) -> String {
        let mut text = String::new();
        time(&mut text, now);
        text
    }

    #[test]
    fn times_are_those_of_the_library_within_a_second_and_across() {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for nanos in [0, 1_000, 999_999_999, 1_000_000_000, 1_000_001_999, 5, 86_400_000_000_000] {
            let now = base + Duration::from_nanos(nanos);
            let mut wanted = String::new();
            stamp(&mut wanted, now);
            assert_eq!(written(now), wanted);
        }
        assert_eq!(written(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
        assert_eq!(written(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31T23:59:59.000000Z");
    }

    #[test]
    fn what_needs_no_escape_is_quoted_as_what_does() {
        for value in ["", "plain", "a b", "tab\t", "quote\"", "back\\slash", "ü", "\u{7f}", "line\n"] {
            let mut line = Line { format: Format::Plain, text: String::new(), first_field: true };
            line.text("k", value);
            assert_eq!(line.text, format!("k={value:?}"));
        }
    }
}
