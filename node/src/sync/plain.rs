//! A control plane without TLS, for tests.

use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use xds::client::{ConnectFailure, Connector};

/// Connects to this address.
pub(crate) struct Plain(pub(crate) String);

impl Connector for Plain {
    type Service = Channel;
    type Body = tonic::body::Body;

    async fn connect(&mut self) -> Result<(Channel, MetadataMap), ConnectFailure> {
        let endpoint = Endpoint::from_shared(self.0.clone())
            .map_err(|error| ConnectFailure::Unreachable(Box::new(error)))?;
        let channel =
            endpoint.connect().await.map_err(|error| ConnectFailure::Unreachable(Box::new(error)))?;
        Ok((channel, MetadataMap::new()))
    }
}
