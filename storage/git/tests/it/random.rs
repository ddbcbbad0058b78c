//! Random histories: merges, renames, copies, reverts, deletions, submodules, modes; pushed and
//! fetched step by step.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::process::Stdio;

use crate::{Git, for_each_git_and_format};

/// Commits of one history.
const COMMITS: usize = 40;

/// xorshift64*: the same numbers in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap() % bound
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let parts: Vec<_> = (0..depth)
            .map(|level| format!("{}{}", ["d", "e", "f"][level], self.below(4)))
            .collect();
        format!("{}/file-{}", parts.join("/"), self.below(5))
    }
}

/// The content of every path.
type Files = BTreeMap<String, String>;

fn change_files(numbers: &mut Numbers, mark: usize, trees: &[Files], files: &mut Files) {
    for _ in 0..=numbers.below(3) {
        let path = numbers.path();
        let lines: String = (0..numbers.below(60))
            .map(|line| format!("line {} {}\n", line, line / (1 + mark % 7)))
            .collect();
        match numbers.below(6) {
            // A copy or rename from anywhere in history: not at the same path in any parent.
            0 => {
                let from = &trees[numbers.below(trees.len())];
                if let Some(content) = from.values().nth(numbers.below(from.len().max(1))) {
                    let content = content.clone();
                    files.insert(path, content);
                }
            }
            1 => {
                let name = files.keys().next().cloned();
                if let Some(name) = name {
                    files.remove(&name);
                }
            }
            // A return to an earlier state.
            2 => *files = trees[numbers.below(trees.len())].clone(),
            _ => {
                files.insert(path, format!("{lines}{}\n", numbers.below(1000)));
            }
        }
    }
}

/// A stream for `git fast-import`: `commits` commits on a handful of branches.
pub(crate) fn history(git: &Git, numbers: &mut Numbers, commits: usize) -> String {
    let mut stream = String::new();
    let mut trees: Vec<Files> = vec![BTreeMap::new()];
    for mark in 1..=commits {
        let parent = if mark == 1 {
            0
        } else {
            1 + numbers.below((mark - 1).min(6))
        };
        let parent = if mark == 1 { 0 } else { mark - parent };
        let merged = (mark > 4 && numbers.below(5) == 0).then(|| 1 + numbers.below(mark - 1));
        let mut files = trees[parent].clone();
        change_files(numbers, mark, &trees, &mut files);
        let branch = numbers.below(4);
        writeln!(stream, "reset refs/heads/b{branch}").unwrap();
        if parent > 0 {
            writeln!(stream, "from :{parent}\n").unwrap();
        }
        writeln!(stream, "commit refs/heads/b{branch}\nmark :{mark}").unwrap();
        writeln!(
            stream,
            "committer C <c@example.org> {} +0000",
            1_700_000_000 + mark
        )
        .unwrap();
        let message = format!("commit {mark}");
        writeln!(stream, "data {}\n{message}", message.len()).unwrap();
        if parent > 0 {
            writeln!(stream, "from :{parent}").unwrap();
        }
        if let Some(merged) = merged.filter(|merged| *merged != parent) {
            writeln!(stream, "merge :{merged}").unwrap();
        }
        writeln!(stream, "deleteall").unwrap();
        for (path, content) in &files {
            let mode = if content.len() % 5 == 0 {
                "100755"
            } else {
                "100644"
            };
            writeln!(
                stream,
                "M {mode} inline {path}\ndata {}\n{content}",
                content.len()
            )
            .unwrap();
        }
        writeln!(stream, "M 160000 {} module", git.absent()).unwrap();
        trees.push(files);
        if numbers.below(4) == 0 {
            writeln!(
                stream,
                "tag v{mark}\nfrom :{mark}\ntagger C <c@example.org> 1 +0000\ndata 1\nx"
            )
            .unwrap();
        }
        writeln!(stream, "reset refs/all/{mark}\nfrom :{mark}\n").unwrap();
    }
    stream
}

#[test]
fn random_histories_arrive_as_they_are() {
    for_each_git_and_format(|server, git| {
        for seed in 1..=2_u64 {
            let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let source = server.path(&format!("source-{seed}"));
            git.ok(
                &["init", "-q", "--bare", source.to_str().unwrap()],
                server.dir.path(),
            );
            let mut import = git
                .command(&["fast-import", "--quiet"], &source)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let stream = history(git, &mut numbers, COMMITS);
            import
                .stdin
                .take()
                .unwrap()
                .write_all(stream.as_bytes())
                .unwrap();
            assert!(import.wait().unwrap().success(), "seed {seed}");
            git.ok(&["repack", "-adfq", "--depth=20"], &source);
            let (bare, url) = server.repo(git, &format!("random-{seed}.git"));
            let (copy, shallow) = (format!("copy-{seed}"), format!("shallow-{seed}"));
            git.ok(&["clone", "-q", "--mirror", &url, &copy], server.dir.path());
            let (copy, shallow) = (server.path(&copy), server.path(&shallow));
            git.ok(
                &["init", "-q", "--bare", shallow.to_str().unwrap()],
                server.dir.path(),
            );
            let mut next = 1;
            while next <= COMMITS {
                // A few commits at a time, to any branch, forced: former tips become unreachable
                // too.
                let last = (next + numbers.below(8)).min(COMMITS);
                let targets: BTreeMap<_, _> =
                    (next..=last).map(|mark| (numbers.below(5), mark)).collect();
                let refspecs: Vec<_> = targets
                    .iter()
                    .map(|(branch, mark)| format!("+refs/all/{mark}:refs/heads/x{branch}"))
                    .collect();
                let mut push = vec!["push", "-q", &url];
                push.extend(refspecs.iter().map(String::as_str));
                git.ok(&push, &source);
                next = last + 1;
                if numbers.below(3) == 0 {
                    git.ok(&["repack", "-adq"], &bare);
                }
                git.ok(&["fetch", "-q", "--prune", "origin"], &copy);
                git.fsck(&copy);
                assert_eq!(
                    git.ok(&["for-each-ref"], &copy),
                    git.ok(&["for-each-ref"], &bare)
                );
                let depth = format!("--depth={}", 1 + numbers.below(5));
                git.ok(
                    &["fetch", "-q", &depth, &url, "+refs/heads/*:refs/heads/*"],
                    &shallow,
                );
                git.fsck(&shallow);
            }
            git.ok(&["push", "-q", "--mirror", &url], &source);
            git.ok(&["fetch", "-q", "--prune", "origin"], &copy);
            let objects = git.objects(&copy);
            assert_eq!(objects, git.objects(&source), "seed {seed}");
            assert!(objects.len() > 4 * COMMITS, "seed {seed} made too little");
            git.ok(
                &[
                    "fetch",
                    "-q",
                    "--unshallow",
                    &url,
                    "+refs/heads/*:refs/heads/*",
                ],
                &shallow,
            );
            git.fsck(&shallow);
            git.fsck(&bare);
        }
    });
}
