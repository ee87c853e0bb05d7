//! Durations as people write them: `90`, `1h30m`, `1m+5s`, `3*20s` (control-and-operations 5.1).
use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units by all their names, lower case, with their length in nanoseconds.
const UNITS: [(&[&str], u128); 10] = [
    (&["ns", "nsec", "nanosecond", "nanoseconds"], 1),
    (&["µs", "μs", "us", "µsec", "usec", "microsecond", "microseconds"], 1_000),
    (&["ms", "msec", "millisecond", "milliseconds"], 1_000_000),
    (&["", "s", "sec", "secs", "second", "seconds"], NANOS_PER_SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * NANOS_PER_SECOND),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * NANOS_PER_SECOND),
    (&["d", "day", "days"], 86_400 * NANOS_PER_SECOND),
    (&["w", "week", "weeks"], 604_800 * NANOS_PER_SECOND),
    (&["mon", "mons", "month", "months"], 2_592_000 * NANOS_PER_SECOND),
    (&["y", "yr", "year", "years"], 31_536_000 * NANOS_PER_SECOND),
];

/// Parses a duration; the reason if it is none.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let mut total: u128 = 0;
    for term in text.split('+') {
        total = total.checked_add(product(term)?).ok_or("too long")?;
    }
    let seconds = u64::try_from(total / NANOS_PER_SECOND).map_err(|_| "too long".to_owned())?;
    let nanos = u32::try_from(total % NANOS_PER_SECOND).map_err(|_| "too long".to_owned())?;
    Ok(Duration::new(seconds, nanos))
}

/// Plain numbers times at most one duration; without any unit the product is seconds.
fn product(term: &str) -> Result<u128, String> {
    let mut nanos: Option<u128> = None;
    let mut factor: u128 = 1;
    for part in term.split('*').map(str::trim) {
        if let Ok(number) = part.parse::<u64>() {
            factor = factor.checked_mul(u128::from(number)).ok_or("too long")?;
        } else if nanos.replace(sequence(part)?).is_some() {
            return Err("a duration cannot be multiplied by a duration".into());
        }
    }
    nanos.unwrap_or(NANOS_PER_SECOND).checked_mul(factor).ok_or_else(|| "too long".into())
}

/// `1h30m`: numbers with units, one after another.
fn sequence(text: &str) -> Result<u128, String> {
    if text.is_empty() {
        return Err("a duration is a number with a unit, e.g. 90s or 1h30m".into());
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, tail) = split_where(tail, |c| c.is_ascii_digit());
        let number: u64 = number.parse().map_err(|_| format!("expected a number at \"{rest}\""))?;
        let name = unit.trim().to_lowercase();
        let length = UNITS.iter().find(|(names, _)| names.contains(&name.as_str()));
        let (_, length) = length.ok_or_else(|| format!("unknown unit \"{}\"", unit.trim()))?;
        let part = u128::from(number).checked_mul(*length).ok_or("too long")?;
        total = total.checked_add(part).ok_or("too long")?;
        rest = tail.trim_start();
    }
    Ok(total)
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        let cases: [(&str, u64); 12] = [
            ("90", 90_000),
            ("0", 0),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1m+5s", 65_000),
            ("3*20s", 60_000),
            ("2*30", 60_000),
            ("250MS", 250),
            ("1 hour 5 minutes", 3_900_000),
            ("2d", 172_800_000),
            ("1mon", 2_592_000_000),
            ("1y", 31_536_000_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("7ns"), Ok(Duration::from_nanos(7)));
        assert_eq!(parse("7µs"), Ok(Duration::from_micros(7)));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in
            ["", " ", "s", "5x", "5m-3s", "1m*1s", "+", "1m+", "-5s", "99999999999999999999y", "1.5.2s"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("5parsec").unwrap_err(), "unknown unit \"parsec\"");
    }
}
