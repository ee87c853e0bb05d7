//! The texts of `forwarded` and `traceparent`, which a peer may fill with anything.

/// Octets of the longest host name, and of a port behind it. A host is kept as long as its connection is open.
const MAX_HOST: usize = 253 + ":65535".len();

/// The `host=` parameter of a `forwarded` header, without quotes; empty is none, and so is what can be no host's name.
pub(super) fn forwarded_host(header: &str) -> Option<&str> {
    if !header.is_ascii() {
        return None;
    }
    let host = header.split(';').find_map(|parameter| parameter.trim().strip_prefix("host="))?;
    Some(host.trim_matches('"')).filter(|host| (1..=MAX_HOST).contains(&host.len()))
}

/// The trace id of a well-formed `traceparent`. Anything else is no trace, and never a fault.
pub(super) fn trace_id(header: &str) -> Option<u128> {
    let mut fields = header.split('-');
    let (version, trace) = (fields.next()?, fields.next()?);
    let (span, flags) = (fields.next()?, fields.next()?);
    let lengths = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
    let hex = header.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (lengths && hex && fields.next().is_none()).then(|| u128::from_str_radix(trace, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    // A-IN-11
    #[test]
    fn forwarded_host_is_read_in_its_forms() {
        assert_eq!(forwarded_host("for=1.2.3.4:80;host=svc.example"), Some("svc.example"));
        assert_eq!(forwarded_host("for=\"1.2.3.4\";host=\"svc.example\""), Some("svc.example"));
        assert_eq!(forwarded_host("for=1.2.3.4"), None);
        assert_eq!(forwarded_host("host="), None);
        assert_eq!(forwarded_host("host=\"\""), None);
        assert_eq!(forwarded_host("host=svc.exämple"), None);
        assert_eq!(forwarded_host(&format!("host={}", "x".repeat(60_000))), None);
    }

    #[test]
    fn no_traceparent_is_a_fault() {
        let good = format!("00-{:032x}-{:016x}-00", 0xabcu128, 1);
        assert_eq!(trace_id(&good), Some(0xabc));
        // 55 characters with too few dashes: this crashed the reference (W35).
        assert_eq!(trace_id(&format!("00-{}", "0".repeat(52))), None);
        for bad in ["", "-", "---", "00-00-00-00", &good.replace('a', "é"), &format!("{good}-00")] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }
}
