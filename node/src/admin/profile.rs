//! `/debug/pprof`: CPU profiles, and the answers about heap profiles of a build that has none.
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{Response, StatusCode};
use pprof::protos::Message;
use runtime::http::{Answer, Body, text};

use super::text_error;

const SECONDS: RangeInclusive<u64> = 1..=300;
const FREQUENCY: RangeInclusive<i32> = 1..=1000;

/// Samples the whole process for a while.
pub(super) async fn cpu(query: &BTreeMap<String, String>) -> Answer {
    let seconds = query.get("seconds").map_or(Some(10), |text| text.parse().ok());
    let Some(seconds) = seconds.filter(|seconds| SECONDS.contains(seconds)) else {
        return text(StatusCode::BAD_REQUEST, "invalid seconds value; expected 1-300\n");
    };
    let frequency = query.get("frequency").map_or(Some(100), |text| text.parse().ok());
    let Some(frequency) = frequency.filter(|frequency| FREQUENCY.contains(frequency)) else {
        return text(StatusCode::BAD_REQUEST, "invalid frequency value; expected 1-1000\n");
    };
    match sample(Duration::from_secs(seconds), frequency).await {
        Ok(profile) => Response::new(Body::whole(profile)),
        Err(error) => text_error(&error.to_string()),
    }
}

async fn sample(duration: Duration, frequency: i32) -> Result<Vec<u8>, pprof::Error> {
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(frequency)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()?;
    tokio::time::sleep(duration).await;
    Ok(guard.report().build()?.pprof()?.encode_to_vec())
}

/// Shows or switches heap profiling, which this build cannot do.
pub(super) fn heap_switch(query: &BTreeMap<String, String>) -> Answer {
    match query.get("activate").map(String::as_str) {
        None | Some("true" | "false") => text_error("jemalloc profiling is not enabled"),
        Some(other) => {
            let reason = format!("invalid activate value {other:?}; expected true or false\n");
            text(StatusCode::BAD_REQUEST, reason)
        }
    }
}
