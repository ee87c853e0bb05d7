//! The page at `/`: one row per path.
use std::fmt::Write;
use std::sync::LazyLock;

/// Path and what it is for.
const PATHS: [(&str, &str); 6] = [
    ("config_dump", "the mesh, the certificates, the pods and the configuration of this proxy, as JSON"),
    ("logging", "show or change the log filter (POST)"),
    ("quitquitquit", "stop the proxy gracefully (POST)"),
    ("debug/pprof/profile", "CPU profile; seconds=1-300 (default 10), frequency=1-1000 Hz (default 100)"),
    ("debug/pprof/heap", "heap profile, in builds that can"),
    (
        "debug/pprof/heap/profiling",
        "show or switch heap profiling with activate=true|false, in builds that can",
    ),
];

/// The page.
pub(super) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let mut page = String::from(concat!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>Ztunnel Admin</title>\n",
        "<style>body{font-family:sans-serif}td,th{padding:.3em .8em;text-align:left}</style>\n</head>\n",
        "<body>\n<table>\n<tr><th>Path</th><th>What it is for</th></tr>\n",
    ));
    for (path, description) in PATHS {
        let _ = writeln!(page, "<tr><td><a href=\"{path}\">{path}</a></td><td>{description}</td></tr>");
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
});
