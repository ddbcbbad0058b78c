//! Requests to a server that serves objects.

use henge_git::{Protocol, PushLimits};

use super::{
    BRANCH, EARLY, Objects, chain_pack, command, fetch, large_trees, lines, place_with, wide,
};
use crate::bounds::Hostile;
use crate::inputs::{Id, Kind, Place, hex, line, object_id, tag_text, with_trailer};

pub(super) fn wants_that_are_not_there() -> Hostile {
    let wants = lines(|number| format!("want {number:040x}\n"));
    fetch(Place::new(), Protocol::V2, command("fetch", wants))
}

/// A place with a chain of commits, each a delta on the one before; returns their ids too.
fn commits(number: usize) -> (Place, Vec<Id>) {
    let tree = object_id(Kind::Tree, b"");
    let mut objects = Objects::default();
    objects.add(Kind::Tree, Vec::new());
    let mut ids: Vec<Id> = Vec::new();
    for _ in 0..number {
        let parents: Vec<Id> = ids.last().copied().into_iter().collect();
        ids.push(objects.commit(&tree, &parents));
    }
    let place = place_with(BRANCH, *ids.last().unwrap(), &objects.pack());
    (place, ids)
}

pub(super) fn haves() -> Hostile {
    let (place, ids) = commits(100);
    let want = hex(ids.last().unwrap());
    let have = |number: usize| format!("have {}\n", hex(&ids[number % ids.len()]));
    let lines = [format!("want {want}\n")].into_iter().chain(lines(have));
    let request = command("fetch", lines);
    fetch(place, Protocol::V2, request)
}

pub(super) fn haves_of_the_first_protocol() -> Hostile {
    let (place, ids) = commits(100);
    let mut request = line(format!("want {}\n", hex(ids.last().unwrap())).as_bytes());
    request.extend(b"0000");
    for text in lines(|number| format!("have {}\n", hex(&ids[number % ids.len()]))) {
        request.extend(line(text.as_bytes()));
    }
    request.extend(line(b"done\n"));
    fetch(place, Protocol::V0, request)
}

/// A client on a stream that repeats the end of a negotiation round.
pub(super) fn rounds_of_the_first_protocol() -> Hostile {
    let (place, ids) = commits(2000);
    let words = "multi_ack_detailed side-band-64k";
    let mut request = line(format!("want {} {words}\n", hex(ids.last().unwrap())).as_bytes());
    request.extend(b"0000");
    request.extend(line(format!("have {}\n", hex(&ids[0])).as_bytes()));
    request.extend(b"0000".repeat(1_000_000));
    Hostile {
        run: Box::new(move |stop| drop(place.converse(&request, stop))),
        stops: EARLY,
        ends: true,
    }
}

/// Allowed wants, each read through a chain of four thousand deltas.
pub(super) fn wants_at_the_end_of_a_chain() -> Hostile {
    let (pack, ids) = chain_pack(4095, 4000);
    let mut objects = Objects::default();
    let names: Vec<String> = (0..ids.len())
        .map(|number| format!("{number:05}"))
        .collect();
    let entries: Vec<_> = names
        .iter()
        .zip(&ids)
        .map(|(name, id)| ("100644", name.as_str(), *id))
        .collect();
    let tree = objects.tree(&entries);
    let commit = objects.commit(&tree, &[]);
    // Both packs in one push: no earlier object refers to the chain.
    let place = place_with(BRANCH, commit, &joined(&objects.pack(), &pack));
    let wants = ids.iter().map(|id| format!("want {}\n", hex(id)));
    let request = command("fetch", wants.chain(["done\n".to_owned()]));
    fetch(place, Protocol::V2, request)
}

/// The objects of two packs in one; both packs must be free of ofs-deltas.
fn joined(one: &[u8], other: &[u8]) -> Vec<u8> {
    let count = |pack: &[u8]| u32::from_be_bytes(pack[8..12].try_into().unwrap());
    let mut pack = one[..8].to_vec();
    pack.extend((count(one) + count(other)).to_be_bytes());
    pack.extend(&one[12..one.len() - 20]);
    pack.extend(&other[12..other.len() - 20]);
    with_trailer(&pack)
}

pub(super) fn shallow_lines() -> Hostile {
    let (place, ids) = commits(100);
    let want = format!("want {}\n", hex(ids.last().unwrap()));
    let rest = lines(|number| match number % 2 {
        0 => format!("shallow {}\n", hex(&ids[number / 2 % ids.len()])),
        _ => format!("shallow {number:040x}\n"),
    });
    let asked = ["deepen 2147483646\n", "deepen-relative\n", "done\n"];
    let asked = asked.map(str::to_owned).into_iter();
    let request = command("fetch", [want].into_iter().chain(rest).chain(asked));
    fetch(place, Protocol::V2, request)
}

pub(super) fn deepen_not() -> Hostile {
    let place = Place::new();
    let want = format!("want {}\n", hex(&place.commit_id));
    let names = lines(|_| "deepen-not v1\n".to_owned());
    let request = command("fetch", [want].into_iter().chain(names));
    fetch(place, Protocol::V2, request)
}

pub(super) fn want_refs() -> Hostile {
    let names = lines(|number| format!("want-ref refs/heads/{number:060000}\n"));
    fetch(Place::new(), Protocol::V2, command("fetch", names))
}

pub(super) fn ref_prefixes() -> Hostile {
    let prefixes = lines(|number| format!("ref-prefix refs/{number:06}\n"));
    fetch(Place::new(), Protocol::V2, command("ls-refs", prefixes))
}

/// One request that repeats the same command.
pub(super) fn listings() -> Hostile {
    let one = command("ls-refs", ["peel\n".to_owned()]);
    let request = one.repeat(20_000);
    Hostile {
        ends: false,
        stops: &[1, 3, 100],
        ..fetch(Place::new(), Protocol::V2, request)
    }
}

pub(super) fn object_info() -> Hostile {
    let place = Place::new();
    let id = hex(&place.blob_id);
    let ids = lines(|_| format!("oid {id}\n"));
    let request = command("object-info", ["size\n".to_owned()].into_iter().chain(ids));
    fetch(place, Protocol::V2, request)
}

/// Tags on tags on tags, each with a ref.
pub(super) fn tags_of_tags() -> Hostile {
    let place = Place::new();
    let mut objects = Objects::default();
    let (mut below, mut kind) = (place.commit_id, "commit");
    let mut names: Vec<(Id, String)> = Vec::new();
    for number in 0..2000 {
        below = objects.add(Kind::Tag, tag_text(&below, kind));
        kind = "tag";
        names.push((below, format!("refs/tags/t{number}")));
    }
    let commands: Vec<_> = names
        .iter()
        .map(|(id, name)| (*id, name.as_str()))
        .collect();
    let taken = place.push(&commands, &objects.pack(), &PushLimits::default());
    assert!(taken.is_accepted(), "{taken:?}");
    let mut request = command("ls-refs", ["peel\n".to_owned()]);
    let want = format!("want {}\n", hex(&place.commit_id));
    let lines = [want, "include-tag\n".to_owned(), "done\n".to_owned()];
    request.extend(command("fetch", lines));
    fetch(place, Protocol::V2, request)
}

/// Trees of two entries, both of the tree below: the number of paths is two to the power of the
/// levels.
fn doubling(objects: &mut Objects, leaf: Id, levels: usize) -> Id {
    let mut tree = objects.tree(&[("100644", "a", leaf)]);
    for _ in 0..levels {
        tree = objects.tree(&[("40000", "a", tree), ("40000", "b", tree)]);
    }
    tree
}

/// A fetch of `tree` with the patterns in `list`.
fn sparse(mut objects: Objects, tree: Id, list: &[u8]) -> Hostile {
    let list = objects.add(Kind::Blob, list.to_vec());
    let top = objects.tree(&[("40000", "dir", tree), ("100644", "list", list)]);
    let commit = objects.commit(&top, &[]);
    let place = place_with(BRANCH, commit, &objects.pack());
    let want = format!("want {}\n", hex(&commit));
    let filter = format!("filter sparse:oid={}\n", hex(&list));
    let request = command("fetch", [want, filter, "done\n".to_owned()]);
    fetch(place, Protocol::V2, request)
}

/// Patterns are evaluated for each path, and the number of paths here is unlimited in practice.
pub(super) fn sparse_paths_without_number() -> Hostile {
    let mut objects = Objects::default();
    let leaf = objects.add(Kind::Blob, b"leaf".to_vec());
    let tree = doubling(&mut objects, leaf, 60);
    Hostile {
        ends: false,
        stops: &[1, 3, 1000, 20_000],
        ..sparse(objects, tree, b"/list\n")
    }
}

/// The maximum number of patterns in a list, each as slow as possible, and a long path.
pub(super) fn sparse_patterns() -> Hostile {
    let mut objects = Objects::default();
    let leaf = objects.add(Kind::Blob, b"leaf".to_vec());
    let mut tree = objects.tree(&[("100644", "aaaaaaaaaaaaaaaaaaaa", leaf)]);
    for _ in 0..500 {
        tree = objects.tree(&[("40000", "a", tree)]);
    }
    let pattern = "**/a*a*a/**/a/**/*a/**/?/**/[ab]/**/a/z\n";
    Hostile {
        ends: false,
        stops: &[1, 3, 50],
        ..sparse(objects, tree, pattern.repeat(9000).as_bytes())
    }
}

/// The deepest tree that may be pushed, with its levels at many depths at once.
pub(super) fn tree_depth() -> Hostile {
    let mut objects = Objects::default();
    let leaf = objects.add(Kind::Blob, b"leaf".to_vec());
    let mut tree = objects.tree(&[("100644", "a", leaf)]);
    let mut entries = Vec::new();
    for _ in 0..1000 {
        entries.push(tree);
        // One entry leads one level down, the others further.
        let further = entries[entries.len() / 2];
        tree = objects.tree(&[
            ("40000", "a", tree),
            ("40000", "b", further),
            ("40000", "c", entries[0]),
        ]);
    }
    let commit = objects.commit(&tree, &[]);
    let place = place_with(BRANCH, commit, &objects.pack());
    let want = format!("want {}\n", hex(&commit));
    let filter = "filter combine:tree:900+blob:limit=1m\n".to_owned();
    let request = command("fetch", [want, filter, "done\n".to_owned()]);
    fetch(place, Protocol::V2, request)
}

/// A tree compared with those of many parents; no two paths are compared with the same ones.
pub(super) fn comparisons_without_number() -> Hostile {
    const LEVELS: usize = 24;
    let mut objects = Objects::default();
    let leaf = |objects: &mut Objects, text: &str| objects.add(Kind::Blob, text.into());
    let mut parents = Vec::new();
    for special in 0..LEVELS {
        let (one, two) = (format!("{special} one"), format!("{special} two"));
        let (one, two) = (leaf(&mut objects, &one), leaf(&mut objects, &two));
        let left = doubling(&mut objects, one, special);
        let right = doubling(&mut objects, two, special);
        let mut tree = objects.tree(&[("40000", "a", left), ("40000", "b", right)]);
        for _ in special + 1..LEVELS {
            tree = objects.tree(&[("40000", "a", tree), ("40000", "b", tree)]);
        }
        parents.push(objects.commit(&tree, &[]));
    }
    let wanted = leaf(&mut objects, "wanted");
    let tree = doubling(&mut objects, wanted, LEVELS);
    let tip = objects.commit(&tree, &parents);
    let place = place_with(BRANCH, tip, &objects.pack());
    let haves = parents
        .iter()
        .map(|parent| format!("have {}\n", hex(parent)));
    let lines = [format!("want {}\n", hex(&tip))].into_iter().chain(haves);
    let request = command("fetch", lines.chain(["done\n".to_owned()]));
    fetch(place, Protocol::V2, request)
}

pub(super) fn fetch_of_a_wide_tree() -> Hostile {
    let (commit, pack) = wide("40000", Kind::Tree);
    let place = place_with(BRANCH, commit, &pack);
    let want = format!("want {}\n", hex(&commit));
    let filter = "filter blob:limit=1k\n".to_owned();
    let request = command("fetch", [want.clone(), filter, "done\n".to_owned()]);
    let plain = command("fetch", [want, "done\n".to_owned()]);
    fetch(place, Protocol::V2, [request, plain].concat())
}

pub(super) fn fetch_of_large_trees() -> Hostile {
    let (tip, parents, pack) = large_trees();
    let place = place_with(BRANCH, tip, &pack);
    let haves = parents
        .iter()
        .map(|parent| format!("have {}\n", hex(parent)));
    let lines = [format!("want {}\n", hex(&tip))].into_iter().chain(haves);
    let request = command("fetch", lines.chain(["done\n".to_owned()]));
    fetch(place, Protocol::V2, request)
}
