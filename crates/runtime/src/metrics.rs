//! Exposition of metrics: encoding, content negotiation and compression (control-and-operations 6.5, 7.1), and the
//! families every process has. Which other families exist is each component's affair; there is no global registry.
mod compress;
mod process;
mod runtimes;

pub use process::ProcessCollector;
pub use runtimes::RuntimeCollector;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus_client::registry::Registry;

use crate::http::{Answer, Body, not_found, with_type};

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_1: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";
const TEXT: &str = "text/plain; charset=utf-8";

/// The text of a registry. Label values are escaped as OpenMetrics demands.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail; a collector that fails leaves its family out.
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
        tracing::error!(target: "metrics", %error, "failed to encode metrics");
    }
    text
}

/// The answer of a stats server: any method on `/metrics` or `/stats/prometheus`.
pub fn answer(request: &Parts, text: impl FnOnce() -> String) -> Answer {
    match request.uri.path() {
        "/metrics" | "/stats/prometheus" => exposition(&request.headers, text()),
        _ => not_found(),
    }
}

/// The text as an answer in the type and compression the client prefers.
pub fn exposition(headers: &HeaderMap, text: String) -> Answer {
    let content_type = if wants_open_metrics(headers) { OPEN_METRICS_1 } else { TEXT };
    let mut answer = with_type(StatusCode::OK, content_type, "");
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let encoding = compress::preferred(headers).filter(|_| text.len() >= compress::MIN_BYTES);
    *answer.body_mut() = match encoding {
        None => Body::whole(text),
        Some(encoding) => {
            let name = HeaderValue::from_static(encoding.name());
            answer.headers_mut().insert(header::CONTENT_ENCODING, name);
            Body::chunked(encoding.compress(text.as_bytes()))
        }
    };
    answer
}

fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let media_type = item.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case(OPEN_METRICS)
    })
}

#[cfg(test)]
mod tests;
