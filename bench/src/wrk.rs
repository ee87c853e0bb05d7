//! `wrk` as load for the HTTP rows, where it is installed: what it prints.

use crate::load::Outcome;

/// Reads what `wrk --latency` prints; CPU time is added by whoever ran it.
pub(crate) fn parse(text: &str) -> Option<Outcome> {
    let latency = |share: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(share))?;
        microseconds(line.trim())
    };
    let (amount, seconds) = text.lines().find_map(|line| {
        let (amount, rest) = line.trim().split_once(" requests in ")?;
        let seconds = rest.split_once(',').map_or(rest, |(time, _)| time);
        Some((amount.parse::<u64>().ok()?, microseconds(seconds)? / 1e6))
    })?;
    let errors: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("Socket errors:") || line.starts_with("Non-2xx"))
        .collect();
    let n_errors = errors
        .iter()
        .flat_map(|line| line.split(|c: char| !c.is_ascii_digit()))
        .filter_map(|part| part.parse::<u64>().ok())
        // The numbers in the words "Non-2xx or 3xx responses".
        .sum::<u64>()
        .saturating_sub(if errors.iter().any(|line| line.starts_with("Non-2xx")) { 5 } else { 0 });
    Some(Outcome {
        amount,
        amount_in_all: amount,
        seconds,
        p50: latency("50%")?,
        p99: latency("99%")?,
        errors: n_errors,
        first_error: (n_errors > 0).then(|| errors.join("; ")),
        cpu_seconds: 0.0,
    })
}

/// `1.20ms`, `300.00us`, `1.01s`, `1.00m`.
fn microseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 1s test @ http://10.0.0.1:7000/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   533.03us  118.32us   2.48ms   78.48%
    Req/Sec    29.57k     1.22k   31.92k    72.73%
  Latency Distribution
     50%  522.00us
     75%  594.00us
     90%  668.00us
     99%    1.02ms
  32330 requests in 1.10s, 6.17MB read
Requests/sec:  29390.66
Transfer/sec:      5.61MB
";

    #[test]
    fn figures_are_read() {
        let outcome = parse(PRINTED).unwrap();
        assert_eq!((outcome.amount, outcome.errors), (32_330, 0));
        assert!((outcome.p99 - 1020.0).abs() < 0.01 && (outcome.seconds - 1.1).abs() < 1e-9);
    }

    #[test]
    fn errors_are_counted_and_nonsense_is_nothing() {
        let broken = format!(
            "{PRINTED}  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 2\n"
        );
        assert_eq!(parse(&broken).unwrap().errors, 6);
        assert_eq!(parse("unable to connect"), None);
    }
}
