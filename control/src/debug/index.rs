//! Which endpoints there are.

use std::fmt::Write as _;

/// Names under `/debug/`, with what they show.
const ENDPOINTS: &[(&str, &str)] = &[
    ("adsz", "Connected proxies, with what they say about themselves and what they watch"),
    ("ambientz", "Workloads, services and policies as they are served"),
    ("clusterz", "The clusters read from"),
    (
        "config_dump",
        "What a proxy has been sent and has accepted: ?proxyID=pod.namespace, &types=wds or wads",
    ),
    ("conditions", "What the status of each object would say, and which parts of objects have no effect"),
    ("connections", "Connected proxies"),
    ("list", "The names of these pages"),
    ("mesh", "The mesh configuration in use"),
    ("networkz", "Gateways of other networks"),
    ("problems", "Objects and files of the source that are refused, and why"),
    ("syncz", "What each proxy has been sent and has accepted, by type"),
];

pub(super) fn is_endpoint(name: &str) -> bool {
    ENDPOINTS.iter().any(|(endpoint, _)| *endpoint == name)
}

pub(super) fn names() -> Vec<&'static str> {
    ENDPOINTS.iter().map(|(name, _)| *name).collect()
}

pub(super) fn page(n_problems: usize) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html><head><title>Culvert control</title>\
         <style>body{font-family:sans-serif;margin:2em}td{padding:.3em 1em}.bad{color:#b00}</style></head><body>\n\
         <h1>Culvert control</h1>\n",
    );
    if n_problems > 0 {
        // Writing to a string cannot fail.
        _ = writeln!(
            page,
            "<p class=\"bad\"><a href=\"/debug/problems?pretty\">{n_problems} problem{} in the source</a>; \
             the last good version of what is refused stays in use.</p>",
            if n_problems == 1 { "" } else { "s" }
        );
    }
    page.push_str("<table>\n");
    for (name, help) in ENDPOINTS {
        _ = writeln!(page, "<tr><td><a href=\"/debug/{name}\">{name}</a></td><td>{help}</td></tr>");
    }
    page.push_str("</table></body></html>\n");
    page
}

/// `<version>-<revision>-<status>`
pub(super) fn version() -> String {
    use runtime::build::{GIT_REVISION, STATUS, VERSION};
    format!("{VERSION}-{GIT_REVISION}-{STATUS}")
}
