//! Who may open a stream (control-plane 1.4, programs: "no mesh state is shown to anybody else").

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tonic::{Request, Status};

use super::ClientNode;
use crate::authority::{Account, Authority, Caller, Principal, canonical};

/// What callers of the port without TLS must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Plaintext {
    /// Callers from this machine nothing, others the same as on the port with TLS.
    #[default]
    LoopbackOnly,
    /// Everybody a bearer token (`XDS_AUTH_PLAINTEXT=true`).
    Authenticated,
    /// Nothing at all (`XDS_AUTH_PLAINTEXT=false`), as the reference does.
    Open,
}

/// The rules for opening streams.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) authority: Authority,
    /// `CA_TRUSTED_NODE_ACCOUNTS`
    pub(crate) trusted: Vec<Account>,
    /// `XDS_AUTH`: false asks nobody who they are.
    pub(crate) authenticate: bool,
    /// `PILOT_ENABLE_XDS_IDENTITY_CHECK`: what a client says about itself must be what its credentials say.
    pub(crate) check_identity: bool,
    /// `XDS_AUTH_PLAINTEXT`
    pub(crate) plaintext: Plaintext,
}

/// Which port a stream came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Secure,
    Plaintext,
}

/// A caller whose credentials have been looked at.
#[derive(Clone, Debug)]
pub(crate) struct Identified {
    /// Where it calls from.
    pub(crate) peer: String,
    /// Who it is; nobody where no credentials are asked for.
    pub(crate) principal: Option<Principal>,
}

impl Identified {
    /// How long its credentials still hold.
    pub(super) fn lifetime(&self, now: SystemTime) -> Option<Duration> {
        let principal = self.principal.as_ref()?;
        Some(principal.expires.duration_since(now).unwrap_or_default())
    }
}

impl Access {
    /// Looks at the credentials of a new stream.
    pub(super) fn identify<T>(&self, door: Door, request: &Request<T>) -> Result<Identified, Box<Status>> {
        let address = request.remote_addr().map(canonical);
        let caller = Caller::of(request);
        let peer = match door {
            Door::Plaintext => address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            Door::Secure => caller.address(),
        };
        let chain = match door {
            Door::Plaintext => &[],
            Door::Secure => caller.verified_chain().unwrap_or_default(),
        };
        let from_here = address.is_some_and(|address| is_loopback(address.ip()));
        let needs_proof = self.authenticate
            && match (door, self.plaintext) {
                (Door::Secure, _) | (Door::Plaintext, Plaintext::Authenticated) => true,
                (Door::Plaintext, Plaintext::LoopbackOnly) => !from_here,
                (Door::Plaintext, Plaintext::Open) => false,
            };
        match self.authority.authenticator().authenticate(request.metadata(), chain) {
            Ok(principal) => Ok(Identified { peer, principal: Some(principal) }),
            Err(_) if !needs_proof => Ok(Identified { peer, principal: None }),
            Err(error) => {
                tracing::warn!(target: "ads", code = error.code(), %peer, %error, "stream refused");
                Err(Box::new(Status::unauthenticated("authentication failure")))
            }
        }
    }

    /// Whether the caller may have what it asks for, being who it says it is.
    pub(super) fn authorize(&self, identified: &Identified, node: &ClientNode) -> Result<(), Box<Status>> {
        let Some(principal) = identified.principal.as_ref().filter(|_| self.authenticate) else {
            return Ok(());
        };
        let account = &principal.account;
        let same_namespace = node.namespace.as_deref().is_none_or(|namespace| namespace == account.namespace);
        let same_account = node.service_account.as_deref().is_none_or(|name| name == account.name);
        let refusal = if self.check_identity && !(same_namespace && same_account) {
            format!(
                "authorization failed: no identities ([{}]) matched {}/{}",
                principal.identity,
                node.namespace.as_deref().unwrap_or_default(),
                node.service_account.as_deref().unwrap_or_default(),
            )
        } else if !self.trusted.contains(account) {
            format!("authorization failed: {} is not a trusted node account", principal.identity)
        } else {
            return Ok(());
        };
        tracing::warn!(
            target: "ads", code = "xds-unauthorized", peer = %identified.peer, error = %refusal, "stream refused"
        );
        Err(Box::new(Status::permission_denied(refusal)))
    }
}

/// Also in the form a dual-stack socket shows it.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
