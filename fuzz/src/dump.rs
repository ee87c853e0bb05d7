//! Dumps of a node, as the command-line tool reads them: also old, foreign and broken ones.

use std::time::{Duration, SystemTime};

use cli::Question;
use wire::dump::ConfigDump;

use crate::input::Input;

/// What can be asked of one dump.
const COMMANDS: [&[&str]; 9] = [
    &["workload"],
    &["workload", "--address", "10.0.0.1", "--workload-namespace", "ns"],
    &["service", "--service-namespace", "ns"],
    &["service"],
    &["policy"],
    &["certificate"],
    &["connections"],
    &["connections", "--raw", "--direction", "inbound"],
    &["all"],
];

const FORMATS: [&str; 3] = ["short", "json", "yaml"];

thread_local!(static QUESTIONS: Vec<Question> = questions());

/// Each command in each format.
fn questions() -> Vec<Question> {
    let asked =
        COMMANDS.iter().flat_map(|command| FORMATS.map(|format| [*command, &["-o", format]].concat()));
    asked.map(|line| Question::parse(&line).expect("a command")).collect()
}

/// A command, a format, a dump.
pub fn read(data: &[u8]) {
    let mut input = Input(data);
    let choice = usize::from(input.byte());
    let text = input.0;
    let format = FORMATS[choice % FORMATS.len()];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);

    let answer = QUESTIONS.with(|all| all[choice % all.len()].answer(text.to_vec(), now));
    let Ok(dump) = ConfigDump::parse(text) else {
        assert!(answer.is_err(), "an answer from what cannot be read");
        return;
    };
    match (answer, format) {
        (Ok(answer), "json") => drop(serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")),
        (Ok(answer), _) => assert!(answer.is_empty() || answer.ends_with('\n')),
        (Err(error), _) => assert!(std::str::from_utf8(text).is_err() || text.is_empty(), "{error:#}"),
    }
    let printed = dump.to_pretty_json().expect("a dump can be printed");
    assert_eq!(ConfigDump::parse(printed.as_bytes()).expect("our own dump"), dump);
}
