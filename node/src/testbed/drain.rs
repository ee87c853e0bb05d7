//! How a node and its pods stop.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use kit::echo::{Application, connect};
use kit::fake_ca::FakeCa;
use kit::sandbox::{Host, Sandbox, sandboxed};

use super::*;

struct Pair {
    client: Host,
    server: Host,
    a: Node,
    b: Node,
    _application: Application,
}

async fn pair(sandbox: &mut Sandbox, deadline: &str) -> Pair {
    let ca = Arc::new(FakeCa::new());
    let variables = [("CONNECTION_TERMINATION_DEADLINE", deadline)];
    let a = Node::start_with("a", WORLD, &ca, &variables).await;
    let b = Node::start_with("b", WORLD, &ca, &variables).await;
    let client = sandbox.host("client", &["10.1.0.1"]);
    let server = sandbox.host("server", &["10.1.0.2"]);
    a.enrol(&client).await;
    b.enrol(&server).await;
    a.snapshot_sent().await;
    b.snapshot_sent().await;
    let application = server.run(|| Application::doubling(address("10.1.0.2:8080"))).unwrap();
    Pair { client, server, a, b, _application: application }
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"hi")?;
    stream.read_exact(&mut [0; 4])
}

fn greet() -> io::Result<TcpStream> {
    let mut stream = connect(address("10.1.0.2:8080"))?;
    ask(&mut stream)?;
    Ok(stream)
}

// A-NS-17, A-DI-03, LC-03: what is open goes on, nothing new comes in, the end comes with the last.
#[test]
fn a_draining_node_lets_open_connections_finish() {
    sandboxed(|mut sandbox| {
        run(async {
            let mut pair = pair(&mut sandbox, "15s").await;
            let mut stream = inside(&pair.client, greet).await.unwrap();
            pair.b.drain();
            until("no listener is left", || pair.server.run(|| connect(address("10.1.0.2:15008"))).is_err())
                .await;
            stream = inside(&pair.client, move || ask(&mut stream).map(|()| stream)).await.unwrap();
            // Refused by the server's side: its HBONE port is closed.
            let refused = inside(&pair.client, || {
                let mut stream = connect(address("10.1.0.2:8080"))?;
                io::Result::Ok(!matches!(stream.read(&mut [0]), Ok(1..)))
            });
            assert!(refused.await.unwrap());
            assert!(pair.b.ended.try_recv().is_err());
            inside(&pair.client, move || {
                stream.shutdown(Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())
            })
            .await
            .unwrap();
            limited(&mut pair.b.ended).await.unwrap();
            // The process waits for what was said last, no longer: nobody keeps it.
            limited(pair.b.tunnels().all_closed()).await;
            pair.a.drain();
            limited(&mut pair.a.ended).await.unwrap();
            limited(pair.a.tunnels().all_closed()).await;
            pair.b.line(&["info\taccess\tconnection complete", "inbound"]).await;
        });
    });
}

// A-DI-04, LC-04: at the deadline what is left is cut, and its lines say why.
#[test]
fn the_deadline_cuts_what_does_not_end() {
    sandboxed(|mut sandbox| {
        run(async {
            let mut pair = pair(&mut sandbox, "200ms").await;
            let mut stream = inside(&pair.client, greet).await.unwrap();
            pair.a.drain();
            pair.b.drain();
            let ended = inside(&pair.client, move || stream.read(&mut [0]).unwrap_err()).await;
            assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "it must not look complete");
            limited(&mut pair.a.ended).await.unwrap();
            limited(&mut pair.b.ended).await.unwrap();
            let reason = "error=\"connection closed due to connection drain\"";
            pair.a.line(&["error\taccess", "outbound", "bytes_sent=2 bytes_recv=4", reason]).await;
        });
    });
}

// A-NS-18: with the server's proxy stopped and its workload unknown, a client still connects to its own node, but hears
// nothing; what was open has failed.
#[test]
fn a_server_that_is_gone_from_its_node_and_from_discovery_answers_nobody() {
    sandboxed(|mut sandbox| {
        run(async {
            let pair = pair(&mut sandbox, "15s").await;
            let mut open = inside(&pair.client, greet).await.unwrap();
            let server = WORLD.find("- {uid: c1//Pod/ns/server").unwrap();
            let outside = WORLD.find("- {uid: c1//Pod/ns/outside").unwrap();
            let without = [&WORLD[..server], &WORLD[outside..]].concat();
            (pair.a.change)(&without);
            (pair.b.change)(&without);
            assert_eq!(pair.b.delete("server").await, "");
            assert!(inside(&pair.client, move || ask(&mut open)).await.is_err());
            let heard = inside(&pair.client, || {
                let mut stream = connect(address("10.1.0.2:8080"))?;
                io::Result::Ok(ask(&mut stream).is_ok())
            });
            assert!(!heard.await.unwrap(), "connected, and heard nothing");
        });
    });
}

// LC-01: a pod that leaves ends at once; added again it is served again.
#[test]
fn a_removed_pod_ends_at_once_and_can_come_back() {
    sandboxed(|mut sandbox| {
        run(async {
            let pair = pair(&mut sandbox, "15s").await;
            let mut stream = inside(&pair.client, greet).await.unwrap();
            assert_eq!(pair.b.counted(&["workload_manager_active_proxy_count"]), 1);
            assert_eq!(pair.b.delete("server").await, "");
            let ended = inside(&pair.client, move || stream.read(&mut [0]).unwrap_err()).await;
            assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "it must not look complete");
            assert!(pair.b.list.dump().is_empty());
            assert_eq!(pair.b.counted(&["workload_manager_proxies_stopped_total"]), 1);
            let refused = pair.server.run(|| connect(address("10.1.0.2:15008")));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

            assert_eq!(pair.b.add("server", "server", &pair.server).await, "");
            inside(&pair.client, greet).await.unwrap();
            assert_eq!(pair.b.counted(&["workload_manager_active_proxy_count"]), 1);
        });
    });
}
