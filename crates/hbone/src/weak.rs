//! A connection for those who judge its peer again, and do not keep it open.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::ConnectionEnd;
use crate::link::Link;

/// A connection of either direction, as long as somebody else holds it.
#[derive(Debug, Clone)]
pub struct WeakConnection(Weak<Link>);

impl WeakConnection {
    pub(crate) fn new(link: &Rc<Link>) -> Self {
        Self(Rc::downgrade(link))
    }

    fn live(&self) -> Option<Rc<Link>> {
        self.0.upgrade().filter(|link| link.state.borrow().ended.is_none())
    }

    /// The certificates that the peer has presented, leaf first, and where it is; `None` once the connection has ended.
    pub fn peer(&self) -> Option<(Arc<[CertificateDer<'static>]>, SocketAddr)> {
        self.live().map(|link| (link.chain.clone(), link.peer))
    }

    /// Cuts every tunnel and closes, with [`ConnectionEnd::Revoked`] as the reason: the peer is no longer who it was.
    pub fn revoke(&self) {
        if let Some(link) = self.live() {
            link.close(ConnectionEnd::Revoked);
        }
    }
}
