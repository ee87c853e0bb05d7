//! How many threads carry traffic (control-and-operations 9.4).
use super::reader::Reader;

/// The count for this machine, the environment and `concurrency` of the proxy config.
pub(super) fn count(reader: &Reader<'_>, concurrency: Option<u16>, n_cpus: usize) -> usize {
    let limit = reader.parsed("ZTUNNEL_RESOURCE_CPU_LIMIT", quantity);
    let request = reader.parsed("ZTUNNEL_RESOURCE_CPU_REQUEST", quantity);
    // The downward API gives the node's cores when no limit is set: it tells a count, not somebody's wish.
    let n_told = reader.number("ZTUNNEL_CPU_LIMIT");
    let n_cores = limit.or(n_told).unwrap_or(n_cpus);
    let wanted = reader.parsed("ZTUNNEL_WORKER_THREADS", |text| threads(text, n_cores));
    let concurrency = concurrency.map(|n| if n == 0 { n_cores } else { usize::from(n) });
    let n_threads = wanted.or(concurrency).unwrap_or_else(|| match limit {
        Some(limit) => limit.max(request.unwrap_or(0)),
        None => n_cores.div_ceil(4).max(request.unwrap_or(0)).max(2),
    });
    n_threads.max(1)
}

/// A number (0: all cores) or a percentage of the cores.
fn threads(text: &str, n_cores: usize) -> Result<usize, String> {
    let Some(percent) = text.strip_suffix('%') else {
        let n: usize = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
        return Ok(if n == 0 { n_cores } else { n });
    };
    let percent: f64 = percent.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err("percentage must be between 0 and 100".into());
    }
    // At most the number of cores, which fits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of cores"
    )]
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 cores")]
    let share = (n_cores as f64 * percent / 100.0).ceil() as usize;
    Ok(share.max(1))
}

/// CPU quantity of Kubernetes, rounded up: `2`, `1.5`, `500m`.
fn quantity(text: &str) -> Result<usize, String> {
    let (number, per_core) = match text.strip_suffix('m') {
        Some(number) => (number, 1000.0),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    let cores = (number / per_core).ceil();
    if !(cores > 0.0 && cores <= 65_536.0) {
        return Err("CPU quantity must be greater than 0".into());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(cores as usize)
}

#[cfg(test)]
mod tests {
    use runtime::environment::Environment;

    use super::*;

    fn counted(variables: &[(&str, &str)], concurrency: Option<u16>, n_cpus: usize) -> Result<usize, String> {
        let environment: Environment = variables.iter().copied().collect();
        let reader = Reader::new(&environment);
        let n = count(&reader, concurrency, n_cpus);
        let errors = reader.into_errors();
        errors.first().map_or(Ok(n), |error| Err(error.to_string()))
    }

    // CO-11.4-2, A-MI-14
    #[test]
    fn thread_count_follows_the_knobs() {
        const THREADS: &str = "ZTUNNEL_WORKER_THREADS";
        const LIMIT: &str = "ZTUNNEL_RESOURCE_CPU_LIMIT";
        const REQUEST: &str = "ZTUNNEL_RESOURCE_CPU_REQUEST";
        const OLDER: &str = "ZTUNNEL_CPU_LIMIT";
        type Case = (&'static [(&'static str, &'static str)], Option<u16>, usize, usize);
        let cases: &[Case] = &[
            (&[(THREADS, "3")], None, 8, 3),
            (&[(THREADS, "50%")], None, 8, 4),
            (&[(THREADS, "30%")], None, 16, 5),
            (&[(THREADS, "10%")], None, 4, 1),
            (&[(THREADS, "0")], None, 6, 6),
            (&[], Some(0), 6, 6),
            (&[], Some(5), 6, 5),
            (&[(THREADS, "2")], Some(5), 6, 2),
            (&[], None, 2, 2),
            (&[], None, 16, 4),
            (&[], None, 17, 5),
            (&[(REQUEST, "6")], None, 16, 6),
            (&[(LIMIT, "500m")], None, 16, 1),
            (&[(LIMIT, "2500m")], None, 16, 3),
            (&[(LIMIT, "1.5")], None, 16, 2),
            (&[(LIMIT, "2"), (REQUEST, "4")], None, 16, 4),
            (&[(OLDER, "3")], None, 16, 2),
            (&[(OLDER, "12")], None, 16, 3),
            (&[(OLDER, "12")], Some(0), 16, 12),
            (&[(OLDER, "3"), (LIMIT, "8"), (THREADS, "50%")], None, 16, 4),
        ];
        for (variables, concurrency, n_cpus, expected) in cases {
            assert_eq!(
                counted(variables, *concurrency, *n_cpus),
                Ok(*expected),
                "{variables:?} {concurrency:?}"
            );
        }
    }

    #[test]
    fn nonsense_counts_are_refused() {
        for (name, value) in [
            ("ZTUNNEL_WORKER_THREADS", "many"),
            ("ZTUNNEL_WORKER_THREADS", "0%"),
            ("ZTUNNEL_WORKER_THREADS", "101%"),
            ("ZTUNNEL_WORKER_THREADS", "-1"),
            ("ZTUNNEL_RESOURCE_CPU_LIMIT", "0"),
            ("ZTUNNEL_RESOURCE_CPU_REQUEST", "-1m"),
            ("ZTUNNEL_CPU_LIMIT", ""),
        ] {
            let error = counted(&[(name, value)], None, 4).unwrap_err();
            assert!(error.starts_with(&format!("invalid env var {name}={value} (")), "{error}");
        }
    }
}
