//! The `baggage` header: what a proxy tells its peer about the workload it speaks for
//! (data-path 4.5, 4.6).
//!
//! What a peer says is only ever a name in metrics and logs, so reading is lenient: unknown
//! members are skipped, the last value of a key wins. It is bounded all the same.

use state::Workload;

/// Most members that are read of one request, over all its header lines.
const MAX_MEMBERS: usize = 64;
/// Longest value that is kept: names in Kubernetes are shorter.
const MAX_VALUE: usize = 253;

/// What a peer said about its workload; empty text is "not said".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Baggage {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) workload: String,
    pub(crate) canonical_service: String,
    pub(crate) canonical_revision: String,
    pub(crate) region: String,
    pub(crate) zone: String,
}

impl Baggage {
    /// Reads the lines of the header.
    pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut baggage = Self::default();
        let lines = lines.into_iter().filter_map(|line| std::str::from_utf8(line).ok());
        for member in lines.flat_map(|line| line.split(',')).take(MAX_MEMBERS) {
            let mut parts = member.split('=');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            if value.len() > MAX_VALUE {
                continue;
            }
            let field = match key {
                "k8s.cluster.name" => &mut baggage.cluster,
                "k8s.namespace.name" => &mut baggage.namespace,
                "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                    &mut baggage.workload
                }
                "service.name" => &mut baggage.canonical_service,
                "service.version" => &mut baggage.canonical_revision,
                "cloud.region" => &mut baggage.region,
                "cloud.availability_zone" => &mut baggage.zone,
                _ => continue,
            };
            value.clone_into(field);
        }
        baggage
    }
}

/// The header for a workload.
pub(crate) fn of(workload: &Workload) -> String {
    let kind = match &*workload.workload_type {
        "deployment" => "k8s.deployment.name",
        "cronjob" => "k8s.cronjob.name",
        "job" => "k8s.job.name",
        _ => "k8s.pod.name",
    };
    let members = [
        ("k8s.cluster.name", &workload.cluster_id),
        ("k8s.namespace.name", &workload.namespace),
        (kind, &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        ("cloud.region", &workload.locality.region),
        ("cloud.availability_zone", &workload.locality.zone),
    ];
    let mut header = String::with_capacity(192);
    for (key, value) in members {
        // What discovery sends may be anything; a header value may not.
        if value.is_empty() || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            continue;
        }
        if !header.is_empty() {
            header.push(',');
        }
        for part in [key, "=", value] {
            header.push_str(part);
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Baggage {
        Baggage::parse(lines.iter().map(|line| line.as_bytes()))
    }

    // A-MI-10
    #[test]
    fn members_are_read_over_several_lines() {
        let all = "k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=w,service.name=s,\
                   service.version=v,cloud.region=r,cloud.availability_zone=z";
        let wanted = Baggage {
            cluster: "c".into(),
            namespace: "n".into(),
            workload: "w".into(),
            canonical_service: "s".into(),
            canonical_revision: "v".into(),
            region: "r".into(),
            zone: "z".into(),
        };
        assert_eq!(parse(&[all]), wanted);
        let (head, tail) = all.split_once(",service.name").unwrap();
        assert_eq!(parse(&[head, &format!("service.name{tail}")]), wanted);
        assert_eq!(parse(&[]), Baggage::default());
        assert_eq!(parse(&["service.name=,x=y,nonsense"]), Baggage::default());
    }

    #[test]
    fn the_last_value_wins_and_spaces_make_another_key() {
        assert_eq!(parse(&["service.name=a,service.name=b"]).canonical_service, "b");
        assert_eq!(parse(&["service.name=a", "service.name=c"]).canonical_service, "c");
        assert_eq!(parse(&["k8s.cluster.name=c, service.name=a"]).canonical_service, "");
        assert_eq!(parse(&["service.name=a=b"]).canonical_service, "a");
    }

    #[test]
    fn reading_is_bounded() {
        let long = format!("service.name={}", "x".repeat(MAX_VALUE + 1));
        assert_eq!(parse(&[&long]), Baggage::default());
        let many = format!("{}service.name=a", "x=y,".repeat(MAX_MEMBERS));
        assert_eq!(parse(&[&many]), Baggage::default());
        assert_eq!(Baggage::parse([&b"service.name=\xff"[..]]), Baggage::default());
    }
}
