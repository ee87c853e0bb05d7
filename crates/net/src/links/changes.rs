//! To be told when the routing of a namespace changes.
use std::io;

use netlink_sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::NetNamespace;
use crate::netlink::NetlinkError;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`. Not every route that goes with its link or address is told as a route.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;
/// `RTNLGRP_IPV6_RULE`, a number and not a bit.
const IPV6_RULES: u32 = 19;
/// Messages come in groups; a pod may make them without end.
const AT_ONCE: usize = 64;

/// Tells when links, addresses, routes or policy rules of one namespace have changed.
#[derive(Debug)]
pub struct RoutingChanges {
    socket: AsyncFd<Socket>,
}

impl RoutingChanges {
    /// From now on every change is told. Needs a runtime around it.
    pub fn open(namespace: &NetNamespace) -> Result<Self, NetlinkError> {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.add_membership(IPV6_RULES)?;
            socket.set_non_blocking(true)?;
            io::Result::Ok(socket)
        })??;
        // SAFETY: a `Socket` owns one descriptor and names it for as long as it lives, and the `AsyncFd` owns the socket.
        let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { socket: watched.map_err(io::Error::from)? })
    }

    /// Returns when something has changed since it was opened or since this returned. What it was is not said. A few
    /// messages are taken at once; while more keep coming, it returns again and again, and lets others run in between.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut taken = 0;
        while taken < AT_ONCE {
            let mut guard = self.socket.readable_mut().await?;
            // One octet of each message is enough; the rest of it goes.
            let received = guard.try_io(|socket| socket.get_ref().recv(&mut &mut [0; 1][..], 0));
            match received {
                Err(_) if taken > 0 => break,
                Err(_) => {}
                Ok(Ok(_)) => taken += 1,
                // Not all messages found place: something has changed.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => taken += 1,
                Ok(Err(error)) => return Err(error),
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}
