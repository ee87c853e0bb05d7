//! Which events are logged, and changing that while running (control-and-operations 6.4, 8.3).
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::{LoggingError, Settings};

/// Another program's target and the targets of ours it stands for.
pub type Alias = (&'static str, &'static [&'static str]);

/// A change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdjustError {
    /// Not a list of levels and `target=level`.
    #[error("Invalid level provided: {spec}")]
    InvalidSpec {
        /// As given.
        spec: String,
    },
    /// The filter could not be put in place.
    #[error("Failed to set new level: {reason}")]
    NotApplied {
        /// Why.
        reason: String,
    },
}

impl AdjustError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSpec { .. } => "logging-invalid-level",
            Self::NotApplied { .. } => "logging-not-applied",
        }
    }
}

/// The level of one target now.
#[derive(Debug, Clone)]
pub struct TargetLevel(Arc<AtomicU8>);

impl TargetLevel {
    /// Whether lines of this level are wanted.
    pub fn enabled(&self, level: Level) -> bool {
        rank(LevelFilter::from_level(level)) <= self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Filter {
    start: String,
    aliases: &'static [Alias],
    shown: Mutex<String>,
    reload: reload::Handle<EnvFilter, Registry>,
    followed: Mutex<Vec<(&'static str, Arc<AtomicU8>)>>,
}

impl Filter {
    pub(super) fn start(
        settings: &Settings,
    ) -> Result<(Self, reload::Layer<EnvFilter, Registry>), LoggingError> {
        let wanted = match settings.filter.as_deref() {
            None => "info",
            Some("") => "error",
            Some(filter) => filter,
        };
        let joined =
            if settings.base.is_empty() { wanted.to_owned() } else { format!("{},{wanted}", settings.base) };
        let parsed = EnvFilter::builder().parse(&joined);
        let parsed = parsed.map_err(|error| LoggingError::InvalidFilter {
            value: wanted.to_owned(),
            reason: error.to_string(),
        })?;
        let shown = parsed.to_string();
        let effective = effective(&shown, settings.aliases)
            .map_err(|reason| LoggingError::InvalidFilter { value: wanted.to_owned(), reason })?;
        let (layer, reload) = reload::Layer::new(effective);
        let filter = Self {
            start: shown.clone(),
            aliases: settings.aliases,
            shown: Mutex::new(shown),
            reload,
            followed: Mutex::default(),
        };
        Ok((filter, layer))
    }

    pub(super) fn shown(&self) -> String {
        self.shown.lock().clone()
    }

    pub(super) fn adjust(&self, spec: Option<&str>, reset: bool) -> Result<String, AdjustError> {
        let spec = spec.filter(|spec| !spec.is_empty());
        let directives = spec.map(parse_spec).transpose()?.unwrap_or_default();
        let not_applied = |reason: String| AdjustError::NotApplied { reason };
        let mut shown = self.shown.lock();
        if !reset && directives.is_empty() {
            return Ok(shown.clone());
        }
        let current = if reset { &self.start } else { &*shown };
        let mut filter =
            EnvFilter::builder().parse(current).map_err(|error| not_applied(error.to_string()))?;
        for directive in directives {
            filter = filter.add_directive(directive);
        }
        let text = filter.to_string();
        let effective = effective(&text, self.aliases).map_err(not_applied)?;
        self.reload.reload(effective).map_err(|error| not_applied(error.to_string()))?;
        for (target, level) in self.followed.lock().iter() {
            level.store(level_of(&text, target), Ordering::Relaxed);
        }
        shown.clone_from(&text);
        drop(shown);
        tracing::info!(target: "ztunnel::telemetry", "new log filter is {text}");
        Ok(text)
    }

    pub(super) fn follow(&self, target: &'static str) -> TargetLevel {
        let shown = self.shown.lock();
        let level = Arc::new(AtomicU8::new(level_of(&shown, target)));
        self.followed.lock().push((target, Arc::clone(&level)));
        TargetLevel(level)
    }
}

/// The filter in force: what is shown, and for each alias the targets it stands for.
fn effective(shown: &str, aliases: &[Alias]) -> Result<EnvFilter, String> {
    let mut clauses = vec![shown.to_owned()];
    for clause in shown.split(',') {
        let Some((target, level)) = clause.split_once('=') else { continue };
        for (_, ours) in aliases.iter().filter(|(name, _)| *name == target) {
            clauses.extend(ours.iter().map(|name| format!("{name}={level}")));
        }
    }
    EnvFilter::builder().parse(clauses.join(",")).map_err(|error| error.to_string())
}

/// A comma list of bare lower-case levels and `target=level` (`target:level` is taken too).
fn parse_spec(spec: &str) -> Result<Vec<Directive>, AdjustError> {
    let invalid = || AdjustError::InvalidSpec { spec: spec.to_owned() };
    spec.split(',').map(|clause| parse_clause(clause).ok_or_else(invalid)).collect()
}

fn parse_clause(clause: &str) -> Option<Directive> {
    if matches!(clause, "off" | "error" | "warn" | "info" | "debug" | "trace") {
        return clause.parse().ok();
    }
    let (target, level) = clause.rsplit_once('=').or_else(|| {
        let (target, level) = clause.rsplit_once(':')?;
        (!target.ends_with(':')).then_some((target, level))
    })?;
    if target.is_empty() || level.parse::<LevelFilter>().is_err() {
        return None;
    }
    format!("{target}={level}").parse().ok()
}

/// The level of a target by the longest directive that is a prefix of it.
fn level_of(shown: &str, target: &str) -> u8 {
    let matching = shown.split(',').filter_map(|clause| {
        let (prefix, level) = clause.split_once('=').unwrap_or(("", clause));
        (!prefix.contains('[') && target.starts_with(prefix)).then_some((prefix.len(), level))
    });
    let level = matching.max_by_key(|(length, _)| *length).and_then(|(_, level)| level.parse().ok());
    rank(level.unwrap_or(LevelFilter::OFF))
}

fn rank(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}
