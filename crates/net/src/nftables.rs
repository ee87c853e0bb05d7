//! nf_tables: rules as values, put into a namespace in one transaction, and read back as the same values.
//!
//! Only what redirecting a workload's traffic needs can be said here. [`replace`] and [`remove`] are atomic: no packet
//! sees a half-made set. [`read`] decodes what the kernel holds, so that a caller can compare it with what it wants.
use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use crate::NetNamespace;
use crate::netlink::{Connection, NetlinkError};

mod decode;
mod encode;
mod text;

/// Tables of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// In the order they are made.
    pub tables: Vec<Table>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// What its maker wants to be remembered with it; `nft` shows it.
    pub comment: Option<String>,
    /// Its chains; a chain that is jumped to stands before those that jump.
    pub chains: Vec<Chain>,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter it; `None` if only by a jump.
    pub hook: Option<Hook>,
    /// Its rules, first to last.
    pub rules: Vec<Rule>,
}

/// Where a base chain is hooked in. Its policy is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do.
    pub kind: ChainKind,
    /// Which packets it sees.
    pub point: HookPoint,
    /// Lower comes first.
    pub priority: i32,
}

/// Kinds of base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Looks and marks.
    Filter,
    /// Sees a connection's first packet; may redirect.
    Nat,
    /// As filter; a changed mark leads to a new routing decision.
    Route,
}

/// Points of the packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Arrived, before the routing decision.
    Prerouting,
    /// Made on this machine.
    Output,
}

/// One rule: if all matches hold, count the packet and act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold.
    pub matches: Vec<Match>,
    /// What then happens.
    pub action: Action,
}

/// "Is" or "is not".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// Equal.
    Equal,
    /// Different.
    Not,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Came in by this link.
    InLink(Is, String),
    /// Goes out by this link.
    OutLink(Is, String),
    /// Of this protocol.
    Protocol(Transport),
    /// Source port.
    SourcePort(Is, u16),
    /// Destination port.
    DestinationPort(Is, u16),
    /// Packet mark.
    Mark(Is, Bits),
    /// Connection mark.
    ConnectionMark(Is, Bits),
    /// Mark of the socket that the packet is for. Holds for packets that have one only, also when it is "not".
    SocketMark(Is, Bits),
    /// Source address. Holds for packets of the address's family only, also when it is "not".
    Source(Is, IpAddr),
    /// Destination address; of one family too.
    Destination(Is, IpAddr),
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Some bits of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Their value.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To this port of this machine instead.
    Redirect(u16),
    /// No further rule of this base chain.
    Accept,
    /// Back to the chain that jumped here.
    Return,
    /// On with that chain.
    Jump(String),
    /// Sets these bits of the connection's mark.
    SetConnectionMark(Bits),
    /// Copies the connection's mark to the packet.
    RestoreMark,
    /// Tracks the connection in this zone.
    Zone(u16),
    /// The packet's connection is not tracked; no further rule of this base chain.
    Untrack,
    /// Sets these bits of the packet's mark, otherwise as [`Action::Untrack`].
    MarkUntracked(Bits),
    /// Read from the kernel and not one of the above.
    Unknown(String),
}

/// Puts the tables in place of those of the same names (`also_remove`: tables that shall not be there any more).
pub fn replace(
    namespace: &NetNamespace,
    ruleset: &Ruleset,
    also_remove: &[&str],
) -> Result<(), NetlinkError> {
    let mut changes = Vec::new();
    for name in also_remove {
        changes.extend(deletion(name));
    }
    for table in &ruleset.tables {
        changes.extend(deletion(&table.name));
        changes.extend(creation(table));
    }
    transact(namespace, changes)
}

/// Removes the tables; those that are not there are fine.
pub fn remove(namespace: &NetNamespace, tables: &[&str]) -> Result<(), NetlinkError> {
    transact(namespace, tables.iter().flat_map(|name| deletion(name)).collect())
}

/// The names of all `inet` tables.
pub fn table_names(namespace: &NetNamespace) -> Result<Vec<String>, NetlinkError> {
    Ok(tables(namespace)?.into_iter().map(|(name, _)| name).collect())
}

/// The comments of all `inet` tables, with the tables' names.
fn tables(namespace: &NetNamespace) -> Result<Vec<(String, Option<String>)>, NetlinkError> {
    let mut connection = Connection::open(namespace, netlink_sys::protocols::NETLINK_NETFILTER)?;
    let question = message(NfTablesMessage::GetTable(TableMessage { attributes: vec![] }));
    let answers = connection.list::<NetfilterMessage>("list the tables", question)?;
    let names = answers.into_iter().filter_map(|answer| {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = answer.inner else {
            return None;
        };
        let (mut name, mut comment) = (None, None);
        for attribute in table.attributes {
            match attribute {
                TableAttribute::Name(found) => name = Some(found),
                TableAttribute::UserData(bytes) => comment = decode::comment(&bytes),
                _ => {}
            }
        }
        Some((name?, comment))
    });
    Ok(names.collect())
}

/// Reads those of the named tables that are there.
pub fn read(namespace: &NetNamespace, names: &[&str]) -> Result<Ruleset, NetlinkError> {
    let present = tables(namespace)?;
    let mut connection = Connection::open(namespace, netlink_sys::protocols::NETLINK_NETFILTER)?;
    let question = message(NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }));
    let chains = connection.list::<NetfilterMessage>("list the chains", question)?;
    let question = message(NfTablesMessage::GetRule(RuleMessage { attributes: vec![] }));
    let rules = connection.list::<NetfilterMessage>("list the rules", question)?;
    let mut ruleset = Ruleset::default();
    for name in names {
        let Some((_, comment)) = present.iter().find(|(found, _)| found == name) else { continue };
        let mut table = Table { name: (*name).to_owned(), comment: comment.clone(), chains: Vec::new() };
        table.chains.extend(chains.iter().filter_map(|answer| decode::chain(answer, name)));
        for answer in &rules {
            let Some((chain, rule)) = decode::rule(answer, name) else { continue };
            if let Some(chain) = table.chains.iter_mut().find(|found| found.name == chain) {
                chain.rules.push(rule);
            }
        }
        ruleset.tables.push(table);
    }
    Ok(ruleset)
}

type Change = (String, NetfilterMessage, u16);

fn transact(namespace: &NetNamespace, changes: Vec<Change>) -> Result<(), NetlinkError> {
    let mut connection = Connection::open(namespace, netlink_sys::protocols::NETLINK_NETFILTER)?;
    connection.transaction(bound(ControlMessage::BatchBegin), changes, bound(ControlMessage::BatchEnd))
}

/// Makes the table before deleting it, so that a table that is not there is no error.
fn deletion(name: &str) -> [Change; 2] {
    let table = || TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] };
    [
        (format!("find the table {name}"), message(NfTablesMessage::NewTable(table())), NLM_F_CREATE),
        (format!("remove the table {name}"), message(NfTablesMessage::DeleteTable(table())), 0),
    ]
}

fn creation(table: &Table) -> Vec<Change> {
    let mut attributes = vec![TableAttribute::Name(table.name.clone())];
    attributes.extend(table.comment.as_ref().map(|text| TableAttribute::UserData(encode::comment(text))));
    let new = message(NfTablesMessage::NewTable(TableMessage { attributes }));
    let mut changes = vec![(format!("make the table {}", table.name), new, NLM_F_CREATE)];
    for chain in &table.chains {
        let mut attributes =
            vec![ChainAttribute::Table(table.name.clone()), ChainAttribute::Name(chain.name.clone())];
        if let Some(hook) = chain.hook {
            attributes.push(ChainAttribute::Hook(vec![
                HookAttribute::Number(HookNumber::Inet(hook.point.into())),
                HookAttribute::Priority(hook.priority.cast_unsigned()),
            ]));
            attributes.push(ChainAttribute::Type(hook.kind.name().to_owned()));
        }
        let new = message(NfTablesMessage::NewChain(ChainMessage { attributes }));
        changes.push((format!("make the chain {} {}", table.name, chain.name), new, NLM_F_CREATE));
    }
    for (chain, rule) in
        table.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
    {
        let attributes = vec![
            RuleAttribute::Table(table.name.clone()),
            RuleAttribute::Chain(chain.name.clone()),
            RuleAttribute::Expressions(encode::rule(rule)),
        ];
        let new = message(NfTablesMessage::NewRule(RuleMessage { attributes }));
        let operation = format!("add the rule \"{rule}\" to {} {}", table.name, chain.name);
        changes.push((operation, new, NLM_F_CREATE | NLM_F_APPEND));
    }
    changes
}

fn message(inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), inner)
}

fn bound(inner: ControlMessage) -> NetfilterMessage {
    /// `NFNL_SUBSYS_NFTABLES`: whose transaction it is.
    const NF_TABLES: u16 = 10;
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NF_TABLES), inner)
}

impl From<HookPoint> for InetHookNumber {
    fn from(point: HookPoint) -> Self {
        match point {
            HookPoint::Prerouting => Self::PreRouting,
            HookPoint::Output => Self::LocalOut,
        }
    }
}

impl ChainKind {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for ChainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
