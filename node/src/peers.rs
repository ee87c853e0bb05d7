//! The peers of a thread's tunnels, judged again when other revocation lists come into force (data-path 4.9).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::SystemTime;

use hbone::WeakConnection;
use identity::{Judged, WorkloadCertificate};
use runtime::clock::Clock;
use tokio::sync::watch;

/// Connections below which those that have ended are not looked for.
const FEW: usize = 64;

/// See the module. Without revocation lists it holds nothing.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Which lists are in force.
    revision: Option<watch::Receiver<u64>>,
    clock: Clock,
    open: RefCell<Vec<Peer>>,
    swept: Cell<usize>,
}

#[derive(Debug)]
struct Peer {
    connection: WeakConnection,
    judged: Judged,
    /// Ours; its roots have verified the peer.
    certificate: Arc<WorkloadCertificate>,
    since: SystemTime,
}

impl Peer {
    /// Ends the connection if a certificate of its peer was revoked.
    fn judge(&self) {
        let Some((chain, address)) = self.connection.peer() else { return };
        if self.certificate.has_revoked(self.judged, &chain, self.since) {
            let judged = self.judged;
            let code = hbone::ConnectionEnd::Revoked.code();
            tracing::warn!(target: "ztunnel::proxy", peer = %address, ?judged, code, "connection closed: peer certificate revoked by CRL");
            self.connection.revoke();
        }
    }
}

impl Peers {
    /// `revision` changes whenever other lists are in force.
    pub(crate) fn new(revision: Option<watch::Receiver<u64>>, clock: Clock) -> Self {
        Self { revision, clock, open: RefCell::default(), swept: Cell::new(FEW) }
    }

    /// Which lists are in force; to be asked before a handshake.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.as_ref().map_or(0, |revision| *revision.borrow())
    }

    /// Notes a peer whose handshake began when the lists were those of `revision`.
    pub(crate) fn note(
        &self,
        judged: Judged,
        connection: WeakConnection,
        certificate: &Arc<WorkloadCertificate>,
        revision: u64,
    ) {
        if self.revision.is_none() {
            return;
        }
        let certificate = Arc::clone(certificate);
        let peer = Peer { connection, judged, certificate, since: self.clock.wall() };
        if revision != self.revision() {
            peer.judge();
        }
        let mut open = self.open.borrow_mut();
        if open.len() >= self.swept.get() * 2 {
            open.retain(|peer| peer.connection.peer().is_some());
            self.swept.set(open.len().max(FEW));
        }
        open.push(peer);
    }

    /// Judges all of them after each change, for ever.
    pub(crate) async fn follow(&self) {
        let Some(mut revision) = self.revision.clone() else { return };
        while revision.changed().await.is_ok() {
            let mut open = self.open.borrow_mut();
            open.iter().for_each(Peer::judge);
            open.retain(|peer| peer.connection.peer().is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hbone::{ClientConnection, ConnectRequest, ConnectionEnd, ServerConnection, Settings};
    use identity::{RevocationLists, SpiffeId, TlsOptions};
    use kit::fake_ca::FakeCa;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    struct Mesh {
        ca: FakeCa,
        lists: RevocationLists,
        clock: Clock,
        peers: Peers,
    }

    impl Mesh {
        fn certificate(&self, account: &str) -> Arc<WorkloadCertificate> {
            let id = SpiffeId::new("cluster.local", "ns", account).unwrap();
            let options = TlsOptions { revocations: Some(self.lists.clone()), ..TlsOptions::default() };
            Arc::new(self.ca.issue_with(&id, Duration::from_secs(3600), options))
        }

        /// A connection whose ends are both noted.
        async fn connect(
            &self,
            client: &Arc<WorkloadCertificate>,
            server: &Arc<WorkloadCertificate>,
        ) -> (ClientConnection, ServerConnection) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (near, far) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            let (settings, revision) = (Settings::default(), self.peers.revision());
            let tls = client.client_config(&[server.identity().clone()]);
            let (near, far) = tokio::join!(
                hbone::client::connect(near.unwrap(), tls, &settings),
                hbone::server::accept(far.unwrap().0, server.server_config(), &settings)
            );
            let (near, far) = (near.unwrap(), far.unwrap());
            self.peers.note(Judged::Server, near.weak(), client, revision);
            self.peers.note(Judged::Client, far.weak(), server, revision);
            (near, far)
        }
    }

    // A-NS-31, A-MI-07
    #[tokio::test]
    async fn lists_that_come_into_force_end_the_connections_of_whom_they_revoke() {
        let (revisions, revision) = watch::channel(0);
        let clock = Clock::system();
        let peers = Peers::new(Some(revision), clock.clone());
        let mesh = Mesh { ca: FakeCa::new(), lists: RevocationLists::default(), clock, peers };
        let (good, bad) = (mesh.certificate("good"), mesh.certificate("bad"));
        let test = async {
            let innocent = mesh.connect(&good, &good).await;
            let from_bad = mesh.connect(&bad, &good).await;
            let to_bad = mesh.connect(&good, &bad).await;
            let request = ConnectRequest { authority: "10.0.0.1:80".into(), headers: Vec::new() };
            let (opened, _tunnel) = tokio::join!(from_bad.0.open(request.clone()), async {
                from_bad.1.next().await.unwrap().accept(&[])
            });
            opened.unwrap();

            let lists = mesh.ca.revoking(&[&bad], mesh.clock.wall());
            mesh.lists.replace(lists.as_bytes()).unwrap();
            revisions.send_replace(1);
            while from_bad.1.ended().is_none() || to_bad.0.ended().is_none() {
                tokio::task::yield_now().await;
            }
            assert_eq!(from_bad.1.ended(), Some(ConnectionEnd::Revoked), "the server's end");
            assert_eq!(to_bad.0.ended(), Some(ConnectionEnd::Revoked), "the client's end");
            assert_eq!((mesh.lists.n_refused_clients(), mesh.lists.n_refused_servers()), (1, 1));
            let (opened, _tunnel) = tokio::join!(innocent.0.open(request), async {
                innocent.1.next().await.unwrap().accept(&[])
            });
            opened.unwrap();
        };
        let both = async {
            tokio::select! {
                () = mesh.peers.follow() => panic!("for ever"),
                () = test => {}
            }
        };
        let limited = tokio::time::timeout(Duration::from_secs(20), both);
        tokio::task::LocalSet::new().run_until(limited).await.unwrap();
    }
}
