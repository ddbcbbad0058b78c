//! The two calls of etcd's v3 gRPC API that the benches use, written by hand from etcd's
//! `rpc.proto`. Unused fields are left out, which protobuf allows.

use anyhow::Context as _;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const PUT: &str = "/etcdserverpb.KV/Put";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// `etcdserverpb.ResponseHeader`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

/// `etcdserverpb.StatusRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    /// 0 while the member has no leader.
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// One connection to one member. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct EtcdClient {
    channel: Channel,
}

impl EtcdClient {
    /// Connects to `http://HOST:PORT`.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned()).context("not an address")?;
        let channel = endpoint.tcp_nodelay(true).connect().await;
        let channel = channel.with_context(|| format!("cannot connect to etcd at {url}"))?;
        Ok(Self { channel })
    }

    /// Stores a value under a key, replacing any earlier one.
    pub(crate) async fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let request = PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let _: PutResponse = self.call(PUT, request).await?;
        Ok(())
    }

    /// The member's status.
    pub(crate) async fn status(&self) -> anyhow::Result<StatusResponse> {
        self.call(STATUS, StatusRequest {}).await
    }

    async fn call<M, R>(&self, path: &'static str, message: M) -> anyhow::Result<R>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.context("etcd's connection is gone")?;
        let codec = ProstCodec::<M, R>::default();
        let path = PathAndQuery::from_static(path);
        let answer = grpc
            .unary(tonic::Request::new(message), path, codec)
            .await?;
        Ok(answer.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_put_has_the_bytes_that_etcd_reads() {
        let request = PutRequest {
            key: b"k".to_vec(),
            value: b"v1".to_vec(),
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x01k\x12\x02v1");
    }

    #[test]
    fn fields_of_an_answer_that_are_not_used_are_skipped() {
        // header { cluster_id 1, member_id 7, revision 3 }, version "3.4.0", db size 9, leader 7
        let bytes = b"\x0a\x06\x08\x01\x10\x07\x18\x03\x12\x053.4.0\x18\x09\x20\x07";
        let status = StatusResponse::decode(bytes.as_slice()).expect("a status");
        assert_eq!(status.header.expect("a header").member_id, 7);
        assert_eq!((status.version.as_str(), status.leader), ("3.4.0", 7));
    }
}
