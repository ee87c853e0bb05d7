//! Live tunnels from strangers: what is damaged is refused or goes on as some connection, and what is whole goes on as
//! the one it was. Neither may panic, hold more than it was given, or disturb the other end.

use std::cell::OnceCell;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use hbone::bare::{Bare, Event};
use hbone::{
    ClientConnection, ConnectRequest, ImportError, LiveTunnel, ServerConnection, Settings, Tunnel, client,
    server,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::input::{Dice, Input, now};
use crate::support;

/// Longest time that a connection made of damaged bytes is listened to.
const PATIENCE: Duration = Duration::from_millis(2);

/// Octets of DATA in a state that tunnels are taken out of.
const UNREAD: usize = 300;

/// One input: how to begin, edits, and what follows.
pub fn import(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 8 {
        0 => anything(input.0),
        1 => whole(&mut input),
        choice => core(&mut input, choice),
    }
}

/// No tunnel at all, but for the first octets.
fn anything(bytes: &[u8]) {
    let version = hbone::LIVE_TUNNEL_VERSION.to_be_bytes();
    let bytes = [b"CVLT", &version[..], bytes].concat();
    support::run(async {
        let (near, far) = support::pair().await;
        let _ = import_client(&bytes, near);
        let _ = import_server(&bytes, far);
    });
}

fn import_client(bytes: &[u8], tcp: TcpStream) -> Result<hbone::ImportedClient, ImportError> {
    let imported = client::import(LiveTunnel::from_bytes(bytes.to_vec()), tcp, &Settings::default());
    imported.inspect_err(|error| assert!(error.code().starts_with("tunnel-import-")))
}

fn import_server(bytes: &[u8], tcp: TcpStream) -> Result<hbone::ImportedServer, ImportError> {
    let imported = server::import(LiveTunnel::from_bytes(bytes.to_vec()), tcp, &Settings::default());
    imported.inspect_err(|error| assert!(error.code().starts_with("tunnel-import-")))
}

/// Changes bytes as the input says; `false` when it changes nothing. Places are counted from both ends, as what is in
/// the middle may have another length in another process.
fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) -> bool {
    let before = bytes.clone();
    for _ in 0..input.byte() % 4 {
        let (kind, place) = (input.byte(), input.short());
        let last = bytes.len().saturating_sub(1);
        let at = if kind & 0x80 == 0 { place.min(last) } else { last.saturating_sub(place) };
        let length = usize::from(kind >> 2 & 7) + 1;
        let end = (at + length).min(bytes.len());
        match kind & 3 {
            0 => {
                let given = input.take(end - at);
                bytes[at..at + given.len()].copy_from_slice(given);
            }
            1 => bytes[at] ^= input.byte(),
            2 => drop(bytes.splice(at..end, [])),
            _ => drop(bytes.splice(at..at, input.take(length).iter().copied())),
        }
    }
    *bytes != before
}

/// The protocol's part alone, without records and sockets.
fn core(input: &mut Input<'_>, choice: u8) {
    let settings = match choice & 1 {
        0 => Settings::default(),
        _ => Settings { stream_window: 20_000, connection_window: 66_000, ..Settings::default() },
    };
    let mut bytes = under_way(choice & 2 == 0, &settings).export(now());
    let edited = edit(&mut bytes, input);
    let seed = input.short() as u32;
    let Some(core) = Bare::import(&bytes, now(), &settings) else {
        assert!(edited, "a whole core is refused");
        return;
    };
    // What was read says the same when it is written: at once if it was whole, else once it is in order.
    let written = core.export(now());
    assert!(edited || written == bytes);
    assert!(written.len() <= bytes.len());
    let again = Bare::import(&written, now(), &settings).expect("what was accepted is accepted again");
    assert_eq!(again.export(now()), written);
    go_on(core, input.0, seed);
}

/// A core with three streams: one that holds octets, one that has ended on one side, one that was just opened.
fn under_way(as_client: bool, settings: &Settings) -> Bare {
    let mut client = Bare::client(settings.clone(), now());
    let mut server = Bare::server(settings.clone(), now());
    for _ in 0..2 {
        client.open("10.0.0.1:80", &[("x-a".into(), "b".into())], now()).expect("room");
    }
    let turn = |from: &mut Bare, to: &mut Bare| {
        let bytes = std::mem::take(from.output());
        to.receive(now(), &bytes, |to, event| {
            if let Event::Request(stream, _) = event {
                to.answer(stream, 200, false);
            }
        });
    };
    for _ in 0..3 {
        turn(&mut client, &mut server);
        turn(&mut server, &mut client);
    }
    for core in [&mut client, &mut server] {
        core.write(1, &[b'x'; UNREAD]);
    }
    client.finish(3);
    turn(&mut client, &mut server);
    turn(&mut server, &mut client);
    client.open("10.0.0.1:80", &[], now()).expect("room");
    if as_client { client } else { server }
}

/// A peer says something, and the owner does something about it.
fn go_on(mut core: Bare, mut bytes: &[u8], seed: u32) {
    let mut dice = Dice(seed);
    while !bytes.is_empty() {
        let (front, rest) = bytes.split_at((1 + dice.roll(60)).min(bytes.len()));
        bytes = rest;
        core.receive(now(), front, |core, event| {
            if let Event::Request(stream, _) = event {
                core.answer(stream, 200, false);
            }
        });
        for stream in [1, 3, 5, 7] {
            match dice.roll(10) {
                0..4 => core.consumed(stream, dice.roll(UNREAD), now()),
                4 | 5 => drop(core.write(stream, &[b'x'; 700])),
                6 => core.finish(stream),
                7 => core.abandon(stream),
                _ => {}
            }
        }
        core.settle(|_| {});
    }
    for _ in 0..3 {
        let Some(due) = core.deadline() else { break };
        core.tick(due, |_| {});
    }
    let _ = core.open("10.0.0.1:80", &[], now());
}

/// A connection with a tunnel and a request under way, taken out at both ends.
struct Frozen {
    client: Vec<u8>,
    server: Vec<u8>,
    /// Sent by one and not yet read by the other.
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

thread_local!(static FROZEN: OnceCell<Rc<Frozen>> = const { OnceCell::new() });

async fn freeze() -> Frozen {
    let settings = Settings::default();
    let tls = support::tls();
    let (near, far) = support::pair().await;
    let (client, server) = tokio::join!(
        client::connect(near, tls.client, &settings),
        server::accept(far, tls.server, &settings)
    );
    let (client, server) = (client.expect("a server"), server.expect("a client"));
    let (mut near, mut far) = open(&client, &server).await;
    near.write_all(b"before").await.expect("a peer");
    far.write_all(b"before").await.expect("a peer");
    let take = |(live, mut tcp): (LiveTunnel, std::net::TcpStream)| {
        let mut unread = Vec::new();
        let _ = tcp.read_to_end(&mut unread);
        (live.as_bytes().to_vec(), unread)
    };
    // Both are taken out before either socket is read: what one has sent by then is with the other.
    let (at_client, at_server) = (client.export().expect("it lives"), server.export().expect("it lives"));
    let ((client, to_client), (server, to_server)) = (take(at_client), take(at_server));
    Frozen { client, server, to_client, to_server }
}

async fn open(client: &ClientConnection, server: &ServerConnection) -> (Tunnel, Tunnel) {
    let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
    let accepted = async { server.next().await.expect("a request").accept(&[]) };
    let (near, far) = tokio::join!(client.open(request), accepted);
    (near.expect("an answer").1, far)
}

/// Both ends go on over a new socket; one of them from edited bytes.
fn whole(input: &mut Input<'_>) {
    let frozen = FROZEN.with(|frozen| frozen.get_or_init(|| Rc::new(support::run(freeze()))).clone());
    let (mut client, mut server) = (frozen.client.clone(), frozen.server.clone());
    let edited = match input.byte() & 1 {
        0 => edit(&mut client, input),
        _ => edit(&mut server, input),
    };
    support::run(async {
        let (mut near, mut far) = support::pair().await;
        far.write_all(&frozen.to_client).await.expect("room");
        near.write_all(&frozen.to_server).await.expect("room");
        let (near, far) = (import_client(&client, near), import_server(&server, far));
        let (Ok(near), Ok(far)) = (near, far) else {
            assert!(edited, "a whole tunnel is refused");
            return;
        };
        let going_on = go_on_with(near, far);
        if edited {
            let _ = tokio::time::timeout(PATIENCE, going_on).await;
        } else {
            going_on.await.expect("the tunnel goes on");
        }
    });
}

/// The tunnel says what it had to say, and another is opened.
async fn go_on_with(near: hbone::ImportedClient, far: hbone::ImportedServer) -> std::io::Result<()> {
    let (mut near_tunnels, mut far_tunnels) = (near.tunnels, far.tunnels);
    for tunnel in near_tunnels.iter_mut().chain(&mut far_tunnels) {
        tunnel.write_all(b" and after").await?;
        tunnel.shutdown().await?;
    }
    for tunnel in near_tunnels.iter_mut().chain(&mut far_tunnels) {
        let mut text = String::new();
        tunnel.read_to_string(&mut text).await?;
        if text != "before and after" {
            return Err(std::io::Error::other(text));
        }
    }
    let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
    let (answer, request) =
        tokio::join!(near.connection.open(request), async { Some(far.connection.next().await?.accept(&[])) });
    match (answer, request) {
        (Ok(_), Some(_)) if near_tunnels.len() == 1 && far_tunnels.len() == 1 => Ok(()),
        other => Err(std::io::Error::other(format!("{other:?}"))),
    }
}
