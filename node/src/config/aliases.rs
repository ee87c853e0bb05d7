//! ztunnel's names for parts of the proxy, so that its log filters (`ztunnel::proxy=debug`) work here.
//!
//! Lines that the contract names have these targets already; this is for all the others.
use runtime::logging::Alias;

/// Its targets, and ours.
pub(crate) const LOG_ALIASES: &[Alias] = &[
    (
        "ztunnel",
        &[
            "culvert_node",
            "culvert_hbone",
            "culvert_identity",
            "culvert_net",
            "culvert_runtime",
            "culvert_state",
            "culvert_xds",
        ],
    ),
    ("ztunnel::proxy", &["culvert_node::outbound", "culvert_node::inbound", "culvert_hbone"]),
    ("ztunnel::proxy::outbound", &["culvert_node::outbound"]),
    ("ztunnel::proxy::inbound", &["culvert_node::inbound"]),
    ("ztunnel::proxy::inbound_passthrough", &["culvert_node::inbound"]),
    ("ztunnel::proxy::pool", &["culvert_hbone"]),
    ("ztunnel::xds", &["culvert_node::sync", "culvert_xds"]),
    ("ztunnel::xds::client", &["culvert_node::sync", "culvert_xds::client"]),
    ("ztunnel::state", &["culvert_state"]),
    ("ztunnel::dns", &["culvert_node::dns"]),
    ("ztunnel::inpod", &["culvert_node::pods"]),
    ("ztunnel::identity", &["culvert_node::certs", "culvert_identity"]),
    ("ztunnel::identity::manager", &["culvert_node::certs"]),
    ("ztunnel::admin", &["culvert_node::admin"]),
];
