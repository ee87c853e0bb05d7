//! What came out, and what it says about what was wanted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::Outcome;
use crate::peers::Peer;
use crate::rows::{Load, Row, Wanted};
use crate::statistics::{median, spread};

/// One run's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Exchanges per second, or (bulk) Gb/s.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Microseconds of the proxies' CPU time per exchange, or (bulk) per MB.
    pub(crate) cpu: f64,
}

impl Sample {
    pub(crate) fn of(outcome: &Outcome, load: Load) -> Self {
        let (rate, cpu) = if load.is_bulk() {
            (outcome.rate() * 8.0 / 1e9, outcome.cpu_per(1e6))
        } else {
            (outcome.rate(), outcome.cpu_per(1.0))
        };
        Self { rate, p50: outcome.p50, p99: outcome.p99, cpu }
    }
}

/// A row with the runs of every repetition; a run that failed is missing.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) row: Row,
    pub(crate) runs: BTreeMap<Peer, Vec<Option<Sample>>>,
}

/// A row of single figures, one per system, with the most that culvert may have.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Single {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: BTreeMap<Peer, f64>,
    pub(crate) at_most: Option<f64>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) facts: Vec<String>,
    pub(crate) timed: Vec<Timed>,
    pub(crate) singles: Vec<Single>,
    /// What was not measured, and why.
    pub(crate) missing: Vec<String>,
    /// Runs that failed. A report with failures is no result.
    pub(crate) failures: Vec<String>,
}

/// Whether a row is as wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reasons")]
pub(crate) enum Verdict {
    Pass,
    FallsShort(Vec<String>),
    /// Nothing is wanted, or a figure that it takes is missing.
    Open,
}

impl Verdict {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Pass => "pass".to_owned(),
            Self::FallsShort(reasons) => format!("short: {}", reasons.join(", ")),
            Self::Open => "–".to_owned(),
        }
    }
}

/// Medians of one system in one row.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) rate: Option<f64>,
    /// Median of the ratios to the reference within each repetition, and how far they lie apart.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_spread: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) cpu: Option<f64>,
    pub(crate) n_runs: usize,
}

impl Report {
    /// The runs that a row's ratios refer to: haproxy's in the same row, or culvert's own across nodes.
    fn reference(&self, timed: &Timed) -> Option<&[Option<Sample>]> {
        if !timed.row.near {
            let own = self.timed.iter().find(|other| other.row == timed.row)?;
            return own.runs.get(&Peer::Haproxy).map(Vec::as_slice);
        }
        let across = self.timed.iter().find(|other| !other.row.near && other.row.load == timed.row.load)?;
        across.runs.get(&Peer::Culvert).map(Vec::as_slice)
    }

    pub(crate) fn figures(&self, timed: &Timed, peer: Peer) -> Figures {
        let runs = timed.runs.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let ratios = ratios(runs, self.reference(timed).unwrap_or_default());
        let middle = |of: fn(&Sample) -> f64| {
            median(&runs.iter().flatten().map(of).filter(|value| *value > 0.0).collect::<Vec<_>>())
        };
        Figures {
            rate: middle(|run| run.rate),
            ratio: median(&ratios),
            ratio_spread: spread(&ratios),
            p50: middle(|run| run.p50),
            p99: middle(|run| run.p99),
            cpu: middle(|run| run.cpu),
            n_runs: runs.iter().flatten().count(),
        }
    }

    pub(crate) fn verdict(&self, timed: &Timed) -> Verdict {
        let culvert = self.figures(timed, Peer::Culvert);
        let envoy_runs = timed.runs.get(&Peer::Envoy).map(Vec::as_slice).unwrap_or_default();
        let own_runs = timed.runs.get(&Peer::Culvert).map(Vec::as_slice).unwrap_or_default();
        let of_envoy = median(&ratios(own_runs, envoy_runs));
        let p99 = |peer| self.figures(timed, peer).p99;
        let Wanted { of_haproxy, of_envoy: wanted_of_envoy, p99_below, of_cross_node } = timed.row.wanted;
        let (haproxy, near) = if timed.row.near { (None, culvert.ratio) } else { (culvert.ratio, None) };
        let mut checks = Vec::new();
        let mut ratio = |wanted: Option<f64>, is: Option<f64>, whose: &str| {
            if let Some(wanted) = wanted {
                checks.push(is.map(|is| (is >= wanted, format!("{is:.2} × {whose}"))));
            }
        };
        ratio(of_haproxy, haproxy, "haproxy");
        ratio(wanted_of_envoy, of_envoy, "Envoy");
        ratio(of_cross_node, near, "across nodes");
        if p99_below {
            for peer in [Peer::Haproxy, Peer::Envoy] {
                checks.push(
                    culvert.p99.zip(p99(peer)).map(|(own, other)| {
                        (own < other, format!("p99 {:.2} × {}", own / other, peer.title()))
                    }),
                );
            }
        }
        judge(&checks)
    }
}

/// Ratio of each run to the reference's run of the same repetition.
fn ratios(runs: &[Option<Sample>], reference: &[Option<Sample>]) -> Vec<f64> {
    runs.iter()
        .zip(reference)
        .filter_map(|(run, reference)| {
            let (run, reference) = ((*run)?, (*reference)?);
            (reference.rate > 0.0).then(|| run.rate / reference.rate)
        })
        .collect()
}

/// One check that fails decides; without any it takes all figures to pass.
fn judge(checks: &[Option<(bool, String)>]) -> Verdict {
    let short: Vec<String> =
        checks.iter().flatten().filter(|(fine, _)| !fine).map(|(_, reason)| reason.clone()).collect();
    if !short.is_empty() {
        return Verdict::FallsShort(short);
    }
    if checks.is_empty() || checks.iter().any(Option::is_none) { Verdict::Open } else { Verdict::Pass }
}

impl Single {
    pub(crate) fn verdict(&self) -> Verdict {
        let Some((is, at_most)) = self.values.get(&Peer::Culvert).zip(self.at_most) else {
            return Verdict::Open;
        };
        judge(&[Some((*is <= at_most, format!("{is:.2} of {at_most:.2} {}", self.unit)))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rates: &[f64], p99: f64) -> Vec<Option<Sample>> {
        rates.iter().map(|rate| Some(Sample { rate: *rate, p99, ..Sample::default() })).collect()
    }

    fn report(culvert: &[f64], p99: f64) -> Report {
        let row = crate::rows::all().into_iter().find(|row| row.name == "ping-pong 64 B, 16").unwrap();
        let runs = BTreeMap::from([
            (Peer::Haproxy, runs(&[10.0, 20.0, 10.0], 200.0)),
            (Peer::Envoy, runs(&[8.0, 16.0, 8.0], 300.0)),
            (Peer::Culvert, runs(culvert, p99)),
        ]);
        Report { timed: vec![Timed { row, runs }], ..Report::default() }
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let report = report(&[13.0, 26.0, 14.0], 150.0);
        let figures = report.figures(&report.timed[0], Peer::Culvert);
        assert_eq!(figures.ratio, Some(1.3));
        assert_eq!(report.verdict(&report.timed[0]), Verdict::Pass);
    }

    #[test]
    fn what_falls_short_is_named() {
        let slow = report(&[11.0, 22.0, 11.0], 250.0);
        let Verdict::FallsShort(reasons) = slow.verdict(&slow.timed[0]) else { panic!("it passed") };
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        let mut lonely = report(&[13.0, 26.0, 14.0], 150.0);
        lonely.timed[0].runs.remove(&Peer::Envoy);
        assert_eq!(lonely.verdict(&lonely.timed[0]), Verdict::Open);
    }

    #[test]
    fn a_run_that_failed_takes_no_part() {
        let mut report = report(&[13.0, 26.0, 14.0], 150.0);
        if let Some(runs) = report.timed[0].runs.get_mut(&Peer::Culvert) {
            runs[1] = None;
        }
        assert_eq!(report.figures(&report.timed[0], Peer::Culvert).n_runs, 2);
    }
}
