use super::*;

const GOOD: &str = r#"
[node]
data_dir = "."
http_listen = "127.0.0.1:7401"
rpc_listen = "127.0.0.1:7441"

[auth]
admin_token_file = "../admin.token"

[[cluster.founders]]
id = 1
incarnation = "01010101010101010101010101010101"
rpc = "127.0.0.1:7441"
http = "127.0.0.1:7401"
"#;

fn load_with(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
    overrides: Overrides,
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("node.toml");
    fs::write(&path, text).expect("written");
    let mut config = Config::load(&path, variable, overrides)?;
    let strip = |path: &Path| path.strip_prefix(dir.path()).unwrap_or(path).to_owned();
    config.data_dir = strip(&config.data_dir);
    config.admin_token_file = strip(&config.admin_token_file);
    Ok(config)
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, |_| None, Overrides::default())
}

fn refused(text: &str) -> String {
    load(text).expect_err("refused").to_string()
}

#[test]
fn what_is_not_written_has_its_default() {
    let config = load(GOOD).expect("a good file");
    assert_eq!(config.data_dir, Path::new(""), "the folder of the file");
    assert_eq!(config.admin_token_file, Path::new("../admin.token"));
    assert_eq!(config.http_advertise, "127.0.0.1:7401");
    assert_eq!(config.rpc_advertise, "127.0.0.1:7441");
    assert_eq!((config.cluster.shards, config.cluster.replication), (64, 1));
    assert_eq!(config.cluster.heartbeat, Duration::from_millis(250));
    assert_eq!(config.storage.wal_segment, 64 * 1024 * 1024);
    let git = GitSettings {
        bundle_bytes_min: Some(64 * 1024 * 1024),
    };
    assert_eq!(config.git, git);
    let mirrors = MirrorSettings {
        allow_private_addresses: false,
        at_once: 2,
        ca_file: None,
    };
    assert_eq!(config.mirrors, mirrors);
    let schedule = PruneSchedule {
        every: Duration::from_hours(7 * 24),
        grace: Duration::from_hours(14 * 24),
    };
    assert_eq!(config.prune, Some(schedule));
    assert_eq!(config.settle_after, Some(Duration::from_secs(5)));
    assert!(config.anonymous_reads);
    assert_eq!(config.log_filter, "info,openraft=error,sled=off");
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let text = format!("{GOOD}\n[log]\nfilter = \"warn\"\nformat = \"json\"\n");
    let variable = |name: &str| match name {
        "HENGE_LOG_FILTER" => Some("debug".to_owned()),
        "HENGE_NODE_DATA_DIR" => Some("elsewhere".to_owned()),
        "HENGE_CLUSTER_HEARTBEAT" => Some("75ms".to_owned()),
        _ => None,
    };
    let config = load_with(&text, variable, Overrides::default()).expect("good");
    assert_eq!(config.log_filter, "debug");
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.data_dir, Path::new("elsewhere"));
    assert_eq!(config.cluster.heartbeat, Duration::from_millis(75));

    let overrides = Overrides {
        log_filter: Some("trace".to_owned()),
        data_dir: Some("/typed".into()),
        ..Overrides::default()
    };
    let config = load_with(&text, variable, overrides).expect("good");
    assert_eq!(config.log_filter, "trace");
    assert_eq!(config.data_dir, Path::new("/typed"));
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let error = refused(&GOOD.replace("data_dir", "datadir"));
    assert!(error.contains("unknown field `datadir`"), "{error}");
    assert!(error.contains("line 3"), "{error}");
    let error = refused(&format!("{GOOD}\n[nodes]\n"));
    assert!(error.contains("unknown field `nodes`"), "{error}");
    let error = refused(&format!("{GOOD}weight = 1\n"));
    assert!(error.contains("unknown field `weight`"), "{error}");
}

#[test]
fn quantities_without_units_are_refused() {
    let error = refused(&format!("{GOOD}\n[storage]\nwal_segment = 16777216\n"));
    assert!(error.contains("a size with its unit"), "{error}");
    let error = refused(&format!("{GOOD}\n[storage]\nwal_segment = \"16MB\"\n"));
    assert!(
        error.contains("\"16MB\" is not a size with its unit"),
        "{error}"
    );
    let error = refused(&format!("[cluster]\nheartbeat = 250\n{GOOD}"));
    assert!(error.contains("a duration with its unit"), "{error}");

    let variable = |name: &str| (name == "HENGE_CLUSTER_HEARTBEAT").then(|| "250".to_owned());
    let error = load_with(GOOD, variable, Overrides::default()).expect_err("refused");
    assert!(
        error.to_string().starts_with(
            "the variable HENGE_CLUSTER_HEARTBEAT is wrong: \"250\" is not a duration"
        ),
        "{error}"
    );
}

#[test]
fn the_cluster_listener_stays_on_loopback() {
    for (from, to, key) in [
        (
            "rpc_listen = \"127.0.0.1:7441\"",
            "rpc_listen = \"0.0.0.0:7441\"",
            "[node] rpc_listen",
        ),
        (
            "rpc = \"127.0.0.1:7441\"",
            "rpc = \"10.0.0.1:7441\"",
            "[[cluster.founders]] rpc",
        ),
        (
            "rpc = \"127.0.0.1:7441\"",
            "rpc = \"node1:7441\"",
            "[[cluster.founders]] rpc",
        ),
        (
            "data_dir = \".\"",
            "data_dir = \".\"\nrpc_advertise = \"192.168.0.1:1\"",
            "[node] rpc_advertise",
        ),
    ] {
        let error = refused(&GOOD.replace(from, to));
        assert!(error.starts_with(key), "{error}");
        assert!(error.contains("loopback"), "{error}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    let without = |line: &str| GOOD.replace(line, "");
    assert_eq!(
        refused(&without("data_dir = \".\"")),
        "the configuration does not say [node] data_dir"
    );
    assert_eq!(
        refused(&without("admin_token_file = \"../admin.token\"")),
        "the configuration does not say [auth] admin_token_file"
    );
    let founders = GOOD.find("[[cluster").expect("founders");
    assert_eq!(
        refused(&GOOD[..founders]),
        "the configuration does not say [[cluster.founders]]"
    );
    let twice = format!("{GOOD}{}", &GOOD[founders..]);
    assert_eq!(refused(&twice), "[[cluster.founders]]: id 1 appears twice");
    for (lines, key) in [
        ("replication = 3", "[cluster] replication"),
        ("replication = 2", "[cluster] replication"),
        ("shards = 0", "[cluster] shards"),
        ("shards = 257", "[cluster] shards"),
        ("heartbeat = \"600ms\"", "[cluster] heartbeat"),
        ("election_min = \"2s\"", "[cluster] heartbeat"),
    ] {
        let error = refused(&format!("[cluster]\n{lines}\n{GOOD}"));
        assert!(error.starts_with(key), "{lines}: {error}");
    }
    for (lines, key) in [
        ("wal_segment = \"1MiB\"", "[storage] wal_segment"),
        ("wal_max = \"128MiB\"", "[storage] wal_max"),
        ("low_space_percent = 91", "[storage] low_space_percent"),
    ] {
        let error = refused(&format!("{GOOD}\n[storage]\n{lines}\n"));
        assert!(error.starts_with(key), "{lines}: {error}");
    }
    let error = refused(&GOOD.replace("http_listen = \"127.0.0.1", "http_listen = \"0.0.0.0"));
    assert!(
        error.starts_with("[node] http_advertise: must be given"),
        "{error}"
    );
}

#[test]
fn every_variable_is_on_the_page_about_the_command_line() {
    let page = include_str!("../../../docs/cli.md");
    for name in variables() {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn mirrors_are_configured_within_their_bounds() {
    let text = format!("{GOOD}\n[mirrors]\nat_once = 8\n");
    let variable =
        |name: &str| (name == "HENGE_MIRRORS_ALLOW_PRIVATE_ADDRESSES").then(|| "true".to_owned());
    let config = load_with(&text, variable, Overrides::default()).expect("a good file");
    assert!(config.mirrors.allow_private_addresses);
    assert_eq!(config.mirrors.at_once, 8);
    for count in [0, 65] {
        let error = refused(&format!("{GOOD}\n[mirrors]\nat_once = {count}\n"));
        assert!(error.starts_with("[mirrors] at_once"), "{error}");
    }
}

#[test]
fn pruning_has_a_schedule_or_none() {
    let prune =
        |text: &str| load(&format!("{GOOD}\n[maintenance]\n{text}\n")).map(|config| config.prune);
    let schedule = PruneSchedule {
        every: Duration::from_hours(24),
        grace: Duration::from_secs(0),
    };
    let written = "prune_every = \"1d\"\nprune_grace = \"0s\"";
    assert_eq!(prune(written).expect("good"), Some(schedule));
    assert_eq!(prune("prune_every = \"off\"").expect("good"), None);
    for (text, why) in [
        ("prune_every = \"999ms\"", "prune_every: is less than"),
        ("prune_every = \"weekly\"", "is not \"off\" or a duration"),
        ("prune_every = 7", "a duration"),
        ("prune = \"1d\"", "unknown field `prune`"),
    ] {
        let error = prune(text).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn networks_settle_after_a_while_or_never() {
    let settle = |text: &str| {
        load(&format!("{GOOD}\n[maintenance]\n{text}\n")).map(|config| config.settle_after)
    };
    let two = Duration::from_secs(2);
    assert_eq!(settle("settle_after = \"2s\"").expect("good"), Some(two));
    assert_eq!(settle("settle_after = \"off\"").expect("good"), None);
    for (text, why) in [
        ("settle_after = \"0s\"", "settle_after: is less than \"1s\""),
        ("settle_after = \"soon\"", "is not \"off\" or a duration"),
    ] {
        let error = settle(text).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn metrics_may_have_a_token_of_their_own() {
    assert_eq!(load(GOOD).expect("good").metrics_token_file, None);
    let line = "admin_token_file = \"../admin.token\"";
    let text = GOOD.replace(line, &format!("{line}\nmetrics_token_file = \"/m\""));
    let config = load(&text).expect("good");
    assert_eq!(config.metrics_token_file, Some("/m".into()));
    let variable = |name: &str| (name == "HENGE_AUTH_METRICS_TOKEN_FILE").then(|| "/v".to_owned());
    let config = load_with(&text, variable, Overrides::default()).expect("good");
    assert_eq!(config.metrics_token_file, Some("/v".into()));
}

#[test]
fn anonymous_reads_can_be_turned_off() {
    let text = format!("{GOOD}\n[http]\nanonymous_reads = false\n");
    assert!(!load(&text).expect("good").anonymous_reads);
    let variable = |name: &str| (name == "HENGE_HTTP_ANONYMOUS_READS").then(|| "true".to_owned());
    let config = load_with(&text, variable, Overrides::default()).expect("good");
    assert!(config.anonymous_reads);
}

#[test]
fn bundles_have_a_least_size_and_can_be_switched_off() {
    let with = |git: &str| {
        let config = load(&format!("{GOOD}\n[git]\n{git}\n")).expect("a good file");
        config.git.bundle_bytes_min
    };
    assert_eq!(with("bundle_uri_min = \"1MiB\""), Some(1024 * 1024));
    assert_eq!(with("bundle_uri = true"), Some(64 * 1024 * 1024));
    assert_eq!(with("bundle_uri = false\nbundle_uri_min = \"1MiB\""), None);
}
