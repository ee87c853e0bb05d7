//! The debug endpoints of 15014 and 8080 (control-plane 6).
//!
//! [`Debug::answer`] decides who may see what and answers; the ports around it differ only in what else they serve.

mod dump;
mod index;
mod message_json;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use runtime::clock::Clock;
use runtime::http::{Answer, text, with_type};
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;

use crate::authority::Authority;
use crate::discovery::{Discovery, is_loopback};
use crate::metrics::{CONTENT_TYPE, Metrics, Surroundings};
use crate::sources::Problem;
use crate::sources::objects::MeshConfig;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const NOT_CONNECTED: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";

/// What the source last said, beside the records.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceState {
    /// What is refused now.
    pub(crate) problems: Vec<Problem>,
    /// The mesh configuration in use.
    pub(crate) mesh: MeshConfig,
    /// Kinds that mean nothing here, with the number of their objects.
    pub(crate) ignored_kinds: BTreeMap<String, usize>,
}

/// Who may see the debug endpoints.
#[derive(Clone, Debug)]
pub(crate) struct DebugAccess {
    /// `ENABLE_DEBUG_ENDPOINT_AUTH`
    pub(crate) authenticate: bool,
    /// The system namespace and `DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES`: everything.
    pub(crate) namespaces: BTreeSet<String>,
}

/// The debug endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Debug {
    pub(crate) discovery: Discovery,
    pub(crate) authority: Authority,
    pub(crate) metrics: Metrics,
    pub(crate) source: Arc<Mutex<SourceState>>,
    pub(crate) access: Arc<DebugAccess>,
    /// The name of the local cluster.
    pub(crate) cluster_id: Arc<str>,
    pub(crate) clock: Clock,
}

/// What a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
enum View {
    Everything,
    /// What proxies of this namespace hold.
    Namespace(String),
}

impl Debug {
    /// Port 15014: metrics, version, debug.
    pub(crate) fn monitoring(&self, request: &Parts, peer: Option<SocketAddr>) -> Answer {
        match request.uri.path() {
            "/metrics" => {
                let catalog = self.discovery.catalog();
                let around =
                    Surroundings { catalog: &catalog, authority: &self.authority, now: self.clock.wall() };
                with_type(StatusCode::OK, CONTENT_TYPE, self.metrics.page(&around))
            }
            "/version" => text_answer(StatusCode::OK, index::version()),
            _ => self.answer(request, peer),
        }
    }

    /// `/debug` and below; anything else is not found.
    pub(crate) fn answer(&self, request: &Parts, peer: Option<SocketAddr>) -> Answer {
        let path = request.uri.path();
        if path == "/debug" {
            let n_problems = self.source.lock().problems.len();
            return with_type(StatusCode::OK, HTML, index::page(n_problems));
        }
        let Some(name) = path.strip_prefix("/debug/").filter(|name| index::is_endpoint(name)) else {
            return not_found();
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let view = match self.view(request, peer.map(|peer| peer.ip())) {
            Ok(view) => view,
            Err(status) => return bare(status),
        };
        if view != View::Everything && name != "config_dump" {
            return bare(StatusCode::FORBIDDEN);
        }
        let query = query(request.uri.query().unwrap_or_default());
        let body = match name {
            "list" => json!(index::names()),
            "syncz" => dump::syncz(
                &self.discovery,
                query.get("namespace").map(String::as_str).filter(|name| !name.is_empty()),
            ),
            "connections" => dump::connections(&self.discovery, false),
            "adsz" => dump::connections(&self.discovery, true),
            "ambientz" => dump::ambientz(&self.discovery.catalog()),
            "conditions" => dump::conditions(&self.discovery.catalog()),
            "mesh" => json!(self.source.lock().mesh),
            "problems" => dump::problems(&self.source.lock().problems),
            "clusterz" => json!([{"id": *self.cluster_id, "secretName": "", "syncStatus": "synced"}]),
            "networkz" => Value::Null,
            "config_dump" => return self.config_dump(&query, &view),
            _ => return not_found(),
        };
        json_answer(&body, query.contains_key("pretty"))
    }

    fn config_dump(&self, query: &BTreeMap<String, String>, view: &View) -> Answer {
        let Some(proxy) = query.get("proxyID").filter(|proxy| !proxy.is_empty()) else {
            return text_answer(StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n");
        };
        let connection = self.discovery.connections().of_proxy(proxy).filter(|connection| match view {
            View::Everything => true,
            View::Namespace(namespace) => {
                connection.node().proxy.rsplit_once('.').is_some_and(|(_, of_proxy)| of_proxy == namespace)
            }
        });
        let Some(connection) = connection else { return text_answer(StatusCode::NOT_FOUND, NOT_CONNECTED) };
        let types = query.get("types").map(String::as_str).unwrap_or_default();
        json_answer(&dump::config_dump(&connection, types), query.contains_key("pretty"))
    }

    fn view(&self, request: &Parts, peer: Option<IpAddr>) -> Result<View, StatusCode> {
        if peer.is_some_and(is_loopback) || !self.access.authenticate {
            return Ok(View::Everything);
        }
        let header = request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            header.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("Istio ")));
        let mut metadata = MetadataMap::new();
        if let Some(value) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            metadata.insert("authorization", value);
        }
        let principal = self.authority.authenticator().authenticate(&metadata, &[]).map_err(|error| {
            tracing::info!(target: "debug", code = error.code(), %error, path = request.uri.path(), "refused");
            StatusCode::UNAUTHORIZED
        })?;
        let namespace = principal.account.namespace;
        Ok(if self.access.namespaces.contains(&namespace) {
            View::Everything
        } else {
            View::Namespace(namespace)
        })
    }
}

/// `404 page not found`, as the reference says it.
pub(crate) fn not_found() -> Answer {
    text_answer(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn text_answer(status: StatusCode, body: impl Into<String>) -> Answer {
    with_type(status, TEXT, body.into())
}

/// A status and nothing else.
fn bare(status: StatusCode) -> Answer {
    let mut answer = text(status, "");
    answer.headers_mut().remove(http::header::CONTENT_TYPE);
    answer
}

fn json_answer(body: &Value, pretty: bool) -> Answer {
    let text = if pretty { serde_json::to_string_pretty(body) } else { serde_json::to_string(body) };
    with_type(StatusCode::OK, JSON, text.unwrap_or_default())
}

/// The parameters of a query; the last of a name wins.
fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'+' => b' ',
            b'%' => {
                let ahead = rest.clone();
                let digits: Vec<u8> = ahead.take(2).collect();
                let value =
                    std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match value.filter(|_| digits.len() == 2) {
                    Some(value) => {
                        rest.nth(1);
                        value
                    }
                    None => b'%',
                }
            }
            byte => byte,
        };
        bytes.push(decoded);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
