//! A whole agent in a sandbox: real namespaces and rules, a proxy made of messages. A-IP-17, A-IP-19
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kit::sandbox::{Host, Sandbox, sandboxed};
use net::NetNamespace;
use net::capture::{self, CALLS_TABLE, Capture, Setting, WayBack};
use net::links::{Family, Links};
use net::nftables;
use net::star::LINK;

use crate::app::{self, Config};
use crate::local::client::{AskError, ask};
use crate::local::{self, Listed, Request, SOCKET, State};
use crate::zds::tests::FakeProxy;

const LIMIT: Duration = Duration::from_secs(20);

/// An agent that can be killed: its runtime ends with all that runs on it, in the middle of whatever it does.
struct Agent {
    runtime: tokio::runtime::Runtime,
    config: Config,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let config = Config { folder: folder.join("n1"), zds_socket: folder.join("z.sock"), cleanup: false };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serving = app::serve(config.clone());
        runtime.spawn(async move { serving.await.unwrap() });
        let agent = Self { runtime, config };
        let socket = agent.config.folder.join(SOCKET);
        wait_for(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        agent
    }

    fn kill(self) {
        self.runtime.shutdown_timeout(LIMIT);
    }

    fn ask(&self, request: &Request) -> Result<Vec<Listed>, AskError> {
        ask(&self.config.folder.join(SOCKET), request)
    }

    fn enroll(&self, host: &Host, change: impl FnOnce(&mut local::Enroll)) -> Result<Vec<Listed>, AskError> {
        let mut enroll = local::Enroll {
            netns: path_of(&host.namespace),
            uid: format!("uid-{}", host.name),
            pod: format!("default/{}", host.name).parse().unwrap(),
            service_account: "sa".to_owned(),
            options: crate::enrolled::Options::default(),
            wait_seconds: 20,
        };
        change(&mut enroll);
        self.ask(&Request::Enroll(enroll))
    }

    fn withdraw(&self, host: &Host) -> Result<Vec<Listed>, AskError> {
        self.ask(&Request::Withdraw { uid: format!("uid-{}", host.name) })
    }

    fn states(&self) -> Vec<(String, State)> {
        let listed = self.ask(&Request::List).unwrap();
        listed.into_iter().map(|listed| (listed.record.uid, listed.state)).collect()
    }
}

/// Accepts everything (or refuses every pod) and tells what it was told.
struct Proxy {
    runtime: tokio::runtime::Runtime,
    told: Receiver<String>,
}

impl Proxy {
    fn start(folder: &Path, refuse: &'static str) -> Self {
        let path = folder.join("z.sock");
        let (tell, told) = channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let proxy = FakeProxy::connect(&path).await;
            loop {
                let said = proxy.accept_unless(refuse).await;
                if tell.send(said).is_err() {
                    return;
                }
            }
        });
        Self { runtime, told }
    }

    #[track_caller]
    fn expect(&self, wanted: &str) {
        assert_eq!(self.told.recv_timeout(LIMIT).unwrap(), wanted);
    }

    fn kill(self) {
        self.runtime.shutdown_timeout(LIMIT);
    }
}

#[track_caller]
fn wait_for(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the condition did not come true");
}

/// A path that leads to a namespace held by a descriptor.
fn path_of(namespace: &NetNamespace) -> PathBuf {
    use std::os::fd::{AsFd, AsRawFd};
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd()).into()
}

fn pod(sandbox: &mut Sandbox) -> (Host, String) {
    let host = sandbox.host("web", &["10.0.0.1", "fd00::1"]);
    let add = format!("add uid-web default/web/sa {}", host.namespace.id().inode);
    (host, add)
}

fn stands(host: &Host) -> bool {
    capture::stands(&host.namespace, &Capture::default()).unwrap()
}

fn is_clean(host: &Host) -> bool {
    nftables::table_names(&host.namespace).unwrap().is_empty()
        && [Setting::Accept, Setting::ReflectV4, Setting::ReflectV6]
            .iter()
            .all(|setting| value(host, *setting) == "0")
}

fn value(host: &Host, setting: Setting) -> String {
    let path = format!("/proc/sys/{}", setting.name().replace('.', "/"));
    host.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned()
}

#[test]
fn enroll_returns_when_the_rules_stand_and_the_proxy_serves_and_withdraw_undoes_both() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        proxy.expect("sent");
        let listed = agent.enroll(&web, |_| {}).unwrap();
        assert_eq!(listed[0].state, State::Enabled);
        proxy.expect(&add);
        assert!(stands(&web));
        assert_eq!(agent.states(), [("uid-web".to_owned(), State::Enabled)]);
        // Again: the same end, and nothing for the proxy to do.
        agent.enroll(&web, |_| {}).unwrap();

        agent.withdraw(&web).unwrap();
        proxy.expect("del uid-web");
        assert!(is_clean(&web));
        assert_eq!(agent.states(), []);
        assert_eq!(agent.withdraw(&web).unwrap_err().code(), "agent-unknown-pod");
        agent.kill();
    });
}

/// While no proxy serves it, an enrolled pod's traffic goes nowhere; never past the mesh.
#[test]
fn traffic_of_an_enrolled_pod_never_leaves_in_the_clear() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, _) = pod(&mut sandbox);
        let peer = sandbox.host("peer", &["10.0.0.2"]);
        let listener = peer.run(|| std::net::TcpListener::bind("10.0.0.2:80")).unwrap();
        let target: SocketAddr = listener.local_addr().unwrap();
        let reaches = || web.run(|| TcpStream::connect_timeout(&target, LIMIT)).is_ok();
        assert!(reaches());
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        agent.enroll(&web, |_| {}).unwrap();
        assert!(!reaches());
        proxy.kill();
        assert!(!reaches());
        wait_for(|| agent.states() == [("uid-web".to_owned(), State::Pending)]);
        agent.kill();
        assert!(!reaches());
    });
}

#[test]
fn without_a_proxy_enrolling_fails_and_leaves_nothing() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let agent = Agent::start(folder.path());
        let error = agent.enroll(&web, |enroll| enroll.wait_seconds = 0).unwrap_err();
        assert_eq!(error.code(), "agent-no-proxy");
        assert!(error.to_string().contains("z.sock"), "{error}");
        assert!(is_clean(&web));
        assert_eq!(agent.states(), []);
        // A proxy that comes while it waits is in time.
        std::thread::scope(|threads| {
            let enrolling = threads.spawn(|| agent.enroll(&web, |_| {}));
            wait_for(|| agent.states() == [("uid-web".to_owned(), State::Pending)]);
            assert!(!enrolling.is_finished(), "there is no proxy yet");
            let late = Proxy::start(folder.path(), "");
            enrolling.join().unwrap().unwrap();
            late.expect(&add);
        });
    });
}

#[test]
fn a_pod_the_proxy_refuses_is_let_go() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "failure to start proxy : port taken");
        proxy.expect("sent");
        let error = agent.enroll(&web, |enroll| enroll.wait_seconds = 1).unwrap_err();
        assert_eq!(error.code(), "agent-proxy-refused");
        assert!(error.to_string().contains("port taken"), "{error}");
        proxy.expect(&add);
        proxy.expect("del uid-web");
        assert!(is_clean(&web));
    });
}

#[test]
fn what_must_not_be_enrolled_is_refused_with_a_reason() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, _) = pod(&mut sandbox);
        let agent = Agent::start(folder.path());
        let _proxy = Proxy::start(folder.path(), "");
        let own = path_of(sandbox.hub());
        let code = |change: fn(&mut local::Enroll)| agent.enroll(&web, change).unwrap_err().code().to_owned();
        assert_eq!(
            agent.enroll(&web, |enroll| enroll.netns = own).unwrap_err().code(),
            "agent-host-namespace"
        );
        assert_eq!(code(|enroll| enroll.netns = "/nowhere".into()), "netns-cannot-open");
        assert_eq!(code(|enroll| enroll.netns = "/dev/null".into()), "netns-not-a-network-namespace");
        assert_eq!(code(|enroll| enroll.uid = "u".repeat(1100)), "agent-names-too-long");
        assert_eq!(code(|enroll| enroll.service_account = String::new()), "agent-empty-name");
        let long = |enroll: &mut local::Enroll| enroll.options.virtual_interfaces = vec!["x".repeat(16)];
        assert_eq!(code(long), "agent-invalid-interface");
        assert!(is_clean(&web));
        agent.enroll(&web, |_| {}).unwrap();
        let error = agent.enroll(&web, |enroll| enroll.uid = "other".to_owned()).unwrap_err();
        assert_eq!(error.code(), "agent-namespace-taken");
        assert!(stands(&web));
    });
}

#[test]
fn an_agent_that_is_killed_leaves_rules_and_the_next_takes_them_up() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let gone = sandbox.host("gone", &["10.0.0.3"]);
        let broken = sandbox.host("broken", &["10.0.0.4"]);
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        proxy.expect("sent");
        for host in [&web, &gone, &broken] {
            agent.enroll(host, |_| {}).unwrap();
        }
        agent.kill();
        proxy.kill();
        assert!(stands(&web));
        // While nobody looks, one namespace goes and somebody breaks the rules of another.
        let second_path = web.namespace.try_clone().unwrap();
        drop(gone);
        nftables::remove(&broken.namespace, &capture::TABLES).unwrap();
        let counted = nftables::read(&web.namespace, &capture::TABLES).unwrap();

        let agent = Agent::start(folder.path());
        let mut uids: Vec<String> = agent.states().into_iter().map(|(uid, _)| uid).collect();
        uids.sort();
        assert_eq!(uids, ["uid-broken", "uid-web"]);
        assert!(stands(&web) && stands(&broken));
        assert_eq!(nftables::read(&web.namespace, &capture::TABLES).unwrap(), counted);
        let proxy = Proxy::start(folder.path(), "");
        proxy.expect(&format!("add uid-broken default/broken/sa {}", broken.namespace.id().inode));
        proxy.expect(&add);
        proxy.expect("sent");
        drop(second_path);
    });
}

/// Rules of an earlier agent are brought up to date, and what a setting was before the first is put back at the end.
#[test]
fn rules_of_an_earlier_version_are_replaced_when_the_agent_starts() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        agent.enroll(&web, |_| {}).unwrap();
        agent.kill();
        proxy.kill();
        // As it was left: nothing but the tables of that time, and settings as they are by default.
        capture::remove(&web.namespace).unwrap();
        let mut earlier = capture::rules(&Capture::default(), &WayBack::ByConnection);
        earlier.tables.retain(|table| !table.name.ends_with("raw"));
        nftables::replace(&web.namespace, &earlier, &[]).unwrap();
        assert!(!stands(&web));
        let agent = Agent::start(folder.path());
        assert!(stands(&web));
        assert_eq!(value(&web, Setting::Accept), "1");
        let proxy = Proxy::start(folder.path(), "");
        proxy.expect(&add);
        agent.withdraw(&web).unwrap();
        assert!(is_clean(&web));
        agent.kill();
    });
}

/// Networks that are attached later, and those that came while no agent ran.
#[test]
fn routes_of_calls_follow_those_of_the_pod() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, _) = pod(&mut sandbox);
        let change = |route: &str| {
            let mut links = Links::open(&web.namespace).unwrap();
            links.add_route(route.parse().unwrap(), LINK, None).unwrap();
        };
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        agent.enroll(&web, |_| {}).unwrap();
        let usage = || Links::open(&web.namespace).unwrap().usage(CALLS_TABLE, Family::V4).unwrap();
        let (before, _) = usage();
        change("10.7.0.0/16");
        change("fd07::/64");
        wait_for(|| usage() == (before + 1, 1) && stands(&web));
        agent.kill();
        proxy.kill();
        change("10.8.0.0/16");
        assert!(!stands(&web));
        let agent = Agent::start(folder.path());
        wait_for(|| usage() == (before + 2, 1) && stands(&web));
        // And again for one that was taken up.
        change("10.9.0.0/16");
        wait_for(|| usage() == (before + 3, 1) && stands(&web));
        agent.withdraw(&web).unwrap();
        change("10.10.0.0/16");
        assert_eq!(usage(), (0, 0));
        assert!(is_clean(&web));
        agent.kill();
    });
}

/// The path it was enrolled by has gone (its process ended), but somebody still lives in the namespace.
#[test]
fn a_namespace_is_found_again_by_any_process_in_it() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, add) = pod(&mut sandbox);
        let mut child = web.command("sleep").arg("60").spawn().unwrap();
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        let by_descriptor = web.namespace.try_clone().unwrap();
        let path = path_of(&by_descriptor);
        agent.enroll(&web, |enroll| enroll.netns = path).unwrap();
        agent.kill();
        proxy.kill();
        drop(by_descriptor);
        let agent = Agent::start(folder.path());
        let proxy = Proxy::start(folder.path(), "");
        proxy.expect(&add);
        agent.kill();
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_second_agent_in_the_same_folder_is_refused() {
    sandboxed(|_sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        let second = agent.runtime.block_on(app::serve(agent.config.clone())).unwrap_err();
        assert_eq!(second.code(), "agent-already-running");
        // The first one is not disturbed.
        assert_eq!(agent.states(), []);
    });
}

#[test]
fn cleanup_leaves_nothing() {
    sandboxed(|mut sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let (web, _) = pod(&mut sandbox);
        let mut agent = Agent::start(folder.path());
        agent.enroll(&web, |enroll| enroll.wait_seconds = 0).unwrap_err();
        let proxy = Proxy::start(folder.path(), "");
        agent.enroll(&web, |_| {}).unwrap();
        let config = Config { cleanup: true, ..agent.config.clone() };
        agent.kill();
        proxy.kill();
        assert!(stands(&web));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving = async {
            let stop = async {
                while !config.folder.join(SOCKET).exists() || !config.zds_socket.exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                terminate_self();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                served = app::serve(config.clone()) => served.unwrap(),
                () = stop => {}
            }
        };
        runtime.block_on(async { tokio::time::timeout(LIMIT, serving).await.unwrap() });
        assert!(is_clean(&web));
        agent = Agent::start(folder.path());
        assert_eq!(agent.states(), []);
    });
}

/// SIGTERM to this process, whose handler is the agent's.
fn terminate_self() {
    let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn nonsense_on_the_agents_socket_is_answered_and_disturbs_nobody() {
    use std::io::{Read, Write};
    sandboxed(|_sandbox| {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        for nonsense in ["\n", "{}\n", "{\"do\":\"fly\"}\n", &"x".repeat(70_000), "\u{1}\u{2}\n"] {
            let mut stream =
                std::os::unix::net::UnixStream::connect(agent.config.folder.join(SOCKET)).unwrap();
            // A line beyond the limit is answered before it is all written.
            let _ = stream.write_all(nonsense.as_bytes());
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.contains("agent-invalid-request"), "{answer}");
        }
        assert_eq!(agent.states(), []);
    });
}

#[test]
fn what_an_obstacle_costs_is_told_of_the_way_back_or_of_calls() {
    use net::NetlinkError;
    let unknown = || NetlinkError::Answer("cut".into());
    for (obstacle, tracks) in [
        (capture::Obstacle::Open(3), true),
        (capture::Obstacle::Uncounted(unknown()), true),
        (capture::Obstacle::Untold(unknown()), false),
        (capture::Obstacle::Direct, false),
        (capture::Obstacle::Partly(1), false),
    ] {
        let cost = super::cost(&obstacle);
        assert_eq!(cost == "connection tracking goes on", tracks, "{obstacle}: {cost}");
        assert_eq!(cost.contains("calls have segments"), !tracks, "{obstacle}: {cost}");
    }
}
