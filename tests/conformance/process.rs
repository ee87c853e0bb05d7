//! Processes that end with the test, and the suite itself.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for a process to come up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn culvert(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.args(arguments);
    command
}

/// A folder of this test's own, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("culvert-conformance-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Ended when dropped: asked first, then killed.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it and waits for the first line on its standard output for which `ready` finds something.
    pub(crate) fn start<T>(command: &mut Command, mut ready: impl FnMut(&str) -> Option<T>) -> (Self, T) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let process = Self(child);
        let mut said = String::new();
        loop {
            let length = said.len();
            assert!(reader.read_line(&mut said).unwrap() > 0, "{command:?} ended and had said: {said}");
            if let Some(found) = ready(&said).or_else(|| ready(&said[length..])) {
                // Keep reading, so that it never blocks on a full pipe.
                std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
                return (process, found);
            }
        }
    }

    /// Starts it without a word from it.
    pub(crate) fn start_quiet(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn id(&self) -> String {
        self.0.id().to_string()
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("/bin/sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status();
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.0.try_wait().ok().flatten().is_none() {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs the suite; prints what is not as expected, and gives the document.
pub(crate) fn judge(command: &mut Command) -> Value {
    let output = command.args(["--output", "json"]).stderr(Stdio::inherit()).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    let mut unexpected = 0;
    for case in document["cases"].as_array().unwrap() {
        if case["asExpected"] == false {
            unexpected += 1;
            eprintln!("{case:#}");
        }
    }
    println!(
        "conformance: {} passed, {} failed, {} skipped",
        document["passed"], document["failed"], document["notRun"]
    );
    assert_eq!(output.status.success(), unexpected == 0, "exit status {}", output.status);
    assert_eq!(unexpected, 0, "cases are not as expected");
    document
}

/// Ids of the cases that were not run.
pub(crate) fn not_run(document: &Value) -> Vec<String> {
    let cases = document["cases"].as_array().unwrap().iter().filter(|case| case["verdict"] == "not-run");
    cases.map(|case| case["id"].as_str().unwrap().to_owned()).collect()
}
