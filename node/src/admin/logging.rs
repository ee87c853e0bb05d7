//! `/logging`: showing and changing the log filter (control-and-operations 6.4).
use std::collections::BTreeMap;

use http::{Method, StatusCode};
use runtime::http::{Answer, text};
use runtime::logging::Logging;

const USAGE: &str = concat!(
    " \n",
    "usage: POST /logging\t\t\t\t\t\t(To list current level)\n",
    "usage: POST /logging?level=<level>\t\t\t\t(To change global levels)\n",
    "usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)\n",
    "\n",
    "hint: loglevel:\terror|warn|info|debug|trace|off\n",
    "hint: mod_name:\tthe module name, i.e. ztunnel::proxy\n",
);

pub(super) fn answer(logging: &Logging, method: &Method, query: &BTreeMap<String, String>) -> Answer {
    if method != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, format!("Invalid HTTP method\n{USAGE}"));
    }
    let level = query.get("level").map(String::as_str);
    match logging.adjust(level, query.contains_key("reset")) {
        Ok(filter) => text(StatusCode::OK, format!("current log level is {filter}\n")),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n{USAGE}")),
    }
}
