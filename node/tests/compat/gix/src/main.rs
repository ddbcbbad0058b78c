//! The network operations of gix, one a call: the operation and its arguments come on the command
//! line.

use std::error::Error;
use std::io::Write;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;

use base64::Engine;
use gix::progress::Discard;
use gix::remote::Direction;
use gix::remote::fetch::Shallow;

type Done = Result<(), Box<dyn Error>>;

/// Never set: no operation is interrupted.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Contains the version of gix.
const LOCK: &str = include_str!("../Cargo.lock");

fn depth(text: &str) -> Result<Shallow, Box<dyn Error>> {
    Ok(Shallow::DepthAtRemote(text.parse::<NonZeroU32>()?))
}

/// The URL without its account, and the setting that sends the account: gix itself gives no
/// password to plain HTTP.
fn without_account(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let Some((account, host)) = rest.split_once('@') else {
        return (url.to_owned(), None);
    };
    let basic = base64::engine::general_purpose::STANDARD.encode(account);
    let header = format!("Authorization: Basic {basic}");
    (format!("{scheme}://{host}"), Some(header))
}

fn options(header: Option<&str>) -> gix::open::Options {
    let account = header.map(|header| format!("http.extraHeader={header}"));
    let committer = ["user.name=A", "user.email=a@example.invalid"].map(str::to_owned);
    gix::open::Options::default().config_overrides(committer.into_iter().chain(account))
}

fn clone(url: &str, directory: &str, shallow: Shallow) -> Done {
    let (url, header) = without_account(url);
    let mut clone = gix::clone::PrepareFetch::new(
        url,
        directory,
        gix::create::Kind::WithWorktree,
        gix::create::Options::default(),
        options(header.as_deref()),
    )?
    .with_shallow(shallow);
    let (mut checkout, _) = clone.fetch_then_checkout(Discard, &INTERRUPTED)?;
    let (repo, _) = checkout.main_worktree(Discard, &INTERRUPTED)?;
    if let Some(header) = header {
        // For later fetches, which get no URL.
        let path = repo.git_dir().join("config");
        let mut config = std::fs::OpenOptions::new().append(true).open(path)?;
        writeln!(config, "[http]\n\textraHeader = \"{header}\"")?;
    }
    Ok(())
}

fn fetch(directory: &str, shallow: Shallow) -> Done {
    let repo = gix::open_opts(directory, options(None))?;
    let remote = repo.find_remote("origin")?;
    let connection = remote.connect(Direction::Fetch)?;
    let fetch = connection.prepare_fetch(Discard, Default::default())?;
    fetch.with_shallow(shallow).receive(Discard, &INTERRUPTED)?;
    Ok(())
}

fn list(url: &str) -> Done {
    let (url, header) = without_account(url);
    let place = std::env::current_dir()?.join("gix-lists.git");
    if !place.exists() {
        gix::init_bare(&place)?;
    }
    let repo = gix::open_opts(&place, options(header.as_deref()))?;
    let remote = repo.remote_at(url)?;
    // With the filter, gix requests only tags for `refs/*`.
    let options = gix::remote::ref_map::Options {
        prefix_from_spec_as_filter_on_remote: false,
        ..Default::default()
    };
    let connection = remote.connect(Direction::Fetch)?;
    let (map, _) = connection.ref_map(Discard, options)?;
    for known in &map.remote_refs {
        let (name, id, _) = known.unpack();
        if let Some(id) = id {
            println!("{id}\t{name}");
        }
    }
    Ok(())
}

fn version() -> Done {
    let package = LOCK
        .split("[[package]]")
        .find(|package| package.contains("name = \"gix\"\n"));
    let version = package.and_then(|package| package.split('"').nth(3));
    println!("{}", version.ok_or("Cargo.lock does not name gix")?);
    Ok(())
}

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["version"] => version(),
        ["clone", url, directory] => clone(url, directory, Shallow::NoChange),
        ["clone", url, directory, depth_wanted] => clone(url, directory, depth(depth_wanted)?),
        ["fetch", directory] => fetch(directory, Shallow::NoChange),
        ["deepen", directory, depth_wanted] => fetch(directory, depth(depth_wanted)?),
        ["ls", url] => list(url),
        _ => Err("version | clone URL DIRECTORY [DEPTH] | fetch DIRECTORY | deepen DIRECTORY DEPTH | ls URL".into()),
    }
}
