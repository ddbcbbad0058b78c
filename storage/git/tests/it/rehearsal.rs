//! Prewarmed responses are used for later requests.

use std::fmt::Write as _;
use std::path::Path;

use henge_git::{
    BareRepository, FetchLimits, FetchSummary, Protocol, Stop, rehearse_fetches, rehearse_tags,
    upload_pack,
};

use crate::{Git, for_each_git_and_format, objects_of};

/// A file of many lines; commit `number` changes one of them. The caches are global to the process,
/// so the text differs for each test.
fn text(owner: &Path, which: usize, number: usize) -> String {
    let mut text = format!("of {}\n", owner.display());
    for line in 0..400 {
        let last_change = (0..=number)
            .rev()
            .find(|commit| (commit * 7 + which) % 400 == line);
        let shown = line * 2_654_435_761 % 1_000_003;
        writeln!(text, "{which} {shown} {last_change:?}").unwrap();
    }
    text
}

/// Commits that change a few files each, in folders.
fn history(git: &Git, work: &Path, commits: usize) {
    git.ok(
        &["init", "-q", "-b", "main", work.to_str().unwrap()],
        work.parent().unwrap(),
    );
    for number in 0..commits {
        for which in [number % 3, 3 + number % 5] {
            let folder = work.join(format!("folder-{}", which % 2));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(
                folder.join(format!("{which}.txt")),
                text(work, which, number),
            )
            .unwrap();
        }
        git.ok(&["add", "-A"], work);
        git.ok(&["commit", "-q", "-m", &format!("commit {number}")], work);
    }
}

fn fetch(git: &Git, bare: &Path, want: &str, have: &str) -> (FetchSummary, Vec<u8>) {
    let mut request = crate::raw::line("command=fetch\n");
    request.extend(crate::raw::line(&format!("object-format={}\n", git.format)));
    request.extend_from_slice(b"0001");
    for line in ["thin-pack", "ofs-delta", "no-progress"] {
        request.extend(crate::raw::line(&format!("{line}\n")));
    }
    request.extend(crate::raw::line(&format!("want {want}\n")));
    request.extend(crate::raw::line(&format!("have {have}\n")));
    request.extend(crate::raw::line("done\n"));
    request.extend_from_slice(b"0000");
    let refs = BareRepository::open(bare).unwrap();
    let mut answer = Vec::new();
    let summary = upload_pack(
        &refs,
        &objects_of(bare),
        Protocol::V2,
        &mut &request[..],
        &mut answer,
        &FetchLimits::default(),
    );
    (summary.unwrap(), answer)
}

#[test]
fn whoever_comes_first_finds_everything_made() {
    for_each_git_and_format(|server, git| {
        let work = server.path("work");
        history(git, &work, 60);
        let bare = server.path("followed.git");
        let (work, bare) = (work.to_str().unwrap(), bare);
        git.ok(
            &["clone", "-q", "--bare", work, bare.to_str().unwrap()],
            server.dir.path(),
        );
        git.ok(&["repack", "-q", "-a", "-d", "-f", "--depth=50"], &bare);
        let commit = |name: &str| git.ok(&["rev-parse", name], &bare);
        let tip = commit("main");

        let (before, _) = fetch(git, &bare, &tip, &commit("main~7"));
        assert!(before.deltas_made > 0, "{before:?}");
        let objects = objects_of(&bare);
        let head = tip.parse().unwrap();
        assert_eq!(
            rehearse_fetches(&objects, head, &Stop::default()).unwrap(),
            7
        );
        for behind in ["main~1", "main~20", "main~50"] {
            let (first, answer) = fetch(git, &bare, &tip, &commit(behind));
            assert_eq!(first.deltas_made, 0, "{behind}: {first:?}");
            assert!(first.deltas_sent > 0, "{behind}: {first:?}");
            let (_, again) = fetch(git, &bare, &tip, &commit(behind));
            assert!(answer == again, "{behind}: another answer");
        }

        // A branch with fewer commits than clients lag behind, and a cancelled prewarm.
        let early = commit("main~57").parse().unwrap();
        assert_eq!(
            rehearse_fetches(&objects, early, &Stop::default()).unwrap(),
            2
        );
        let stopped = Stop::default();
        stopped.stop();
        assert!(rehearse_fetches(&objects, head, &stopped).is_err());

        git.ok(&["tag", "light", "main"], &bare);
        git.ok(&["tag", "-a", "-m", "first", "heavy", "main"], &bare);
        git.ok(&["tag", "-a", "-m", "second", "heavier", "heavy"], &bare);
        let tips = ["light", "heavy", "heavier"].map(|tag| {
            let id = git.ok(&["rev-parse", tag], &bare);
            id.trim().parse().unwrap()
        });
        let tags = rehearse_tags(&objects_of(&bare), &tips, &Stop::default());
        assert_eq!(tags.unwrap(), 2);
        assert!(rehearse_tags(&objects, &tips, &stopped).is_err());
    });
}
