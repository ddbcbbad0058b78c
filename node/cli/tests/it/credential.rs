//! `henge credential`, called as git calls it.

use henge_cli::Exit;

use crate::run::henge_typing;

const URL: &str = "http://127.0.0.1:7401,http://node.example:7402/";

async fn told(operation: &str, question: &str) -> String {
    let done = henge_typing(URL, &["credential", operation], question).await;
    assert_eq!(
        (done.exit, done.err.as_str()),
        (Exit::Ok, ""),
        "{question:?}"
    );
    done.out
}

/// Examples put the token into URLs, where a shell's history and `.git/config` store it.
#[tokio::test]
async fn the_token_is_told_for_the_cluster_s_own_addresses_alone() {
    let login = "username=admin\npassword=t\n";
    for ours in [
        "protocol=http\nhost=127.0.0.1:7401\n\n",
        "protocol=http\nhost=NODE.example:7402\npath=admin/demo.git\nwwwauth[]=Basic realm=\"henge\"\n",
    ] {
        assert_eq!(told("get", ours).await, login, "{ours:?}");
        assert_eq!(told("store", ours).await, "");
        assert_eq!(told("erase", ours).await, "");
    }
    for other in [
        "",
        "protocol=https\nhost=127.0.0.1:7401\n\n",
        "protocol=http\nhost=127.0.0.1\n\n",
        "protocol=http\nhost=127.0.0.1:74010\n\n",
        "protocol=http\nhost=evil.example\n\n",
        "protocol=http\nhost=127.0.0.1:7401@evil.example\n\n",
        "host=127.0.0.1:7401\n\n",
    ] {
        assert_eq!(told("get", other).await, "", "{other:?}");
    }
}
