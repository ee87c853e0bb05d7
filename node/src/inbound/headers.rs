//! What the headers of a CONNECT request mean (data-path 4.6).

use std::sync::Arc;

use hbone::IncomingConnect;

use crate::baggage::Baggage;
use crate::context::Who;

/// The headers that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers {
    /// `host=` of `forwarded`.
    pub(super) forwarded_host: Option<Arc<str>>,
    /// `x-forwarded-network`.
    pub(super) network: Option<String>,
    /// What the peer says about its workload.
    pub(super) baggage: Option<Baggage>,
    /// The id of the trace, to find the connection's lines by.
    pub(super) trace: Option<u128>,
}

impl Headers {
    pub(super) fn read(request: &IncomingConnect, with_baggage: bool) -> Self {
        let lines = || {
            let lines = request.headers.iter().filter(|(name, _)| name == "baggage");
            lines.map(|(_, value)| value.as_slice())
        };
        let baggage = (with_baggage && lines().next().is_some()).then(|| Baggage::parse(lines()));
        Self {
            forwarded_host: request.header("forwarded").and_then(forwarded_host).map(Arc::from),
            network: request.header("x-forwarded-network").map(str::to_owned),
            baggage: baggage.filter(|baggage| *baggage != Baggage::default()),
            trace: request.header("traceparent").and_then(trace_id),
        }
    }

    /// Who the source is as far as only the headers can tell.
    pub(super) fn said(self) -> Who {
        self.baggage.map_or(Who::Unknown, Who::Baggage)
    }
}

/// The `host=` parameter of a `forwarded` header, without quotes; empty is none.
fn forwarded_host(header: &str) -> Option<&str> {
    if !header.is_ascii() {
        return None;
    }
    let host = header.split(';').find_map(|parameter| parameter.trim().strip_prefix("host="))?;
    Some(host.trim_matches('"')).filter(|host| !host.is_empty())
}

/// The trace id of a well-formed `traceparent`. Anything else is no trace, and never a fault.
fn trace_id(header: &str) -> Option<u128> {
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
