//! The laboratory: a running demo, and hands to work in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::probe::{self, Probe};

/// Longest wait for anything that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Labs that may run at once: each is a dozen processes.
const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// May the kernel give us namespaces? If not, fails with the setting's name, or says that the test is skipped.
pub(crate) fn allowed() -> bool {
    if std::env::var_os("CULVERT_SKIP_NAMESPACE_TESTS").is_some_and(|value| value == "1") {
        // Not by a macro: the harness would keep what a test that passes prints.
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: CULVERT_SKIP_NAMESPACE_TESTS=1");
        return false;
    }
    true
}

/// A running demo; ended when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    demo: Child,
    pub(crate) register: Value,
    pub(crate) folder: PathBuf,
}

impl Lab {
    /// Starts bookinfo.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--only-mesh", "--json"])
    }

    /// Starts a demo with these arguments; it must print its facts as JSON.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut running = RUNNING.lock().unwrap();
        while *running >= AT_ONCE {
            running = LEFT.wait(running).unwrap();
        }
        *running += 1;
        drop(running);
        let mut demo = culvert(&["demo"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let facts = read_facts(&mut demo);
        let folder = PathBuf::from(facts["folder"].as_str().expect("the facts name the folder"));
        let mut lab = Self { demo, register: Value::Null, folder };
        lab.reread();
        lab
    }

    /// Reads the register again: process numbers change when something was restarted.
    pub(crate) fn reread(&mut self) {
        let text = std::fs::read(self.folder.join("demo.json")).expect("the demo's register");
        self.register = serde_json::from_slice(&text).unwrap();
    }

    pub(crate) fn id(&self) -> String {
        self.demo.id().to_string()
    }

    pub(crate) fn demo_pid(&self) -> u32 {
        self.demo.id()
    }

    fn member(&self, name: &str) -> Value {
        let all = std::iter::once(&self.register["control"])
            .chain(self.register["nodes"].as_array().unwrap())
            .chain(self.register["pods"].as_array().unwrap());
        all.into_iter()
            .find(|member| {
                member["name"] == name || member["also"].as_array().unwrap().iter().any(|also| also == name)
            })
            .unwrap_or_else(|| panic!("no member {name}"))
            .clone()
    }

    pub(crate) fn address(&self, name: &str) -> String {
        self.member(name)["address"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        u32::try_from(self.member(name)["pid"].as_u64().unwrap()).unwrap()
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let path = self.member(name)["log"].as_str().unwrap().to_owned();
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Every process of the demo.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let members = std::iter::once(&self.register["control"])
            .chain(self.register["nodes"].as_array().unwrap())
            .chain(self.register["pods"].as_array().unwrap())
            .map(|member| &member["pid"]);
        let agents = self.register["agents"].as_array().unwrap();
        members.chain(agents).map(|pid| u32::try_from(pid.as_u64().unwrap()).unwrap()).collect()
    }

    /// `culvert demo get --from POD URL`.
    pub(crate) fn get(&self, from: &str, url: &str) -> Output {
        culvert(&["demo", "get", "--demo", &self.id(), "--from", from, url]).output().unwrap()
    }

    /// `culvert zc …` for this demo; must succeed.
    pub(crate) fn zc(&self, words: &[&str]) -> String {
        let output = culvert(&["zc"]).args(words).args(["--demo", &self.id()]).output().unwrap();
        assert!(output.status.success(), "zc {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a probe inside a member.
    pub(crate) fn probe(&self, inside: &str, probe: &Probe) -> probe::Running {
        let mut command = culvert(&["demo", "exec", "--demo", &self.id(), inside, "--"]);
        probe.start(&mut command)
    }

    /// Writes a file of the mesh.
    pub(crate) fn write_mesh(&self, name: &str, text: &str) {
        let draft = self.folder.join(format!(".{name}.draft"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.folder.join("mesh").join(name)).unwrap();
    }

    pub(crate) fn remove_mesh(&self, name: &str) {
        std::fs::remove_file(self.folder.join("mesh").join(name)).unwrap();
    }

    /// Access-log lines of a node for which `wanted` holds, once there is one.
    pub(crate) fn access_line(&self, node: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(&format!("an access line of {node}"), || {
            self.log(node)
                .lines()
                .rev()
                .find(|line| line.contains("\taccess\t") && wanted(line))
                .map(str::to_owned)
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        signal(self.demo.id(), rustix_signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.demo.try_wait().ok().flatten().is_none() {
            if Instant::now() > deadline {
                let _ = self.demo.kill();
                let _ = self.demo.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}

/// Signal numbers as `kill` knows them.
pub(crate) mod rustix_signal {
    pub(crate) const TERM: &str = "TERM";
    pub(crate) const KILL: &str = "KILL";
    pub(crate) const STOP: &str = "STOP";
    pub(crate) const CONT: &str = "CONT";
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, name: &str) {
    // The shell's built-in: no program beside the shell is needed.
    let _ =
        Command::new("/bin/sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
}

pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// The binary under test with these arguments.
pub(crate) fn culvert(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.args(arguments).current_dir(Path::new("/"));
    command
}

/// Asks again until there is an answer; panics after [`LIMIT`].
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        // Another process changes what is asked about: looking again is the only notice there is.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first JSON document on the demo's standard output.
fn read_facts(demo: &mut Child) -> Value {
    let mut reader = BufReader::new(demo.stdout.take().unwrap());
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            let status = demo.wait().unwrap();
            *RUNNING.lock().unwrap() -= 1;
            LEFT.notify_one();
            panic!("the demo ended ({status}) and had said: {text}");
        }
        text.push_str(&line);
        if let Ok(facts) = serde_json::from_str(&text) {
            // Keep reading, so that it never blocks on a full pipe.
            std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
            return facts;
        }
    }
}
