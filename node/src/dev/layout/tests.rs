use super::*;
use crate::config::{Config, Overrides};
use std::os::unix::fs::MetadataExt;

fn args(dir: &Path) -> Dev {
    Dev {
        nodes: None,
        shards: None,
        dir: dir.join("made/dev"),
        base_port: None,
        reset: false,
    }
}

fn prepared(args: &Dev) -> Layout {
    Layout::prepare(args).expect("prepared")
}

#[test]
fn a_new_cluster_is_complete_and_its_secrets_are_private() {
    let dir = tempfile::tempdir().expect("a folder");
    let layout = prepared(&args(dir.path()));
    assert_eq!((layout.settings.nodes, layout.settings.shards), (3, 8));
    let mut incarnations = Vec::new();
    for node in layout.settings.nodes() {
        let path = layout.node_dir(node);
        let config = Config::load(&layout.config(node), |_| None, Overrides::default())
            .expect("a configuration that the node takes");
        assert_eq!(config.http_listen, ports::http(7400, node));
        assert_eq!(config.cluster.founders.len(), 3);
        assert_eq!((config.cluster.shards, config.cluster.replication), (8, 3));
        let token = private_file::read(&config.admin_token_file).expect("the token");
        assert_eq!(token.trim().len(), 64);
        let identity = Identity::read(&path).expect("an identity");
        assert_eq!((identity.node_id, identity.life), (node, Life::New));
        assert_eq!(identity.cluster_id, layout.settings.cluster_id);
        let founder = &config.cluster.founders[incarnations.len()];
        assert_eq!(founder.incarnation, identity.incarnation);
        TlsPaths::in_dir(&path).check().expect("certificates");
        incarnations.push(identity.incarnation);
    }
    incarnations.sort();
    incarnations.dedup();
    assert_eq!(
        incarnations.len(),
        3,
        "every directory has a life of its own"
    );
    for secret in ["ca.key", "admin.token", "n1/node.key", "n2/node.key"] {
        let mode = fs::metadata(layout.dir.join(secret)).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let mode = fs::metadata(&layout.dir).expect("there").mode();
    assert_eq!(
        mode & 0o777,
        0o700,
        "repositories are nobody else's business"
    );
    let left = fs::read_dir(dir.path().join("made"))
        .expect("listed")
        .count();
    assert_eq!(left, 1, "nothing half made is left");
}

#[test]
fn the_same_cluster_comes_back_and_another_shape_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut args = args(dir.path());
    args.nodes = Some(2);
    let first = prepared(&args);
    let (settings, token) = (
        first.settings.clone(),
        fs::read(first.token_file()).expect("a token"),
    );
    drop(first);
    args.nodes = None;
    let again = prepared(&args);
    assert_eq!(again.settings, settings);
    assert_eq!(fs::read(again.token_file()).expect("a token"), token);
    drop(again);

    args.nodes = Some(3);
    let error = Layout::prepare(&args).expect_err("two nodes are there");
    let text = error.to_string();
    assert!(text.contains("nodes 2, not 3"), "{text}");
    assert!(text.contains("--reset"), "{text}");
    args.nodes = None;
    args.shards = Some(9);
    assert!(matches!(
        Layout::prepare(&args),
        Err(LayoutError::Differs { key: "shards", .. })
    ));
    args.reset = true;
    let fresh = prepared(&args);
    assert_eq!((fresh.settings.nodes, fresh.settings.shards), (3, 9));
    assert_ne!(fresh.settings.cluster_id, settings.cluster_id);
}

#[test]
fn a_folder_of_something_else_is_left_alone_also_by_reset() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut args = args(dir.path());
    fs::create_dir_all(&args.dir).expect("made");
    let thesis = args.dir.join("thesis.tex");
    fs::write(&thesis, "years of work").expect("written");
    args.reset = true;
    let error = Layout::prepare(&args).expect_err("not ours");
    assert!(matches!(error, LayoutError::NotOurs { .. }), "{error}");
    assert!(thesis.try_exists().expect("looked"));

    fs::remove_file(&thesis).expect("removed");
    prepared(&args);
}

#[test]
fn a_cluster_that_runs_is_not_touched() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut args = args(dir.path());
    let layout = prepared(&args);
    assert!(matches!(
        Layout::prepare(&args),
        Err(LayoutError::Supervised { .. })
    ));
    let node = layout.node_dir(NodeId::new(2));
    drop(layout);
    let running = data_dir::DataDir::open(&node).expect("free");
    args.reset = true;
    let error = Layout::prepare(&args).expect_err("node 2 runs").to_string();
    let own = format!("`kill {}`", std::process::id());
    assert!(
        error.starts_with("node 2 in ") && error.contains(&own),
        "{error}"
    );
    drop(running);
    prepared(&args);
}
