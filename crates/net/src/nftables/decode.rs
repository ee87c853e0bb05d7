//! The kernel's expressions back as a rule: what the register holds is followed from load to comparison.
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook as HookAttribute,
    HookNumber, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload,
    RuleAttribute, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use super::encode::{
    ACCEPT, COMMENT, CT_DESTINATION_REGISTER, CT_KEY, CT_MARK, CT_SOURCE_REGISTER, CT_ZONE, IPV4, IPV6,
    NETWORK, SOCKET_KEY, SOCKET_MARK, TCP, TRANSPORT, UDP,
};
use super::{Action, Bits, Chain, ChainKind, Hook, HookPoint, Is, Match, Rule, Transport};

/// The chain in this answer, if it is of that table.
pub(super) fn chain(answer: &NetfilterMessage, table: &str) -> Option<Chain> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(message)) = &answer.inner else {
        return None;
    };
    let mut chain = Chain { name: String::new(), hook: None, rules: Vec::new() };
    let (mut hook, mut kind) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            ChainAttribute::Table(name) if name != table => return None,
            ChainAttribute::Name(name) => chain.name.clone_from(name),
            ChainAttribute::Hook(attributes) => hook = hook_of(attributes),
            ChainAttribute::Type(name) => kind = kind_of(name),
            _ => {}
        }
    }
    if let (Some((point, priority)), Some(kind)) = (hook, kind) {
        chain.hook = Some(Hook { kind, point, priority });
    }
    Some(chain)
}

/// The rule in this answer and its chain's name, if it is of that table.
pub(super) fn rule(answer: &NetfilterMessage, table: &str) -> Option<(String, Rule)> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(message)) = &answer.inner else {
        return None;
    };
    let mut found = (String::new(), None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) => found.0.clone_from(name),
            RuleAttribute::Expressions(list) => found.1 = Some(expressions(list)),
            _ => {}
        }
    }
    Some((found.0, found.1?))
}

/// The comment in a table's user data: a row of type, length, value.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return unpadded(value);
        }
        data = rest;
    }
    None
}

fn hook_of(attributes: &[HookAttribute]) -> Option<(HookPoint, i32)> {
    let (mut point, mut priority) = (None, None);
    for attribute in attributes {
        match attribute {
            HookAttribute::Number(HookNumber::Inet(InetHookNumber::PreRouting)) => {
                point = Some(HookPoint::Prerouting);
            }
            HookAttribute::Number(HookNumber::Inet(InetHookNumber::LocalOut)) => {
                point = Some(HookPoint::Output)
            }
            HookAttribute::Priority(value) => priority = Some(value.cast_signed()),
            _ => {}
        }
    }
    Some((point?, priority?))
}

fn kind_of(name: &str) -> Option<ChainKind> {
    [ChainKind::Filter, ChainKind::Nat, ChainKind::Route].into_iter().find(|kind| kind.name() == name)
}

/// What the register holds.
#[derive(Debug, Clone)]
enum Held {
    Nothing,
    Meta(MetaKey),
    Payload { base: u32, offset: u32 },
    ConnectionMark,
    SocketMark,
    Bytes(Vec<u8>),
}

#[derive(Debug)]
struct Reader {
    held: Held,
    mask: Option<(u32, u32)>,
    family: Option<u8>,
    matches: Vec<Match>,
    marked: Option<Bits>,
    untracked: bool,
    action: Option<Action>,
}

fn expressions(list: &[ListAttribute<ExpressionAttribute>]) -> Rule {
    let mut reader = Reader {
        held: Held::Nothing,
        mask: None,
        family: None,
        matches: Vec::new(),
        marked: None,
        untracked: false,
        action: None,
    };
    for element in list {
        let ListAttribute::Element(attributes) = element else { continue };
        for attribute in attributes {
            // The one expression that has nothing to say besides its name.
            if matches!(attribute, ExpressionAttribute::Name(name) if name == "notrack") {
                reader.untracked = true;
            }
            let ExpressionAttribute::Data(expression) = attribute else { continue };
            if reader.take(expression).is_none() {
                reader.action = Some(Action::Unknown(format!("{expression:?}")));
                return reader.rule();
            }
        }
    }
    reader.rule()
}

impl Reader {
    fn rule(self) -> Rule {
        let action = self.action.unwrap_or_else(|| Action::Unknown("no action".to_owned()));
        Rule { matches: self.matches, action }
    }

    /// `None`: not understood.
    fn take(&mut self, expression: &Expressions) -> Option<()> {
        match expression {
            Expressions::Meta(attributes) => self.meta(attributes),
            Expressions::Payload(attributes) => self.payload(attributes),
            Expressions::Bitwise(attributes) => self.bitwise(attributes),
            Expressions::Cmp(attributes) => self.compare(attributes),
            Expressions::Immediate(attributes) => self.immediate(attributes),
            Expressions::Other { expression_type, attributes } => match expression_type.as_str() {
                "counter" | "notrack" => Some(()),
                "socket" => self.socket(attributes),
                "ct" => self.connection(attributes),
                "redir" => {
                    let Held::Bytes(bytes) = &self.held else { return None };
                    self.action =
                        Some(Action::Redirect(u16::from_be_bytes(bytes.as_slice().try_into().ok()?)));
                    Some(())
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn hold(&mut self, held: Held) {
        self.held = held;
        self.mask = None;
    }

    fn meta(&mut self, attributes: &[Meta]) -> Option<()> {
        let key = attributes.iter().find_map(|attribute| match attribute {
            Meta::Key(key) => Some(*key),
            _ => None,
        })?;
        let stores = attributes.iter().any(|attribute| matches!(attribute, Meta::SourceRegister(_)));
        if !stores {
            self.hold(Held::Meta(key));
            return Some(());
        }
        match (key, &self.held, self.mask) {
            (MetaKey::Mark, Held::ConnectionMark, None) => self.action = Some(Action::RestoreMark),
            (MetaKey::Mark, Held::Meta(MetaKey::Mark), Some((kept, value))) => {
                self.marked = Some(Bits { value, mask: !kept });
            }
            _ => return None,
        }
        Some(())
    }

    fn payload(&mut self, attributes: &[Payload]) -> Option<()> {
        let (mut base, mut offset) = (None, None);
        for attribute in attributes {
            match attribute {
                Payload::Base(value) => base = Some(*value),
                Payload::Offset(value) => offset = Some(*value),
                _ => {}
            }
        }
        self.hold(Held::Payload { base: base?, offset: offset? });
        Some(())
    }

    fn bitwise(&mut self, attributes: &[Bitwise]) -> Option<()> {
        let (mut mask, mut xor) = (None, None);
        for attribute in attributes {
            match attribute {
                Bitwise::Mask(DataAttribute::Value(bytes)) => mask = number(bytes),
                Bitwise::Xor(DataAttribute::Value(bytes)) => xor = number(bytes),
                _ => {}
            }
        }
        self.mask = Some((mask?, xor?));
        Some(())
    }

    fn socket(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        let key = big_endian(attributes, SOCKET_KEY)?;
        self.hold((key == SOCKET_MARK).then_some(Held::SocketMark)?);
        Some(())
    }

    fn connection(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        let find = |kind| big_endian(attributes, kind);
        let key = find(CT_KEY)?;
        if find(CT_DESTINATION_REGISTER).is_some() {
            self.hold((key == CT_MARK).then_some(Held::ConnectionMark)?);
            return Some(());
        }
        find(CT_SOURCE_REGISTER)?;
        self.action = Some(match (key, &self.held, self.mask) {
            (CT_MARK, Held::ConnectionMark, Some((kept, value))) => {
                Action::SetConnectionMark(Bits { value, mask: !kept })
            }
            (CT_ZONE, Held::Bytes(bytes), _) => {
                Action::Zone(u16::from_ne_bytes(bytes.as_slice().try_into().ok()?))
            }
            _ => return None,
        });
        Some(())
    }

    fn immediate(&mut self, attributes: &[Immediate]) -> Option<()> {
        for attribute in attributes {
            match attribute {
                Immediate::Data(DataAttribute::Value(bytes)) => self.hold(Held::Bytes(bytes.clone())),
                Immediate::Data(DataAttribute::Verdict(verdict)) => {
                    self.action = Some(self.verdict(verdict)?)
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Not tracking ends the chain's rules, as accepting does; both are one action.
    fn verdict(&self, verdict: &[VerdictAttribute]) -> Option<Action> {
        match (verdict_of(verdict)?, self.marked, self.untracked) {
            (Action::Accept, None, true) => Some(Action::Untrack),
            (Action::Accept, Some(bits), true) => Some(Action::MarkUntracked(bits)),
            (other, None, false) => Some(other),
            _ => None,
        }
    }

    fn compare(&mut self, attributes: &[Cmp]) -> Option<()> {
        let (mut is, mut bytes) = (None, None);
        for attribute in attributes {
            match attribute {
                Cmp::Op(Operator::Equal) => is = Some(Is::Equal),
                Cmp::Op(Operator::NotEqual) => is = Some(Is::Not),
                Cmp::Data(DataAttribute::Value(value)) => bytes = Some(value.as_slice()),
                _ => {}
            }
        }
        let (is, bytes) = (is?, bytes?);
        let found = match (&self.held, self.mask) {
            (Held::Meta(MetaKey::Iifname), None) => Match::InLink(is, unpadded(bytes)?),
            (Held::Meta(MetaKey::Oifname), None) => Match::OutLink(is, unpadded(bytes)?),
            (Held::Meta(MetaKey::L4Proto), None) => Match::Protocol(match (is, bytes) {
                (Is::Equal, [TCP]) => Transport::Tcp,
                (Is::Equal, [UDP]) => Transport::Udp,
                _ => return None,
            }),
            (Held::Meta(MetaKey::Nfproto), None) => {
                let (Is::Equal, [family]) = (is, bytes) else { return None };
                self.family = Some(*family);
                return Some(());
            }
            (Held::Meta(MetaKey::Mark), Some((mask, 0))) => {
                Match::Mark(is, Bits { value: number(bytes)?, mask })
            }
            (Held::ConnectionMark, Some((mask, 0))) => {
                Match::ConnectionMark(is, Bits { value: number(bytes)?, mask })
            }
            (Held::SocketMark, Some((mask, 0))) => {
                Match::SocketMark(is, Bits { value: number(bytes)?, mask })
            }
            (Held::Payload { base: TRANSPORT, offset }, None) => {
                let port = u16::from_be_bytes(bytes.try_into().ok()?);
                match offset {
                    0 => Match::SourcePort(is, port),
                    2 => Match::DestinationPort(is, port),
                    _ => return None,
                }
            }
            (Held::Payload { base: NETWORK, offset }, None) => match (self.family?, offset) {
                (IPV4, 12) => Match::Source(is, v4(bytes)?),
                (IPV4, 16) => Match::Destination(is, v4(bytes)?),
                (IPV6, 8) => Match::Source(is, v6(bytes)?),
                (IPV6, 24) => Match::Destination(is, v6(bytes)?),
                _ => return None,
            },
            _ => return None,
        };
        self.matches.push(found);
        Some(())
    }
}

fn verdict_of(attributes: &[VerdictAttribute]) -> Option<Action> {
    let (mut code, mut chain) = (None, None);
    for attribute in attributes {
        match attribute {
            VerdictAttribute::Code(value) => code = Some(*value),
            VerdictAttribute::Chain(name) => chain = Some(name.clone()),
            _ => {}
        }
    }
    match code? {
        ACCEPT => Some(Action::Accept),
        Verdict::Return => Some(Action::Return),
        Verdict::Jump => Some(Action::Jump(chain?)),
        _ => None,
    }
}

/// The attribute of that kind, a number.
fn big_endian(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    let found = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut bytes = vec![0; found.value_len()];
    found.emit_value(&mut bytes);
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn v6(bytes: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

fn unpadded(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes.get(..end)?.to_vec()).ok()
}
