//! The peers of a thread's tunnels, judged again when other revocation lists come into force (data-path 4.9).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hbone::WeakConnection;
use identity::{Judged, WorkloadCertificate};
use runtime::clock::Clock;
use rustls_pki_types::CertificateDer;

use crate::certs::revocations::Revision;

/// Connections below which those that have ended are not looked for when another one is noted.
const FEW: usize = 64;

/// Time between two looks for those that have ended: each keeps its memory until then.
const SWEEP: Duration = Duration::from_secs(10);

/// Connections gone over in one turn, as long as none needs more than a look.
const TURN: usize = 256;

/// See the module. Without revocation lists it holds nothing.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Which lists are in force.
    revision: Option<Revision>,
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
    fn is_connected(&self) -> bool {
        self.connection.peer().is_some()
    }
}

/// What was asked and its answer: most connections share a few peers.
type Verdicts = HashMap<(Judged, Arc<[CertificateDer<'static>]>, *const WorkloadCertificate), bool>;

impl Peers {
    /// `revision` changes whenever other lists are in force.
    pub(crate) fn new(revision: Option<Revision>, clock: Clock) -> Self {
        Self { revision, clock, open: RefCell::default(), swept: Cell::new(FEW) }
    }

    /// Which lists are in force; to be asked before a handshake.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.as_ref().map_or(0, Revision::now)
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
            self.judge(&peer, &mut Verdicts::new());
        }
        let mut open = self.open.borrow_mut();
        if open.len() >= self.swept.get() * 2 {
            open.retain(Peer::is_connected);
            self.swept.set(open.len().max(FEW));
        }
        open.push(peer);
    }

    /// Judges all of them after each change, and forgets those that have ended, for ever.
    pub(crate) async fn follow(&self) {
        let Some(mut revision) = self.revision.clone() else { return };
        loop {
            let changed = tokio::time::timeout(SWEEP, revision.changed()).await;
            match changed {
                Ok(true) => self.go_over(true).await,
                Ok(false) => return,
                Err(_) => self.go_over(false).await,
            }
        }
    }

    /// Judges those of now, if asked to, and forgets who has ended. Other tasks of the thread get their turns meanwhile;
    /// what they note is new enough, or judged by that.
    async fn go_over(&self, judging: bool) {
        let mut open = self.open.take();
        let (mut verdicts, mut turn, mut n) = (Verdicts::new(), 0, 0);
        while n < open.len() {
            let costly = judging && self.judge(&open[n], &mut verdicts);
            if open[n].is_connected() {
                n += 1;
            } else {
                open.swap_remove(n);
            }
            turn += 1;
            if costly || turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        let mut noted = self.open.borrow_mut();
        open.append(&mut noted);
        self.swept.set(open.len().max(FEW));
        if open.capacity() > open.len() * 2 {
            open.shrink_to_fit();
        }
        *noted = open;
    }

    /// Ends a connection if a certificate of its peer was revoked. Says whether that took its time.
    fn judge(&self, peer: &Peer, verdicts: &mut Verdicts) -> bool {
        let Some((chain, address)) = peer.connection.peer() else { return false };
        let judged = peer.judged;
        let mut costly = false;
        let question = (judged, chain, Arc::as_ptr(&peer.certificate));
        let revoked = verdicts.get(&question).copied().unwrap_or_else(|| {
            costly = true;
            let found = peer.certificate.has_revoked(judged, &question.1, peer.since);
            let revoked = found.unwrap_or_else(|error| self.doubt(&error));
            verdicts.insert(question, revoked);
            revoked
        });
        if revoked {
            let code = hbone::ConnectionEnd::Revoked.code();
            tracing::warn!(target: "ztunnel::proxy", peer = %address, ?judged, code, "connection closed: peer certificate revoked by CRL");
            peer.certificate.count_revoked(judged);
            peer.connection.revoke();
        }
        costly || revoked
    }

    /// A list that cannot be trusted says of nobody that it is revoked; new handshakes fail by it.
    fn doubt(&self, error: &rustls::Error) -> bool {
        if self.revision.as_ref().is_some_and(Revision::is_first_doubt) {
            tracing::warn!(target: "ztunnel::proxy", code = "config-crl-untrusted", %error, "handshakes that need this list fail, and open connections are left");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hbone::{ClientConnection, ConnectRequest, ConnectionEnd, ServerConnection, Settings};
    use identity::{RevocationLists, SpiffeId, TlsOptions};
    use kit::fake_ca::FakeCa;
    use rustls_pki_types::CertificateRevocationListDer;
    use rustls_pki_types::pem::PemObject as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::*;

    struct Mesh {
        ca: FakeCa,
        lists: RevocationLists,
        clock: Clock,
        peers: Peers,
        revisions: watch::Sender<u64>,
    }

    impl Mesh {
        fn new() -> Self {
            let (revisions, revision) = watch::channel(0);
            let clock = Clock::system();
            let peers = Peers::new(Some(Revision::new(revision)), clock.clone());
            Self { ca: FakeCa::new(), lists: RevocationLists::default(), clock, peers, revisions }
        }

        /// Puts lists in force.
        fn replace(&self, content: &[u8]) {
            self.lists.replace(content).unwrap();
            self.revisions.send_modify(|revision| *revision += 1);
        }

        fn revoke(&self, whom: &WorkloadCertificate) {
            self.replace(self.ca.revoking(&[whom], self.clock.wall()).as_bytes());
        }

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
            let revision = self.peers.revision();
            let (near, far) = self.handshake(client, server).await;
            self.peers.note(Judged::Server, near.weak(), client, revision);
            self.peers.note(Judged::Client, far.weak(), server, revision);
            (near, far)
        }

        async fn handshake(
            &self,
            client: &WorkloadCertificate,
            server: &WorkloadCertificate,
        ) -> (ClientConnection, ServerConnection) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (near, far) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            let settings = Settings::default();
            let tls = client.client_config(&[server.identity().clone()]);
            let (near, far) = tokio::join!(
                hbone::client::connect(near.unwrap(), tls, &settings),
                hbone::server::accept(far.unwrap().0, server.server_config(), &settings)
            );
            (near.unwrap(), far.unwrap())
        }
    }

    // A-NS-31, A-MI-07
    #[tokio::test]
    async fn lists_that_come_into_force_end_the_connections_of_whom_they_revoke() {
        let mesh = Mesh::new();
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

            mesh.revoke(&bad);
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
        limited(both).await;
    }

    async fn limited(test: impl Future<Output = ()>) {
        let limited = tokio::time::timeout(Duration::from_secs(20), test);
        tokio::task::LocalSet::new().run_until(limited).await.unwrap();
    }

    // A-NS-31, A-MI-08
    #[tokio::test]
    async fn others_get_their_turns_while_connections_are_judged_once_for_each_peer() {
        limited(async {
            let mesh = Mesh::new();
            let (good, bad) = (mesh.certificate("good"), mesh.certificate("bad"));
            let early = [mesh.connect(&bad, &good).await, mesh.connect(&bad, &good).await];
            let late = mesh.handshake(&bad, &good).await;
            let before = mesh.peers.revision();
            mesh.revoke(&bad);

            let mut judging = Box::pin(mesh.peers.go_over(true));
            assert!(futures::poll!(&mut judging).is_pending());
            assert!(early.iter().any(|(_, far)| far.ended().is_none()), "all in one turn");
            mesh.peers.note(Judged::Client, late.1.weak(), &good, before);
            assert_eq!(late.1.ended(), Some(ConnectionEnd::Revoked), "noted meanwhile");
            judging.await;
            for (_, far) in &early {
                assert_eq!(far.ended(), Some(ConnectionEnd::Revoked));
            }
            assert_eq!(mesh.lists.n_refused_clients(), 3, "each is counted");
            assert!(
                mesh.peers
                    .open
                    .borrow()
                    .iter()
                    .all(|peer| peer.judged == Judged::Server || !peer.is_connected())
            );

            let mut verdicts = Verdicts::new();
            let again = [mesh.connect(&good, &good).await, mesh.connect(&good, &good).await];
            let mut costly = Vec::new();
            for peer in mesh.peers.open.borrow().iter().rev().take(4) {
                costly.push(mesh.peers.judge(peer, &mut verdicts));
            }
            assert_eq!((costly, verdicts.len()), (vec![true, true, false, false], 2), "{again:?}");
        })
        .await;
    }

    /// A burst's memory goes back although no connection follows, and nobody's revocation.
    #[tokio::test]
    async fn what_has_ended_is_forgotten_at_rest() {
        limited(async {
            let mesh = Mesh::new();
            let good = mesh.certificate("good");
            let mut burst = Vec::new();
            for _ in 0..10 {
                burst.push(mesh.connect(&good, &good).await);
            }
            assert_eq!(mesh.peers.open.borrow().len(), 20);
            for (near, far) in burst.drain(..) {
                drop(near);
                assert!(far.next().await.is_none());
            }
            tokio::time::pause();
            tokio::select! {
                () = mesh.peers.follow() => panic!("for ever"),
                () = tokio::time::sleep(SWEEP + Duration::from_secs(1)) => {}
            }
            assert_eq!(mesh.peers.open.borrow().capacity(), 0);
        })
        .await;
    }

    // Data-path 4.9: what cannot be told ends nothing.
    #[tokio::test]
    async fn a_list_that_cannot_be_trusted_leaves_open_connections_and_is_told_once() {
        limited(async {
            let mesh = Mesh::new();
            let (good, bad) = (mesh.certificate("good"), mesh.certificate("bad"));
            let open = mesh.connect(&bad, &good).await;
            let list = mesh.ca.revoking(&[&bad], mesh.clock.wall());
            let mut forged = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap().to_vec();
            *forged.last_mut().unwrap() ^= 1;
            mesh.replace(&forged);
            mesh.peers.go_over(true).await;
            assert_eq!(open.1.ended(), None);
            let revision = mesh.peers.revision.as_ref().unwrap();
            assert!(!revision.is_first_doubt(), "told already");
            mesh.replace(&forged);
            assert!(revision.clone().is_first_doubt(), "of other lists again");
            assert!(!revision.is_first_doubt());
        })
        .await;
    }
}
