//! `cluster.json`: the addresses of the cluster of `henge dev` and its token. Third-party tools
//! read it too, so its fields stay.

use std::path::{Path, PathBuf};

use henge_client::Secret;
use henge_types::{ClusterId, NodeId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::CliError;
use crate::private_file::{self, PrivateFileError};

/// A local cluster: its nodes and the token of its administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The administrator's name, for HTTP Basic.
    pub admin_user: String,
    /// The administrator's token.
    #[serde(serialize_with = "reveal", deserialize_with = "conceal")]
    pub admin_token: Secret,
    /// The nodes, by number.
    pub nodes: Vec<ClusterFileNode>,
}

/// One node of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFileNode {
    /// Its number.
    pub id: NodeId,
    /// The address of its HTTP listener, `http://HOST:PORT`.
    pub http: String,
    /// `HOST:PORT` of its SSH listener; `null` while there is none.
    pub ssh: Option<String>,
    /// `HOST:PORT` of its cluster listener.
    pub rpc: String,
    /// Its process when the file was written; `henge.pid` in `data_dir` is always up to date.
    pub pid: u32,
    /// Its data directory, absolute.
    pub data_dir: PathBuf,
    /// Its configuration file, absolute.
    pub config: PathBuf,
}

impl ClusterFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, when other users can read it too, or when it is not a cluster file.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = private_file::read(path)?;
        serde_json::from_str(&text).map_err(|error| CliError::ClusterFile {
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    /// Writes the file, mode 0600, replacing an older one as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PrivateFileError> {
        let mut text = serde_json::to_string_pretty(self)
            .expect("invariant: paths made from UTF-8 options, string keys");
        text.push('\n');
        private_file::write(path, text.as_bytes())
    }
}

fn reveal<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.reveal())
}

fn conceal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(|text| Secret::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_fields_that_tools_rely_on() {
        let file = ClusterFile {
            cluster_id: ClusterId::from_bytes([1; 16]),
            admin_user: "admin".to_owned(),
            admin_token: Secret::new("t"),
            nodes: vec![ClusterFileNode {
                id: NodeId::new(1),
                http: "http://127.0.0.1:7401".to_owned(),
                ssh: None,
                rpc: "127.0.0.1:7441".to_owned(),
                pid: 7,
                data_dir: "/d/n1".into(),
                config: "/d/n1/node.toml".into(),
            }],
        };
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cluster.json");
        file.write(&path).expect("written");
        assert_eq!(ClusterFile::read(&path).expect("read"), file);
        let text = private_file::read(&path).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "cluster_id": "01".repeat(16), "admin_user": "admin", "admin_token": "t",
                "nodes": [{"id": 1, "http": "http://127.0.0.1:7401", "ssh": null,
                    "rpc": "127.0.0.1:7441", "pid": 7, "data_dir": "/d/n1",
                    "config": "/d/n1/node.toml"}]
            })
        );
    }
}
