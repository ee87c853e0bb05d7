//! Links, addresses, routes and policy rules of a namespace, over rtnetlink.
//!
//! A [`Links`] handle belongs to the namespace it was opened in, whichever thread uses it. Calls are synchronous: the
//! kernel answers at once.
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::NetlinkError;
use crate::{NamespaceError, NetNamespace};
