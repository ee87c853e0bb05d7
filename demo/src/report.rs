//! What the demo shows: progress while starting, then one section per step. Colour on a terminal, plain in a pipe.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;
use serde_json::Value;

/// How to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Colours and progress that overwrites itself.
    Terminal,
    /// Plain lines.
    Plain,
    /// Nothing but the JSON at the end.
    Json,
}

impl Style {
    /// The style that fits where standard output goes.
    pub(crate) fn of_stdout(json: bool) -> Self {
        if json {
            Self::Json
        } else if std::io::stdout().is_terminal() {
            Self::Terminal
        } else {
            Self::Plain
        }
    }
}

/// One step of the page, done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// Stable key of the step in the JSON.
    pub(crate) id: &'static str,
    /// What a person reads as headline.
    pub(crate) title: String,
    /// The command that shows the same.
    pub(crate) command: String,
    /// What came out, as a person reads it.
    pub(crate) output: Vec<String>,
    /// Did it come out right?
    pub(crate) ok: bool,
    /// If not: what was expected and what came instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// The same as data.
    pub(crate) facts: Value,
}

/// Writes to standard output in one style.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    style: Style,
}

impl Report {
    pub(crate) fn new(style: Style) -> Self {
        Self { style }
    }

    /// A line of progress while the mesh starts.
    pub(crate) fn progress(self, text: &str) {
        match self.style {
            Style::Terminal => say(&format!("  {}{text}{}", Colour::Dim.on(), Colour::OFF)),
            Style::Plain => say(&format!("  {text}")),
            Style::Json => {}
        }
    }

    /// A headline on its own.
    pub(crate) fn headline(self, text: &str) {
        match self.style {
            Style::Terminal => say(&format!("{}{text}{}", Colour::Bold.on(), Colour::OFF)),
            Style::Plain => say(text),
            Style::Json => {}
        }
    }

    /// Plain text, as it is.
    pub(crate) fn text(self, text: &str) {
        if self.style != Style::Json {
            say(text);
        }
    }

    /// A finished step.
    pub(crate) fn step(self, number: usize, step: &Step) {
        if self.style == Style::Json {
            return;
        }
        let (mark, colour) = if step.ok { ("ok", Colour::Green) } else { ("FAILED", Colour::Red) };
        say("");
        if self.style == Style::Terminal {
            say(&format!(
                "{}{number}. {}{} {}[{mark}]{}",
                Colour::Bold.on(),
                step.title,
                Colour::OFF,
                colour.on(),
                Colour::OFF
            ));
            say(&format!("{}$ {}{}", Colour::Cyan.on(), step.command, Colour::OFF));
        } else {
            say(&format!("{number}. {} [{mark}]", step.title));
            say(&format!("$ {}", step.command));
        }
        for line in &step.output {
            say(line);
        }
        if let Some(problem) = &step.problem {
            say(&format!("problem: {problem}"));
        }
    }

    /// The facts of a whole run, for machines.
    pub(crate) fn facts(self, facts: &Value) {
        if self.style == Style::Json {
            // Strings, numbers and maps of them: this cannot fail.
            say(&serde_json::to_string_pretty(facts).unwrap_or_default());
        }
    }
}

enum Colour {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

impl Colour {
    const OFF: &'static str = "\x1b[0m";

    fn on(&self) -> &'static str {
        match self {
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Green => "\x1b[32m",
            Self::Red => "\x1b[31m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

/// One line to standard output. A reader that went away does not stop the demo: it is ended by signals.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
