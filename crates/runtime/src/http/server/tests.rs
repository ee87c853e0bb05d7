use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::drain::{Outcome, Trigger};
use crate::http::{not_found, text};

const LIMIT: Duration = Duration::from_secs(10);

/// Serves `/ok`, and `/slow` that ends when told.
async fn started() -> (String, TaskGroup, Trigger, Arc<tokio::sync::Notify>) {
    let server = Server::bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), "test").await.unwrap();
    let address = server.address().to_owned();
    let (trigger, drain) = Drain::new();
    let tasks = TaskGroup::new("test");
    let release = Arc::new(tokio::sync::Notify::new());
    let released = Arc::clone(&release);
    let handler = move |request: Request| {
        let released = Arc::clone(&released);
        async move {
            match request.uri().path() {
                "/ok" => text(StatusCode::OK, "fine\n"),
                "/slow" => {
                    released.notified().await;
                    text(StatusCode::OK, "late\n")
                }
                _ => not_found(),
            }
        }
    };
    tasks.spawn("server", server.serve(handler, tasks.clone(), drain));
    (address, tasks, trigger, release)
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    // A reset after the answer is as good as an end.
    let _ = read.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

// CO-6.1
#[tokio::test]
async fn heads_beyond_the_limits_are_answered_and_the_connection_closed() {
    let (address, _tasks, _trigger, _) = started().await;
    let long = format!("GET /ok HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let many = format!("GET /ok HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(150));
    for head in [long, many] {
        let answer = exchange(&address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let answer = exchange(&address, b"GET / nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(exchange(&address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
}

// CO-6.1
#[tokio::test]
async fn idle_and_slow_connections_are_closed_after_two_seconds() {
    let (address, _tasks, _trigger, _) = started().await;
    let begin = clock::monotonic();
    let silent = exchange(&address, b"");
    let half_a_head = exchange(&address, b"GET /ok HTTP/1.1\r\n");
    let keep_alive = exchange(&address, b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n");
    let (silent, half_a_head, keep_alive) = tokio::join!(silent, half_a_head, keep_alive);
    assert_eq!((silent.as_str(), half_a_head.as_str()), ("", ""));
    assert!(keep_alive.ends_with("\r\n\r\nfine\n"), "{keep_alive}");
    let elapsed = begin.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(8)).contains(&elapsed), "{elapsed:?}");
}

// CO-6.1
#[tokio::test]
async fn odd_but_proper_requests_are_served() {
    let (address, _tasks, _trigger, _) = started().await;
    for (head, status) in [
        ("GET /ok HTTP/1.0\r\n\r\n", "200"),
        ("GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n", "200"),
        ("GET http://elsewhere/ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200"),
        ("brew /ok?x=1 HTTP/1.1\nHost: x\nConnection: close\n\n", "200"),
        ("GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n", "200"),
        ("GET /ok/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        ("GET // HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
    ] {
        let answer = exchange(&address, head.as_bytes()).await;
        let found = answer.split(' ').nth(1);
        assert_eq!(found, Some(status), "{head} {answer}");
    }
    let pipelined =
        "GET /ok HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(&address, pipelined.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    let head = exchange(&address, b"HEAD /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

// CO-6.1, CO-9.3
#[tokio::test]
async fn drain_finishes_requests_in_flight_and_accepts_no_more() {
    let (address, tasks, trigger, release) = started().await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let watch = trigger.watch();
    while watch.n_guards() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = async {
        watch.draining().await;
        loop {
            match TcpStream::connect(&address).await {
                Err(_) => break,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
        release.notify_one();
    };
    let draining = trigger.drain(LIMIT);
    let (outcome, (), answer) =
        tokio::time::timeout(LIMIT, async { tokio::join!(draining, refused, rest(&mut stream)) })
            .await
            .unwrap();
    assert_eq!(outcome, Outcome::Drained);
    assert!(answer.ends_with("late\n"), "{answer}");
    tokio::time::timeout(LIMIT, tasks.join()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_conflict_names_server_and_address() {
    let first = Server::bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), "admin").await.unwrap();
    let address: SocketAddr = first.address().parse().unwrap();
    let error = Server::bind_tcp(address, "stats").await.unwrap_err();
    assert_eq!(error.code(), "listen-bind-failed");
    assert!(error.to_string().starts_with(&format!("failed to bind stats to {address}: ")), "{error}");
}

#[tokio::test]
async fn a_dead_socket_file_is_replaced_a_living_one_not() {
    let folder = std::env::temp_dir().join(format!("culvert-http-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind_unix(&path, "local").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Server::bind_unix(&path, "local").is_err());
    let (_trigger, drain) = Drain::new();
    let tasks = TaskGroup::new("test");
    tasks.spawn("server", server.serve(|_| async { text(StatusCode::OK, "here") }, tasks.clone(), drain));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    tasks.cancel();
    tokio::time::timeout(LIMIT, tasks.join()).await.unwrap().unwrap();
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}
