//! `all`: every table.
use std::time::SystemTime;

use wire::dump::ConfigDump;

use super::{certificate, connections, policy, service, workload};

/// The tables, each after an empty line and, if wanted, a header.
pub(crate) fn tables(dump: &ConfigDump, with_headers: bool, now: SystemTime) -> String {
    let parts = [
        ("WORKLOAD", workload::table(dump, &workload::Filter::default())),
        ("SERVICE", service::table(dump, "")),
        ("POLICY", policy::table(dump, "")),
        ("SECRET", certificate::table(dump, now)),
        ("CONNECTIONS", connections::table(dump, &connections::Filter::default())),
    ];
    let section = |(title, table): (&str, String)| match with_headers {
        true => format!("\n------ {title} INFO ------\n\n{table}"),
        false => format!("\n{table}"),
    };
    parts.into_iter().map(section).collect()
}
