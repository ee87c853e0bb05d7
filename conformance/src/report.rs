//! Results and the list of cases as text, JSON, and the page in `docs/`.

use std::fmt::Write as _;

use serde_json::json;

use crate::case::Case;
use crate::cases::GROUPS;
use crate::run::{Judged, Verdict};

/// One line, or three where something is to be explained.
pub(crate) fn line(judged: &Judged) -> String {
    let word = match (judged.verdict, judged.as_expected) {
        (Verdict::Pass, true) => "pass",
        (Verdict::Pass, false) => "PASS, but a failure was expected",
        (Verdict::Fail, true) => "known deviation",
        (Verdict::Fail, false) => "FAIL",
        (Verdict::NotRun, _) => "not run",
    };
    let mut text = format!("{:<15} {:<8}  {} — {word}", judged.id, judged.level, judged.title);
    match judged.verdict {
        Verdict::Pass => {}
        Verdict::NotRun => {
            let _ = write!(text, ": {}", judged.got);
        }
        Verdict::Fail => {
            let _ = write!(
                text,
                "\n    sent    {}\n    wanted  {} ({})\n    got     {}",
                judged.sent, judged.wanted, judged.spec, judged.got
            );
        }
    }
    if let Some(reason) = &judged.known {
        let _ = write!(text, "\n    known   {}", reason.trim());
    }
    text
}

/// The counts: the last line.
pub(crate) fn summary(judged: &[Judged]) -> String {
    let count = |verdict| judged.iter().filter(|one| one.verdict == verdict).count();
    let unexpected = judged.iter().filter(|one| !one.as_expected).count();
    let known = judged.iter().filter(|one| one.verdict == Verdict::Fail && one.as_expected).count();
    let mut text = String::new();
    if known > 0 {
        let _ = writeln!(text, "{known} of the failures are known deviations");
    }
    if unexpected > 0 {
        let ids: Vec<&str> = judged.iter().filter(|one| !one.as_expected).map(|one| one.id).collect();
        let _ = writeln!(text, "not as expected: {}", ids.join(" "));
    }
    let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
    let _ = write!(text, "conformance: {passed} passed, {failed} failed, {} skipped", count(Verdict::NotRun));
    text
}

/// Everything as one document.
pub(crate) fn document(target: &str, judged: &[Judged]) -> serde_json::Value {
    let count = |verdict| judged.iter().filter(|one| one.verdict == verdict).count();
    json!({
        "target": target,
        "passed": count(Verdict::Pass),
        "failed": count(Verdict::Fail),
        "notRun": count(Verdict::NotRun),
        "asExpected": judged.iter().all(|one| one.as_expected),
        "cases": judged,
    })
}

/// The cases as a table for people.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for case in GROUPS.iter().flat_map(|group| group.cases) {
        let _ = writeln!(text, "{:<15} {:<8}  {}", case.id, case.level, case.title);
    }
    text
}

/// The cases as JSON.
pub(crate) fn list_document() -> serde_json::Value {
    let one = |case: &Case| {
        json!({
            "id": case.id,
            "title": case.title,
            "level": case.level,
            "spec": case.spec,
            "sent": case.sent,
            "wanted": case.wanted,
            "needs": case.needs.iter().map(|need| need.flag()).collect::<Vec<_>>(),
        })
    };
    GROUPS.iter().flat_map(|group| group.cases).map(one).collect()
}

/// The cases as `docs/conformance.md` lists them.
pub(crate) fn page() -> String {
    let mut text = String::new();
    for group in GROUPS {
        let _ = writeln!(text, "\n### {}\n\n{}\n", group.name, group.about);
        text.push_str("| Case | Level | Sent | Wanted | Says who | Needs |\n|---|---|---|---|---|---|\n");
        for case in group.cases {
            let needs: Vec<String> = case.needs.iter().map(|need| format!("`{}`", need.flag())).collect();
            let _ = writeln!(
                text,
                "| {} {} | {} | {} | {} | {} | {} |",
                case.id,
                case.title,
                case.level,
                case.sent.replace('|', "\\|"),
                case.wanted,
                case.spec,
                needs.join(" ")
            );
        }
    }
    text
}
