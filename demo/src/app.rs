//! The application of the demo's pods (`culvert demo app`): a small HTTP server that says who it is and whom it asked.
//!
//! `productpage` asks `details` and `reviews`, `reviews` asks `ratings`; every answer names service, version and pod.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::fetch;

/// Who a pod's application is and what it calls.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AppArgs {
    /// Service name in the answers.
    #[arg(long)]
    service: String,
    /// Version in the answers.
    #[arg(long, default_value = "")]
    version: String,
    /// Pod name in the answers.
    #[arg(long)]
    pod: String,
    /// Ports to listen on, all addresses.
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// URLs asked for every request to `/`; their answers are part of the reply.
    #[arg(long = "call")]
    calls: Vec<String>,
}

/// What an application answers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) version: String,
    pub(crate) pod: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) asked: Vec<Asked>,
}

/// One upstream call of an application.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) url: String,
    /// HTTP status, absent when no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<Box<Answer>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Serves until the process is ended.
pub(crate) async fn serve(args: AppArgs) -> anyhow::Result<()> {
    let args = Arc::new(args);
    let mut listeners = JoinSet::new();
    for port in &args.ports {
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))).await?;
        listeners.spawn(accept(listener, Arc::clone(&args)));
    }
    while let Some(ended) = listeners.join_next().await {
        ended?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, args: Arc<AppArgs>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Cancel safe: accept and join_next lose nothing when dropped.
            accepted = listener.accept() => {
                // A failed accept (descriptors used up, say) is a matter of that one connection.
                let Ok((socket, _)) = accepted else { continue };
                let args = Arc::clone(&args);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let args = Arc::clone(&args);
                        async move { Ok::<_, Infallible>(reply(&request, &args).await) }
                    });
                    // An error here is the client's way of ending the connection.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn reply(request: &Request<Incoming>, args: &AppArgs) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let mut calls = JoinSet::new();
    for url in &args.calls {
        let url = url.clone();
        calls.spawn(async move { ask(url).await });
    }
    let mut asked = calls.join_all().await;
    asked.sort_by(|left, right| left.url.cmp(&right.url));
    let answer =
        Answer { service: args.service.clone(), version: args.version.clone(), pod: args.pod.clone(), asked };
    // The answer holds strings and numbers only: it always serialises.
    let mut body = serde_json::to_vec(&answer).unwrap_or_default();
    body.push(b'\n');
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    *response.body_mut() = Full::new(Bytes::from(body));
    response
}

async fn ask(url: String) -> Asked {
    match fetch::get(&url).await {
        Ok(fetched) => Asked {
            status: Some(fetched.status),
            answer: serde_json::from_slice(&fetched.body).ok().map(Box::new),
            error: None,
            url,
        },
        Err(error) => Asked { url, status: None, answer: None, error: Some(format!("{error:#}")) },
    }
}
