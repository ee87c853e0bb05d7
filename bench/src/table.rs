//! The one table, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::peers::Peer;
use crate::report::{Report, Single, Timed};

const NOTHING: &str = "–";

/// Head and lines, cell by cell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn of(report: &Report) -> Self {
        let mut head = vec!["Row".to_owned()];
        head.extend(Peer::ALL.iter().map(|peer| peer.title().to_owned()));
        head.extend(
            ["± culvert", "p50 µs h/E/c", "p99 µs h/E/c", "CPU µs h/E/c", "wanted", "verdict"]
                .map(str::to_owned),
        );
        let timed = report.timed.iter().map(|timed| timed_line(report, timed));
        let lines = timed.chain(report.singles.iter().map(single_line)).collect();
        Self { head, lines }
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = vec!["---".to_owned(); self.head.len()];
        std::iter::once(&self.head).chain([&rule]).chain(&self.lines).map(|cells| line(cells)).collect()
    }

    pub(crate) fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.lines);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|place| {
                all().filter_map(|cells| cells.get(place)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for cells in all() {
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(text, "{cell:width$}  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

fn timed_line(report: &Report, timed: &Timed) -> Vec<String> {
    let bulk = timed.row.load.is_bulk();
    let mut cells = vec![timed.row.name.clone()];
    let all = Peer::ALL.map(|peer| report.figures(timed, peer));
    for (peer, figures) in Peer::ALL.iter().zip(&all) {
        cells.push(match (figures.rate, figures.ratio) {
            (None, _) => NOTHING.to_owned(),
            (Some(rate), _) if *peer == Peer::Haproxy => speed(rate, bulk),
            (Some(rate), None) => speed(rate, bulk),
            (Some(_), Some(ratio)) => format!("{ratio:.2} ×"),
        });
    }
    let culvert = report.figures(timed, Peer::Culvert);
    cells.push(
        culvert.ratio_spread.map_or_else(|| NOTHING.to_owned(), |spread| format!("{:.0} %", spread * 100.0)),
    );
    let three = |of: fn(&crate::report::Figures) -> Option<f64>| {
        let values = [Peer::Haproxy, Peer::Envoy, Peer::Culvert].map(|peer| of(&report.figures(timed, peer)));
        if values.iter().all(Option::is_none) {
            return NOTHING.to_owned();
        }
        values.map(|value| value.map_or_else(|| NOTHING.to_owned(), short)).join(" / ")
    };
    cells.extend([three(|figures| figures.p50), three(|figures| figures.p99), three(|figures| figures.cpu)]);
    cells.extend([timed.row.wanted.text(), report.verdict(timed).text()]);
    cells
}

fn single_line(single: &Single) -> Vec<String> {
    let mut cells = vec![format!("{} ({})", single.name, single.unit)];
    for peer in Peer::ALL {
        cells
            .push(single.values.get(&peer).map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.2}")));
    }
    cells.extend(std::iter::repeat_n(NOTHING.to_owned(), 4));
    cells.push(single.at_most.map_or_else(|| NOTHING.to_owned(), |at_most| format!("≤ {at_most:.2}")));
    cells.push(single.verdict().text());
    cells
}

fn speed(rate: f64, bulk: bool) -> String {
    if bulk {
        format!("{rate:.2} Gb/s")
    } else if rate >= 10_000.0 {
        format!("{:.1} k/s", rate / 1000.0)
    } else {
        format!("{rate:.0}/s")
    }
}

/// Three digits are enough.
fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Everything as JSON, with every run.
pub(crate) fn json(report: &Report) -> Value {
    let rows: Vec<Value> = report
        .timed
        .iter()
        .map(|timed| {
            let systems: serde_json::Map<String, Value> = timed
                .runs
                .iter()
                .map(|(peer, runs)| {
                    let key = format!("{peer:?}").to_lowercase();
                    (key, json!({"figures": report.figures(timed, *peer), "runs": runs}))
                })
                .collect();
            json!({
                "row": timed.row.name,
                "unit": if timed.row.load.is_bulk() { "Gb/s" } else { "per second" },
                "systems": systems,
                "wanted": timed.row.wanted,
                "judged": report.verdict(timed),
            })
        })
        .collect();
    let singles: Vec<Value> =
        report.singles.iter().map(|single| json!({"row": single, "judged": single.verdict()})).collect();
    json!({
        "facts": report.facts,
        "rows": rows,
        "singles": singles,
        "missing": report.missing,
        "failures": report.failures,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::Sample;

    #[test]
    fn a_missing_system_leaves_its_cell_empty_and_every_line_is_complete() {
        let row = crate::rows::all().into_iter().next().unwrap();
        let run = |rate| vec![Some(Sample { rate, cpu: 100.0, ..Sample::default() })];
        let runs = BTreeMap::from([(Peer::Haproxy, run(8.0)), (Peer::Culvert, run(12.0))]);
        let single = Single {
            name: "idle".to_owned(),
            unit: "MiB",
            values: BTreeMap::from([(Peer::Culvert, 5.0)]),
            at_most: Some(6.0),
        };
        let report = Report { timed: vec![Timed { row, runs }], singles: vec![single], ..Report::default() };
        let table = Table::of(&report);
        assert!(table.lines.iter().all(|line| line.len() == table.head.len()));
        let markdown = table.markdown();
        assert!(markdown.contains("| 8.00 Gb/s | – | – | – | – | 1.50 × |"), "{markdown}");
        assert!(markdown.contains("| ≤ 6.00 | pass |"), "{markdown}");
        assert_eq!(table.text().lines().count(), 3);
    }
}
