//! The token files of a node, read at the start and again on SIGHUP.

use std::path::Path;

use anyhow::Context as _;
use henge_api::{TokenSet, Tokens};
use henge_cli::private_file;

use crate::config::Config;

/// Reads the tokens from their files.
pub(crate) fn read(config: &Config) -> anyhow::Result<TokenSet> {
    let file = &config.admin_token_file;
    let tokens = TokenSet::new(&private_file::read(file)?)
        .with_context(|| unusable("the administrator's token", file))?;
    let Some(file) = &config.metrics_token_file else {
        return Ok(tokens);
    };
    tokens
        .with_metrics(&private_file::read(file)?)
        .with_context(|| unusable("the token for metrics", file))
}

fn unusable(whose: &str, file: &Path) -> String {
    format!("{whose} cannot be used as it is in {}", file.display())
}

/// Reads the files again; if one cannot be used, the tokens stay unchanged.
pub(crate) fn reload(config: &Config, tokens: &Tokens) {
    match read(config) {
        Ok(read) => {
            tracing::info!(tokens = ?read, "the tokens were read again");
            tokens.replace(read);
        }
        Err(error) => {
            tracing::error!("the tokens stay as they were: {}", crate::words(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const OLD: &str = "0123456789abcdef-old";
    const NEW: &str = "0123456789abcdef-new";

    fn config(dir: &Path) -> Config {
        let text = "[node]\ndata_dir = \".\"\nhttp_listen = \"127.0.0.1:1\"\nrpc_listen = \"127.0.0.1:2\"\n\
            [auth]\nadmin_token_file = \"admin\"\nmetrics_token_file = \"metrics\"\n\
            [[cluster.founders]]\nid = 1\nincarnation = \"01010101010101010101010101010101\"\n\
            rpc = \"127.0.0.1:2\"\nhttp = \"127.0.0.1:1\"\n";
        let path = dir.join("node.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(&path, |_| None, Overrides::default()).expect("good")
    }

    fn shown(tokens: &Tokens) -> String {
        format!("{tokens:?}")
    }

    /// A wrong file must not lock all clients out of a running node.
    #[test]
    fn tokens_that_cannot_be_read_again_stay_as_they_were() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = config(dir.path());
        let write = |file: &str, text: &str| {
            private_file::write(&dir.path().join(file), text.as_bytes()).expect("written");
        };
        write("admin", OLD);
        assert!(read(&config).is_err(), "there is no token for metrics");
        write("metrics", "a-token-for-metrics");
        let tokens = Tokens::new(read(&config).expect("good"));
        let before = shown(&tokens);
        for (admin, metrics) in [
            ("", "a-token-for-metrics"),
            ("short", "a-token-for-metrics"),
            (OLD, OLD),
            (NEW, ""),
        ] {
            write("admin", admin);
            write("metrics", metrics);
            reload(&config, &tokens);
            assert_eq!(shown(&tokens), before, "{admin:?} {metrics:?}");
        }
        write("admin", &format!("{NEW}\n{OLD}\n"));
        write("metrics", "a-token-for-metrics");
        reload(&config, &tokens);
        assert_ne!(shown(&tokens), before);
        let exposed = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
        std::fs::set_permissions(dir.path().join("admin"), exposed).expect("chmod");
        let error = read(&config).expect_err("exposed").to_string();
        assert!(error.contains("can be read by others"), "{error}");
    }
}
