//! Tests in network namespaces of their own, as root or as an ordinary user.
//!
//! A test process has many threads, and a process with many threads cannot get a user namespace. So [`sandboxed`] runs
//! the test a second time, alone, in a child process that was born in its own namespaces; the parent only waits for
//! the verdict. Where the kernel forbids namespaces the test fails and names the setting, unless
//! `CULVERT_SKIP_NAMESPACE_TESTS=1` says that it may be skipped; the skip is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the test harness shows it")]
use std::future::Future;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use net::links::{LOOPBACK, Links};
use net::process::{IsolationError, Placement, explain, isolate_child, place};
use net::star::Star;
use net::{NetNamespace, NetlinkError};

/// Set in the child; says that namespaces are in place.
const INSIDE: &str = "CULVERT_SANDBOX";
/// Allows to skip tests that cannot have namespaces.
const SKIP: &str = "CULVERT_SKIP_NAMESPACE_TESTS";
/// The child's exit code if it found its namespaces unusable.
const UNUSABLE: u8 = 77;
/// No sandboxed test may take longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `body` in namespaces of its own: a user namespace unless root, an empty network and a mount namespace.
///
/// The closure must be written in the test function itself: its type's name is how the child finds the test.
pub fn sandboxed<F: FnOnce(Sandbox)>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return inside(body);
    }
    let name = test_name::<F>();
    let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
    command
        .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null());
    isolate_child(&mut command);
    place(&mut command, Placement { die_with_parent: true, ..Placement::default() }).expect("a placement");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return forbidden(&name, &explain(&error)),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(i32::from(UNUSABLE)) {
        return forbidden(&name, &explain(&std::io::Error::from_raw_os_error(1)));
    }
    println!("{text}");
    assert!(output.status.success(), "in its sandbox, {name} failed with {}:\n{text}", output.status);
    assert!(text.contains("1 passed"), "no test is named {name}: is the closure written elsewhere?\n{text}");
}

fn inside<F: FnOnce(Sandbox)>(body: F) {
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        eprintln!("the sandboxed test took longer than {LIMIT:?}");
        std::process::exit(101);
    });
    match Sandbox::new() {
        Ok(sandbox) => body(sandbox),
        Err(error) => {
            eprintln!("the namespaces are not usable: {error}");
            std::process::exit(i32::from(UNUSABLE));
        }
    }
}

fn forbidden(name: &str, reason: &IsolationError) {
    assert!(
        std::env::var_os(SKIP).is_some_and(|value| value == "1"),
        "{name} needs network namespaces, and {reason} (set {SKIP}=1 to skip such tests)"
    );
    // Not by a macro: the harness would keep what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// `crate::module::test::{{closure}}` is `module::test` to the test harness.
fn test_name<F>() -> String {
    let full = std::any::type_name::<F>();
    let path = full.split("::{{closure}}").next().unwrap_or(full);
    path.split_once("::").map_or(path, |(_, name)| name).to_owned()
}

/// The namespaces of one test: a hub, and hosts around it.
#[derive(Debug)]
pub struct Sandbox {
    star: Star,
}

/// One machine or pod in miniature.
#[derive(Debug)]
pub struct Host {
    /// Its name in messages.
    pub name: String,
    /// Its namespace.
    pub namespace: NetNamespace,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Sandbox {
    fn new() -> Result<Self, NetlinkError> {
        let own = NetNamespace::current()?;
        Links::open(&own)?.set_up(LOOPBACK)?;
        Ok(Self { star: Star::new(own).expect("a hub that forwards") })
    }

    /// A new host with these addresses (IPv4, IPv6), reachable from all others.
    pub fn host(&mut self, name: &str, addresses: &[&str]) -> Host {
        let addresses: Vec<IpAddr> =
            addresses.iter().map(|address| address.parse().expect("an IP address")).collect();
        let namespace = NetNamespace::create().expect("a network namespace");
        self.star.join(&namespace, &addresses).expect("a cable to the hub");
        Host { name: name.to_owned(), namespace, addresses }
    }

    /// A namespace that nothing leads to: loopback only.
    pub fn island(&self) -> NetNamespace {
        let namespace = NetNamespace::create().expect("a network namespace");
        Links::open(&namespace).expect("netlink").set_up(LOOPBACK).expect("loopback up");
        namespace
    }

    /// The namespace in the middle, which is also the test process's own.
    pub fn hub(&self) -> &NetNamespace {
        self.star.hub()
    }
}

impl Host {
    /// Its first IPv4 address.
    pub fn v4(&self) -> IpAddr {
        *self.addresses.iter().find(|address| address.is_ipv4()).expect("an IPv4 address")
    }

    /// Its first IPv6 address.
    pub fn v6(&self) -> IpAddr {
        *self.addresses.iter().find(|address| address.is_ipv6()).expect("an IPv6 address")
    }

    /// Runs `visit` on this thread in the host's namespace.
    pub fn run<T>(&self, visit: impl FnOnce() -> T) -> T {
        self.namespace.run(visit).expect("the host's namespace")
    }

    /// A thread that lives in the host's namespace.
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = self.namespace.try_clone().expect("the host's namespace");
        let thread = std::thread::Builder::new().name(self.name.clone());
        let body = move || {
            namespace.enter().expect("the host's namespace");
            body()
        };
        thread.spawn(body).expect("a thread")
    }

    /// A thread with a tokio runtime of its own that lives in the host's namespace and drives what `start` returns.
    pub fn spawn_async<T, F>(&self, start: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, async { start().await })
        })
    }

    /// A program that will run in the host's namespace and end with the calling thread.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = Some(self.namespace.try_clone().expect("the host's namespace"));
        let placement = Placement { namespace, die_with_parent: true, ..Placement::default() };
        place(&mut command, placement).expect("a placement");
        command
    }

    /// Joins a thread of this host, with its panic as ours.
    pub fn join<T>(thread: JoinHandle<T>) -> T {
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
