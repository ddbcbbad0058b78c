//! Requests of git's protocol v2 as stock git sends them, sent by curl, whose own work is
//! negligible.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use henge_runtime::random_bytes;

use crate::chain::Chain;
use crate::process::Program;

/// A request body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) name: &'static str,
    command: &'static str,
    arguments: Vec<String>,
}

impl Request {
    pub(crate) fn ls_refs(name: &'static str) -> Self {
        let arguments = ["peel", "symrefs", "unborn"].map(str::to_owned);
        Self {
            name,
            command: "ls-refs",
            arguments: arguments.to_vec(),
        }
    }

    /// The request of `git clone`, with `more` arguments.
    pub(crate) fn fetch(name: &'static str, more: &[&str], wants: &BTreeSet<String>) -> Self {
        let fixed = ["thin-pack", "no-progress", "include-tag", "ofs-delta"];
        let mut arguments: Vec<_> = fixed
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect();
        arguments.extend(wants.iter().map(|id| format!("want {id}")));
        Self {
            name,
            command: "fetch",
            arguments,
        }
    }

    pub(crate) fn have(mut self, id: &str) -> Self {
        self.arguments.push(format!("have {id}"));
        self
    }

    /// The same with an unknown commit: a different request at the same cost for a server.
    pub(crate) fn varied(&self) -> Self {
        let bytes = random_bytes();
        let mut id = String::new();
        for byte in bytes.iter().chain(&bytes[..4]) {
            write!(id, "{byte:02x}").expect("invariant: a string takes every write");
        }
        match self.command {
            "fetch" => self.clone().have(&id),
            // Prefixes restrict a listing: these match everything in another notation.
            _ => {
                let mut varied = self.clone();
                varied.arguments.push("ref-prefix refs/".to_owned());
                varied.arguments.push("ref-prefix HEAD".to_owned());
                varied.arguments.push(format!("ref-prefix refs/{id}"));
                varied
            }
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut body = String::new();
        let mut line = |text: &str| {
            writeln!(body, "{:04x}{text}", text.len() + 5)
                .expect("invariant: a string takes every write");
        };
        line(&format!("command={}", self.command));
        line("agent=git/bench");
        line("object-format=sha1");
        body.push_str("0001");
        let mut line = |text: &str| {
            writeln!(body, "{:04x}{text}", text.len() + 5)
                .expect("invariant: a string takes every write");
        };
        for argument in &self.arguments {
            line(argument);
        }
        if self.command == "fetch" {
            line("done");
        }
        body.push_str("0000");
        body.into_bytes()
    }
}

/// Ref updates in the format of stock git, prepared in advance so that curl only sends them.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    body: Vec<u8>,
}

impl Push {
    /// Creates refs with these names at a commit that the server has, atomically.
    pub(crate) fn new_refs(id: &str, names: impl Iterator<Item = String>) -> Self {
        let mut body = Vec::new();
        for (number, name) in names.enumerate() {
            let capabilities = match number {
                0 => "\0report-status atomic object-format=sha1",
                _ => "",
            };
            let line = format!("{} {id} {name}{capabilities}", "0".repeat(id.len()));
            body.extend(format!("{:04x}{line}", line.len() + 4).into_bytes());
        }
        body.extend(b"0000");
        body.extend(EMPTY_PACK);
        Self { body }
    }

    /// Pushes the next commit of a chain.
    pub(crate) fn next_of(chain: &mut Chain) -> anyhow::Result<Self> {
        let body = chain.next_push()?;
        Ok(Self { body })
    }
}

/// A pack of no objects and its checksum: git sends it when the server has all objects.
const EMPTY_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\
    \x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";

/// Sends requests to one repository.
#[derive(Debug, Clone)]
pub(crate) struct Curl {
    url: String,
    dir: PathBuf,
}

impl Curl {
    /// `url` with user and password; bodies are stored in `dir`.
    pub(crate) fn new(url: &str, dir: &Path) -> Self {
        Self {
            url: url.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// Sends one request; returns the number of received bytes.
    pub(crate) async fn send(&self, request: &Request) -> anyhow::Result<u64> {
        self.send_all(std::slice::from_ref(request)).await
    }

    /// Sends requests one after the other over one connection; returns the number of bytes received
    /// for the last one.
    pub(crate) async fn send_all(&self, requests: &[Request]) -> anyhow::Result<u64> {
        let folder = tempfile::tempdir_in(&self.dir).context("cannot make a folder")?;
        let mut posts = Vec::with_capacity(requests.len());
        for (number, request) in requests.iter().enumerate() {
            let body = folder.path().join(number.to_string());
            std::fs::write(&body, request.body()).context("cannot write a request")?;
            posts.push(self.post("upload-pack", &body, Path::new("/dev/null")));
        }
        self.run(folder.path(), &posts).await
    }

    /// Sends pushes one after the other over one connection. Fails unless all were accepted.
    pub(crate) async fn push_all(&self, pushes: &[Push]) -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in(&self.dir).context("cannot make a folder")?;
        let report = |number: usize| folder.path().join(format!("{number}.report"));
        let mut posts = Vec::with_capacity(pushes.len());
        for (number, push) in pushes.iter().enumerate() {
            let body = folder.path().join(number.to_string());
            std::fs::write(&body, &push.body).context("cannot write a push")?;
            posts.push(self.post("receive-pack", &body, &report(number)));
        }
        self.run(folder.path(), &posts).await?;
        for number in 0..pushes.len() {
            let report = std::fs::read(report(number)).context("a push has no report")?;
            let report = String::from_utf8_lossy(&report);
            ensure!(
                report.starts_with("000eunpack ok\n") && !report.contains("ng refs/"),
                "a push was refused: {}",
                report.lines().take(3).collect::<Vec<_>>().join(" ")
            );
        }
        Ok(())
    }

    /// Runs a list of requests; returns the number of bytes received for the last one.
    async fn run(&self, folder: &Path, posts: &[String]) -> anyhow::Result<u64> {
        let list = folder.join("curl");
        std::fs::write(&list, posts.join("next\n")).context("cannot write a list")?;
        let sent = Program::new("curl").arg("--config").arg(&list).output(b"");
        // curl's messages contain the URL, and the URL a token.
        let answers = sent.await.map_err(|_| anyhow::anyhow!("curl failed"))?;
        let mut last = 0;
        for answer in answers.lines() {
            let (code, bytes) = answer.split_once(' ').context("curl said nothing")?;
            ensure!(code == "200", "a request was answered with {code}");
            last = bytes.trim().parse()?;
        }
        ensure!(
            answers.lines().count() == posts.len(),
            "answers are missing"
        );
        Ok(last)
    }

    /// One request in a list for curl's `--config`.
    fn post(&self, service: &str, body: &Path, output: &Path) -> String {
        format!(
            "url = \"{}/git-{service}\"\ndata-binary = \"@{}\"\noutput = \"{}\"\nsilent\nshow-error\n\
             header = \"Git-Protocol: version=2\"\nheader = \"Expect:\"\n\
             header = \"Content-Type: application/x-git-{service}-request\"\n\
             write-out = \"%{{http_code}} %{{size_download}}\\n\"\n",
            self.url,
            body.display(),
            output.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_framed() {
        let wants = BTreeSet::from(["1".repeat(40)]);
        let request = Request::fetch("clone", &["deepen 1"], &wants);
        let body = String::from_utf8(request.body()).expect("text");
        assert!(body.starts_with("0012command=fetch\n"), "{body}");
        assert!(body.contains("0001000ethin-pack\n"), "{body}");
        assert!(body.ends_with("0009done\n0000"), "{body}");
        assert_ne!(request.body(), request.varied().body());
    }
}
