use super::*;
use crate::rules::{Level, Message};

fn read(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config"), text).unwrap();
    Config::read(dir.path())
}

#[test]
fn an_empty_file_says_what_git_does_by_default() {
    let config = read("").unwrap();
    assert!(config.http_upload_pack && config.http_receive_pack.is_none());
    assert_eq!(config.deletes, Rule::Allowed);
    assert_eq!(config.delete_current, Rule::Denied);
    assert_eq!(config.atomic, Rule::Allowed);
    assert_eq!(config.push_options, Rule::Denied);
    assert!(config.hidden_from_fetches.is_empty() && config.pack_bytes_max.is_none());
    assert!(!config.gives_hidden_tips() && !config.allow_filter && !config.allow_ref_in_want);
    let none = tempfile::tempdir().unwrap();
    assert_eq!(Config::read(none.path()).unwrap(), config);
}

#[test]
fn every_value_is_read_as_git_reads_it() {
    let config = read(
        "[core]\n\tbare = true\n[HTTP]\nreceivePack\nuploadpack = off\n\
         [uploadpack]\nallowTipSHA1InWant = 1\nallowFilter = yes\nallowrefinwant = true\n\
         [receive]\ndenyDeletes = yes\ndenyNonFastForwards = true\ndenyDeleteCurrent = warn\n\
         denyCurrentBranch = no\nmaxInputSize = 3k\nadvertiseAtomic = false\nadvertisePushOptions = on\n",
    )
    .unwrap();
    assert_eq!(config.is_bare, Some(true));
    assert_eq!(config.http_receive_pack, Some(true));
    assert!(!config.http_upload_pack && config.gives_hidden_tips());
    assert!(config.allow_filter && config.allow_ref_in_want);
    assert_eq!(
        [config.deletes, config.non_fast_forwards, config.atomic],
        [Rule::Denied; 3]
    );
    assert_eq!(
        [
            config.delete_current,
            config.update_checked_out,
            config.push_options
        ],
        [Rule::Allowed; 3]
    );
    assert_eq!(config.pack_bytes_max, Some(3072));
}

#[test]
fn the_last_seed_of_nonces_counts_and_is_not_shown() {
    assert_eq!(read("").unwrap().cert_nonce_seed, None);
    let text = "[receive]\ncertNonceSeed = one\ncertnonceseed = \" two\"\ncertNonceSlop = 1k\n";
    let config = read(text).unwrap();
    let seed = config.cert_nonce_seed.as_ref().map(NonceSeed::as_bytes);
    assert_eq!(seed, Some(&b" two"[..]));
    assert_eq!(config.cert_nonce_slop_s, 1024);
    assert!(!format!("{config:?}").contains("two"));
    for (bad, says) in [
        ("certNonceSeed", "receive.certNonceSeed cannot be"),
        ("certNonceSlop = -1", "receive.certNonceSlop cannot be"),
        ("certNonceSlop = soon", "soon"),
    ] {
        let error = read(&format!("[receive]\n{bad}\n")).unwrap_err();
        assert!(error.to_string().contains(says), "{bad}: {error}");
    }
}

#[test]
fn hidden_refs_keep_the_order_of_the_file_across_sections() {
    let config = read(
        "[transfer]\nhideRefs = refs/a\n[uploadpack]\nhideRefs = !refs/a/b\n\
         [receive]\nhideRefs = refs/r\n[transfer]\nhideRefs = refs/a/b/c/\n",
    )
    .unwrap();
    let fetches = &config.hidden_from_fetches;
    assert!(fetches.hides("refs/a/x") && !fetches.hides("refs/a/b/x"));
    assert!(fetches.hides("refs/a/b/c/x") && !fetches.hides("refs/r/x"));
    let pushes = &config.hidden_from_pushes;
    assert!(pushes.hides("refs/a/b/x") && pushes.hides("refs/r/x"));
}

#[test]
fn includes_are_followed_and_those_of_a_home_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more"), "[receive]\ndenyDeletes = true\n").unwrap();
    let config = |text: &str| {
        std::fs::write(dir.path().join("config"), text).unwrap();
        Config::read(dir.path())
    };
    let found = config("[include]\npath = more\n[include]\npath = not-there\n").unwrap();
    assert_eq!(found.deletes, Rule::Denied);
    let home = config("[include]\npath = ~/more\n")
        .unwrap_err()
        .to_string();
    assert!(home.contains("home") || home.contains('~'), "{home}");
    let endless = config("[include]\npath = config\n")
        .unwrap_err()
        .to_string();
    assert!(endless.contains("include"), "{endless}");
}

#[test]
fn formats_that_are_not_understood_are_refused() {
    for (text, says) in [
        ("[core]\nrepositoryformatversion = 2\n", "version 2"),
        (
            "[core]\nrepositoryformatversion = 1\n[extensions]\nfuture = 1\n",
            "extension future",
        ),
        (
            "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha512\n",
            "sha512",
        ),
        (
            "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha256\ncompatObjectFormat = sha1\n",
            "second object format sha1",
        ),
        (
            "[core]\nrepositoryformatversion = 1\n[extensions]\nrefStorage = reftable\n",
            "reftable",
        ),
        (
            "[extensions]\nobjectFormat = sha1\n",
            "repository format version 0",
        ),
        ("[extensions]\npartialClone = origin\n", "partial clone"),
        ("[receive]\ndenyDeletes = maybe\n", "maybe"),
        ("[receive]\ndenyDeleteCurrent = maybe\n", "maybe"),
        ("[receive\n", ""),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
    for text in [
        "[extensions]\nfuture = 1\n",
        "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha1\nrefStorage = files\nnoop = 1\n",
    ] {
        let config = read(text).unwrap();
        assert_eq!(config.object_format, ObjectFormat::Sha1, "{text:?}");
    }
    let sha256 = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha256\n";
    assert_eq!(read(sha256).unwrap().object_format, ObjectFormat::Sha256);
}

#[test]
fn the_config_of_the_work_tree_counts_where_the_repository_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("config.worktree");
    std::fs::write(own, "[receive]\ndenyDeletes = true\n").unwrap();
    for (text, expected) in [
        ("", Rule::Allowed),
        ("[extensions]\nworktreeConfig = true\n", Rule::Denied),
    ] {
        std::fs::write(dir.path().join("config"), text).unwrap();
        assert_eq!(Config::read(dir.path()).unwrap().deletes, expected);
    }
}

#[test]
fn rules_for_objects_are_those_of_receive_pack() {
    let rules = |text: &str| read(text).unwrap().objects.unwrap();
    for off in [
        "",
        "[receive]\nfsckObjects = false\n[transfer]\nfsckObjects = true\n",
        "[receive \"fsck\"]\nbadDate = nothing\n",
    ] {
        assert_eq!(rules(off), None, "{off}");
    }
    let strict = Some(Arc::new(ObjectRules::strict()));
    assert_eq!(rules("[transfer]\nfsckObjects\n"), strict);
    assert_eq!(
        rules("[receive]\nfsckObjects = yes\n[fsck]\nbadDate = warn\n"),
        strict
    );
    let set = "[receive]\nfsckobjects = 1\n[Receive \"fsck\"]\nBADDATE = warn\n\
         badDate = ignore\nhasDot = warn\nnothing = warn\n[receive \"FSCK\"]\nhasDot = ignore\n";
    let set = rules(set).unwrap();
    assert_eq!(set.level(Message::BadDate), Level::Ignore);
    assert_eq!(set.level(Message::HasDot), Level::Warn);
    assert_eq!(set.level(Message::HasDotdot), Level::Error);
    for (wrong, says) in [
        (
            "badDate = off",
            "receive.fsck.badDate: unknown fsck message type: 'off'",
        ),
        (
            "badDate",
            "receive.fsck.badDate: unknown fsck message type: ''",
        ),
        (
            "nulInHeader = warn",
            "receive.fsck.nulInHeader: cannot demote nulInHeader to warn",
        ),
        (
            "skipList = absent",
            "receive.fsck.skipList cannot be read from ",
        ),
        (
            "skipList = ~/list",
            "a home folder in receive.fsck.skipList",
        ),
        (
            "skipList = config",
            "receive.fsck.skipList: invalid object name: ",
        ),
    ] {
        let text = format!("[receive]\nfsckObjects = true\n[receive \"fsck\"]\n{wrong}\n");
        // The error is reported to pushes only.
        let refused = read(&text).unwrap().objects.unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
}
