//! Rules as `nft` would print them, for people and for snapshots.
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::{Action, Bits, Chain, HookPoint, Is, Match, Rule, Ruleset, Table, Transport};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| write!(f, "{table}"))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        if let Some(comment) = &self.comment {
            writeln!(f, "  comment {comment:?}")?;
        }
        self.chains.iter().try_for_each(|chain| write!(f, "{chain}"))?;
        writeln!(f, "}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            writeln!(f, "    type {} hook {} priority {}", hook.kind, hook.point, hook.priority)?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))?;
        writeln!(f, "  }}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|one| write!(f, "{one} "))?;
        write!(f, "counter {}", self.action)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::InLink(is, name) => write!(f, "iifname {is}{name}"),
            Self::OutLink(is, name) => write!(f, "oifname {is}{name}"),
            Self::Protocol(Transport::Tcp) => write!(f, "l4proto tcp"),
            Self::Protocol(Transport::Udp) => write!(f, "l4proto udp"),
            Self::SourcePort(is, port) => write!(f, "sport {is}{port}"),
            Self::DestinationPort(is, port) => write!(f, "dport {is}{port}"),
            Self::Mark(is, bits) => write!(f, "mark {is}{bits}"),
            Self::ConnectionMark(is, bits) => write!(f, "ct mark {is}{bits}"),
            Self::SocketMark(is, bits) => write!(f, "socket mark {is}{bits}"),
            Self::Source(is, address) => write!(f, "{} saddr {is}{address}", family(address)),
            Self::Destination(is, address) => write!(f, "{} daddr {is}{address}", family(address)),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Accept => write!(f, "accept"),
            Self::Return => write!(f, "return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::SetConnectionMark(bits) => write!(f, "ct mark set {bits}"),
            Self::RestoreMark => write!(f, "mark set ct mark"),
            Self::Zone(zone) => write!(f, "ct zone set {zone}"),
            Self::Untrack => write!(f, "notrack accept"),
            Self::MarkUntracked(bits) => write!(f, "mark set {bits} notrack accept"),
            Self::Unknown(what) => write!(f, "unknown ({what})"),
        }
    }
}

impl Display for Is {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Equal { "" } else { "!= " })
    }
}

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl Display for HookPoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Prerouting { "prerouting" } else { "output" })
    }
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}
