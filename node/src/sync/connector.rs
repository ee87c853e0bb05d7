//! Opens the channel of each discovery stream, with roots and token as they are now.

use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use xds::client::{ConnectFailure, Connector};

use crate::certs::channel::{ChannelError, ControlEndpoint};

/// How long a stream waits for the node to join. Past this it tries, so that what the server says is seen.
const JOINING: Duration = Duration::from_secs(10);

/// The control plane as seen by the discovery client.
#[derive(Debug)]
pub(crate) struct ControlConnector {
    endpoint: ControlEndpoint,
}

impl ControlConnector {
    pub(super) fn new(endpoint: ControlEndpoint) -> Self {
        Self { endpoint }
    }

    async fn open(&self) -> Result<(Channel, MetadataMap), ChannelError> {
        _ = timeout(JOINING, self.endpoint.joined()).await;
        let mut headers = MetadataMap::new();
        self.endpoint.authorize(&mut headers).await?;
        Ok((self.endpoint.connect().await?, headers))
    }
}

impl Connector for ControlConnector {
    type Service = Channel;
    type Body = tonic::body::Body;

    async fn connect(&mut self) -> Result<(Channel, MetadataMap), ConnectFailure> {
        self.open().await.map_err(|error| match error {
            ChannelError::Connect { .. } | ChannelError::Timeout { .. } => {
                ConnectFailure::Unreachable(Box::new(error))
            }
            _ => ConnectFailure::Local(Box::new(error)),
        })
    }
}
