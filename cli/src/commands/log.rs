//! `log`: showing and changing the log filter of running nodes (control-and-operations 10.6).
use std::io::Write;

use anyhow::{bail, ensure};
use http::Method;
use runtime::clock;

use crate::FETCH_LIMIT;
use crate::args::{Args, LogArgs};
use crate::fetch::fetch;
use crate::target::{Place, Target, Targets};

const LEVELS: [&str; 8] = ["trace", "debug", "info", "warning", "warn", "error", "critical", "off"];

/// The answers of all nodes asked; an error names every node that failed.
pub(crate) async fn run(log: &LogArgs, place: &Place, args: &Args) -> anyhow::Result<String> {
    let spec = translate(&log.level).map_err(|bad| anyhow::anyhow!("unrecognized logging level: {bad}"))?;
    let targets = Targets::read(place, FETCH_LIMIT).await?;
    let chosen = choose(targets, log, args)?;
    let path = if log.reset {
        let stamp = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let warning = "log level reset; using default value \"info\" for Ztunnel";
        let _ = writeln!(std::io::stderr(), "{stamp:.6}\twarn\t{warning}");
        "/logging?level=info&reset".to_owned()
    } else {
        format!("/logging?level={}", escape(&spec))
    };
    let mut text = String::new();
    let mut failures = Vec::new();
    for target in &chosen {
        let Some(endpoint) = &target.endpoint else { bail!("--file is not a running node") };
        let label = target.label();
        match fetch(endpoint, Method::POST, &path, FETCH_LIMIT).await {
            Ok(reply) => {
                text.push_str(&format!("{label}:\n{}\n", String::from_utf8_lossy(&reply)));
            }
            Err(error) => failures.push(format!("{label}: failed to execute command on Ztunnel: {error}")),
        }
    }
    // What worked is worth showing even if something failed.
    if !failures.is_empty() {
        let _ = std::io::stdout().write_all(text.as_bytes());
        bail!("{}", several(&failures));
    }
    Ok(text)
}

/// The nodes named, or all.
fn choose(targets: Targets, log: &LogArgs, args: &Args) -> anyhow::Result<Vec<Target>> {
    let common = &log.common;
    let name = (common.name.len() == 1).then(|| common.name.first()).flatten();
    if name.is_none() && common.node.is_none() {
        return Ok(targets.0);
    }
    let all = targets.0.clone();
    let chosen = targets.choose(name.map(String::as_str), common.node.as_deref(), args)?;
    if let Some((pod, namespace)) = chosen.workload {
        bail!("workloads command is only supported by Ztunnel proxies: {pod}.{namespace}");
    }
    let found: Vec<Target> = all.into_iter().filter(|target| target.dump.text == chosen.dump.text).collect();
    ensure!(!found.is_empty(), "no node proxy answered");
    Ok(found)
}

/// Checks every item and puts it as nodes understand it: `logger=level`, `warn`, `error`. The bad part otherwise.
fn translate(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Ok(String::new());
    }
    let items = given.split(',').map(|item| {
        // Text before the last `::` belongs to the logger; of three colons the first two are one.
        let last = item.split("::").last().unwrap_or(item);
        let (logger, level) = match last.split_once([':', '=']) {
            Some((_, level)) => {
                (item.strip_suffix(level).map(|logger| logger.trim_end_matches([':', '='])), level)
            }
            None => (item.strip_suffix(last).map(|logger| logger.trim_end_matches(':')), last),
        };
        if !LEVELS.contains(&level) {
            return Err(level.to_owned());
        }
        let level = match level {
            "warning" => "warn",
            "critical" => "error",
            level => level,
        };
        Ok(match logger.filter(|logger| !logger.is_empty()) {
            Some(logger) => format!("{logger}={level}"),
            None => level.to_owned(),
        })
    });
    items.collect::<Result<Vec<_>, _>>().map(|items| items.join(","))
}

/// What a query value cannot hold as it is.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~,:=".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn several(failures: &[String]) -> String {
    let plural = if failures.len() == 1 { "" } else { "s" };
    let list: String = failures.iter().map(|failure| format!("\t* {failure}\n")).collect();
    format!("{} error{plural} occurred:\n{list}\n", failures.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    // CO-11.6-1
    #[test]
    fn levels_are_checked_and_translated() {
        assert_eq!(translate("ztunnel:::pool:debug"), Err("pool:debug".into()));
        assert_eq!(translate("nonsense"), Err("nonsense".into()));
        assert_eq!(translate("ztunnel::pool:debug").unwrap(), "ztunnel::pool=debug");
        assert_eq!(translate("ztunnel::proxy=trace").unwrap(), "ztunnel::proxy=trace");
        assert_eq!(translate("debug").unwrap(), "debug");
        assert_eq!(translate("warning").unwrap(), "warn");
        assert_eq!(translate("access:debug,critical").unwrap(), "access=debug,error");
        assert_eq!(translate("info,").unwrap_err(), "");
    }

    #[test]
    fn failures_are_all_listed() {
        let text = several(&["a: x".into(), "b: y".into()]);
        assert_eq!(text, "2 errors occurred:\n\t* a: x\n\t* b: y\n\n");
    }
}
