//! Asking running admin servers over local sockets and TCP.
use std::sync::Arc;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use runtime::drain::{Drain, Trigger};
use runtime::http::{Answer, Request, Server, not_found, text};
use runtime::tasks::TaskGroup;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Admin servers of both recorded nodes in a demo's folder; what was posted to `/logging` is kept.
struct Lab {
    folder: tempfile::TempDir,
    posted: Arc<Mutex<Vec<String>>>,
    _tasks: TaskGroup,
    _triggers: Vec<Trigger>,
}

impl Lab {
    fn environment(&self) -> Environment {
        Environment::from_iter([("CULVERT_RUNTIME_DIR", self.folder.path().to_str().unwrap())])
    }

    async fn started() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let tasks = TaskGroup::new("lab");
        let mut triggers = Vec::new();
        for (node, dump) in
            [("ambient-worker", "config_dump-n1.json"), ("ambient-worker2", "config_dump-n2.json")]
        {
            let path = folder.path().join("demo-7").join(node);
            std::fs::create_dir_all(&path).unwrap();
            let server = Server::bind_unix(&path.join("admin.sock"), "admin").unwrap();
            let (trigger, drain) = Drain::new();
            let (dump, posted) = (page(dump), Arc::clone(&posted));
            let handler = move |request: Request| {
                let answer = answered(&request, node, &dump, &posted);
                async move { answer }
            };
            tasks.spawn("admin", server.serve(handler, tasks.clone(), drain));
            triggers.push(trigger);
        }
        // A socket whose process is gone, and a folder without one.
        let dead = folder.path().join("demo-7/dead");
        std::fs::create_dir_all(&dead).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dead.join("admin.sock")).unwrap());
        std::fs::create_dir_all(folder.path().join("demo-8")).unwrap();
        Self { folder, posted, _tasks: tasks, _triggers: triggers }
    }
}

fn answered(request: &Request, node: &str, dump: &str, posted: &Mutex<Vec<String>>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/config_dump") => text(StatusCode::OK, dump.to_owned()),
        (&Method::POST, "/logging") => {
            let query = request.uri().query().unwrap_or_default();
            posted.lock().push(format!("{node} {query}"));
            match query.contains("bogus") {
                true => text(StatusCode::BAD_REQUEST, "Invalid level provided"),
                false => text(StatusCode::OK, "current log level is hickory_server::server=off,info\n"),
            }
        }
        _ => not_found(),
    }
}

async fn answer(line: &str, environment: &Environment) -> anyhow::Result<String> {
    tokio::time::timeout(LIMIT, answer_to(&parsed(line), environment)).await.unwrap()
}

#[tokio::test]
async fn local_sockets_answer_and_dead_ones_are_passed_over() {
    let lab = Lab::started().await;
    let environment = lab.environment();
    assert_eq!(answer("workloads", &environment).await.unwrap(), printed("zc-workloads.txt"));
    let json = answer("certs --node ambient-worker2 --demo 7 -o json", &environment).await.unwrap();
    assert!(json.contains("ns/prod/sa/ledger"));
    let error = answer("workloads --demo 8", &environment).await.unwrap_err().to_string();
    assert!(error.starts_with("no node proxy found: "), "{error}");
    let error = answer("cons", &environment).await.unwrap_err().to_string();
    assert!(error.starts_with("ztunnel pod name or --node must be set; choose one of: "), "{error}");
}

// zc-log*.txt
#[tokio::test]
async fn log_asks_the_named_node_or_all() {
    let lab = Lab::started().await;
    let environment = lab.environment();
    let text = answer("log ztunnel-b6rz9.istio-system", &environment).await.unwrap();
    assert_eq!(text, printed("zc-log.txt"));
    let text = answer("log --level access:debug,warning", &environment).await.unwrap();
    assert_eq!(text.matches("current log level is").count(), 2, "{text}");
    let text = answer("o -r --node ambient-worker", &environment).await.unwrap();
    assert!(printed("zc-log-reset.txt").ends_with(&text), "{text}");
    let posted = lab.posted.lock().clone();
    let expected = [
        "ambient-worker level=",
        "ambient-worker level=access=debug,warn",
        "ambient-worker2 level=access=debug,warn",
        "ambient-worker level=info&reset",
    ];
    assert_eq!(posted, expected);
}

#[tokio::test]
async fn log_tells_every_failure_and_refuses_workloads() {
    let lab = Lab::started().await;
    let environment = lab.environment();
    let error = answer("log --level bogus::info", &environment).await.unwrap_err().to_string();
    let expected = "2 errors occurred:\n\
        \t* ztunnel-b6rz9.istio-system: failed to execute command on Ztunnel: unexpected status code: 400\n\
        \t* ztunnel-wbdqx.istio-system: failed to execute command on Ztunnel: unexpected status code: 400\n\n";
    assert_eq!(error, expected);
    let error = answer("log client-0.prod", &environment).await.unwrap_err().to_string();
    assert_eq!(error, "workloads command is only supported by Ztunnel proxies: client-0.prod");
    let error = answer("log --level nonsense", &environment).await.unwrap_err().to_string();
    assert_eq!(error, "unrecognized logging level: nonsense");
}

#[tokio::test]
async fn addresses_are_asked_and_failures_name_them() {
    let server = Server::bind_tcp("127.0.0.1:0".parse().unwrap(), "admin").await.unwrap();
    let address = server.address().to_owned();
    let (_trigger, drain) = Drain::new();
    let tasks = TaskGroup::new("test");
    tasks.spawn("admin", server.serve(|_| async { not_found() }, tasks.clone(), drain));
    let error = answer(&format!("w --admin-address {address}"), &Environment::default()).await.unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(text, format!("failed to execute command on {address} Ztunnel: unexpected status code: 404"));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = answer(&format!("w --admin-address {free}"), &Environment::default()).await.unwrap_err();
    let expected = format!("failed to execute command on {free} Ztunnel: cannot connect to {free}: ");
    assert!(format!("{error:#}").starts_with(&expected), "{error:#}");
}

#[tokio::test]
async fn several_demos_are_not_taken_for_one_mesh() {
    let lab = Lab::started().await;
    let other = lab.folder.path().join("demo-8/ambient-worker");
    std::fs::create_dir_all(&other).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(other.join("admin.sock")).unwrap();
    let ask = |line: &str| {
        let arguments = line.split_whitespace();
        let args = Args::try_parse_from(std::iter::once("zc").chain(arguments)).unwrap();
        Place::of(&args, &lab.environment()).unwrap().endpoints()
    };
    let refusal = ask("w").unwrap_err().to_string();
    assert_eq!(refusal, "several demos run here (7, 8): say which with --demo ID");
    assert_eq!(ask("w --demo 7").unwrap().len(), 2);
    let refusal = ask("w --demo 9").unwrap_err().to_string();
    assert_eq!(refusal, "no node proxy found: no demo 9 runs here; `culvert demo list` shows those that do");
}
