//! From tracing's events and spans to lines.
use std::borrow::Cow;
use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::line::{self, Format, Line};
use super::queue::Queue;
use crate::clock;

pub(super) struct Lines {
    pub(super) queue: Arc<Queue>,
    pub(super) format: Format,
    pub(super) program: &'static str,
}

/// Fields of a span, already in the layout's form.
struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields(String::new());
        attributes.record(&mut SpanVisitor { format: self.format, text: &mut fields.0 });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut SpanVisitor { format: self.format, text: &mut fields.0 });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let text = String::with_capacity(256);
        let target = self.target(metadata.target());
        let mut line = Line::head(text, self.format, clock::wall(), *metadata.level(), &target);
        if self.format == Format::Plain {
            for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
                let _ = write!(line.raw(), ":{}", span.name());
                if let Some(SpanFields(fields)) =
                    span.extensions().get().filter(|f: &&SpanFields| !f.0.is_empty())
                {
                    let _ = write!(line.raw(), "{{{fields}}}");
                }
            }
            line.raw().push('\t');
        }
        event.record(&mut MessageVisitor(&mut line));
        event.record(&mut FieldVisitor(&mut line));
        if self.format == Format::Json {
            for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
                if let Some(SpanFields(fields)) = span.extensions().get() {
                    line.raw().push(',');
                    line::json_text(line.raw(), span.name());
                    let _ = write!(line.raw(), ":{{{fields}}}");
                }
            }
        }
        self.queue.push(line.end().into_bytes(), 1);
    }
}

impl Lines {
    /// Parts shared by all programs speak as parts of the node proxy; in another program's JSON they are its own.
    /// The plain layout shows no program at all.
    fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        match target.strip_prefix("ztunnel") {
            Some(rest) if self.format == Format::Json && !self.program.is_empty() => {
                Cow::Owned(format!("{}{rest}", self.program))
            }
            _ => Cow::Borrowed(target),
        }
    }
}

struct MessageVisitor<'a>(&'a mut Line);

impl Visit for MessageVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.message(&AsDisplay(value));
        }
    }
}

struct FieldVisitor<'a>(&'a mut Line);

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.0.text(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            self.0.display(field.name(), AsDisplay(value));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.bare(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.bare(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.bare(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.0.bare(field.name(), value);
        } else {
            self.0.display(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bare(field.name(), value);
    }
}

/// Fields of a span: `k=v k2=v2`, or the inside of a JSON object.
struct SpanVisitor<'a> {
    format: Format,
    text: &'a mut String,
}

impl SpanVisitor<'_> {
    fn key(&mut self, field: &Field) {
        let first = self.text.is_empty();
        match self.format {
            Format::Plain => {
                let _ = write!(self.text, "{}{}=", if first { "" } else { " " }, field.name());
            }
            Format::Json => {
                if !first {
                    self.text.push(',');
                }
                line::json_text(self.text, field.name());
                self.text.push(':');
            }
        }
    }

    fn bare(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.key(field);
        let _ = write!(self.text, "{value}");
    }
}

impl Visit for SpanVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        match self.format {
            Format::Plain => {
                let _ = write!(self.text, "{value:?}");
            }
            Format::Json => line::json_text(self.text, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.key(field);
        match self.format {
            Format::Plain => {
                let _ = write!(self.text, "{value:?}");
            }
            Format::Json => line::json_display(self.text, &AsDisplay(value)),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, &value);
    }
}

/// tracing hands display values over as `Debug`.
struct AsDisplay<'a>(&'a dyn Debug);

impl fmt::Display for AsDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
