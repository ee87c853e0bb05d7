//! One case after the other, each within its time, and what came of it.

use std::time::{Duration, Instant};

use runtime::clock::monotonic;
use serde::Serialize;

use crate::case::{Case, Failure, Level};
use crate::expectations::Expectations;
use crate::lab::Lab;

/// The longest a case may take.
pub(crate) const CASE_LIMIT: Duration = Duration::from_secs(45);
/// The longest a run may take; cases that are left then are not run.
const RUN_LIMIT: Duration = Duration::from_secs(290);

/// What came of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    NotRun,
}

/// A case with its verdict.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Judged {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) level: Level,
    pub(crate) spec: &'static str,
    pub(crate) sent: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) verdict: Verdict,
    /// What the target did, or why the case was not run.
    pub(crate) got: String,
    /// Why a failure is known and accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<String>,
    /// As it should be: passed, or failed as known, or not run for want of a flag.
    pub(crate) as_expected: bool,
    pub(crate) milliseconds: u64,
}

/// Runs `cases`, telling `each` as they come.
pub(crate) fn run(
    lab: &mut Lab,
    cases: &[&'static Case],
    expectations: &Expectations,
    all: bool,
    mut each: impl FnMut(&Judged),
) -> Vec<Judged> {
    let end = monotonic() + RUN_LIMIT;
    let mut judged = Vec::with_capacity(cases.len());
    for case in cases {
        let start = monotonic();
        let (verdict, got) = one(lab, case, start, end);
        let known = expectations.reason(case.id).map(str::to_owned);
        let as_expected = match verdict {
            Verdict::Pass => known.is_none(),
            Verdict::Fail => known.is_some(),
            Verdict::NotRun => !all,
        };
        let milliseconds = u64::try_from((monotonic() - start).as_millis()).unwrap_or(u64::MAX);
        let one = Judged {
            id: case.id,
            title: case.title,
            level: case.level,
            spec: case.spec,
            sent: case.sent,
            wanted: case.wanted,
            verdict,
            got,
            known,
            as_expected,
            milliseconds,
        };
        each(&one);
        judged.push(one);
    }
    judged
}

fn one(lab: &mut Lab, case: &Case, start: Instant, end: Instant) -> (Verdict, String) {
    let missing: Vec<&str> =
        case.needs.iter().filter(|need| !lab.has(**need)).map(|need| need.flag()).collect();
    if !missing.is_empty() {
        return (Verdict::NotRun, format!("needs {}", missing.join(" ")));
    }
    if start >= end {
        return (Verdict::NotRun, format!("the run's {} s are over", RUN_LIMIT.as_secs()));
    }
    lab.deadline = (start + CASE_LIMIT).min(end);
    match (case.run)(lab) {
        Ok(got) => (Verdict::Pass, got),
        Err(Failure::NotRun(reason)) => (Verdict::NotRun, reason),
        Err(failure) => (Verdict::Fail, failure.to_string()),
    }
}
