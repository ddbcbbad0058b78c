//! Random requests of both protocols.

use henge_types::ObjectFormat;

use super::{COMMITS, FLUSH, INFINITE, Source};
use crate::random::Numbers;
use crate::raw::line;

#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) format: ObjectFormat,
    pub(super) two: bool,
    pub(super) wants: Vec<String>,
    pub(super) want_refs: Vec<String>,
    pub(super) haves: Vec<String>,
    pub(super) shallow: Vec<String>,
    /// `deepen…` and `filter` lines.
    pub(super) rules: Vec<String>,
    pub(super) flags: Vec<&'static str>,
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let wants = self.wants.iter().map(|id| format!("want {id}"));
        let haves = self.haves.iter().map(|id| format!("have {id}"));
        let shallow = self.shallow.iter().map(|id| format!("shallow {id}"));
        let rules = self.rules.iter().cloned();
        if self.two {
            body.extend(line("command=fetch"));
            body.extend(line("agent=test"));
            body.extend(line(&format!("object-format={}", self.format)));
            body.extend_from_slice(b"0001");
            let flags = self.flags.iter().map(|flag| (*flag).to_owned());
            let named = self.want_refs.iter().map(|name| format!("want-ref {name}"));
            let lines = flags
                .chain(wants)
                .chain(named)
                .chain(haves)
                .chain(shallow)
                .chain(rules);
            body.extend(lines.flat_map(|text| line(&format!("{text}\n"))));
            body.extend(line("done\n"));
            body.extend_from_slice(FLUSH);
            return body;
        }
        let mut words = format!(
            " multi_ack_detailed filter side-band-64k {}",
            self.flags.join(" ")
        );
        for want in wants {
            body.extend(line(&format!("{want}{}\n", std::mem::take(&mut words))));
        }
        body.extend(
            shallow
                .chain(rules)
                .flat_map(|text| line(&format!("{text}\n"))),
        );
        body.extend_from_slice(FLUSH);
        body.extend(haves.flat_map(|text| line(&format!("{text}\n"))));
        body.extend(line("done\n"));
        body
    }
}

fn pick<'a, T>(numbers: &mut Numbers, from: &'a [T]) -> &'a T {
    &from[numbers.below(from.len())]
}

fn filter(numbers: &mut Numbers, source: &Source) -> String {
    if numbers.below(6) == 0 {
        return format!("filter sparse:oid={}", source.patterns);
    }
    let simple = [
        "blob:none",
        "blob:limit=100",
        "blob:limit=1k",
        "tree:0",
        "tree:1",
        "tree:2",
        "tree:3",
        "object:type=commit",
        "object:type=tree",
        "object:type=blob",
        "object:type=tag",
        "combine:blob:limit=200+tree:3",
        "combine:tree:2+blob:none",
        "blob:wrong",
    ];
    format!("filter {}", pick(numbers, &simple))
}

#[expect(
    clippy::too_many_lines,
    reason = "one throw of the dice after the other"
)]
pub(super) fn random_request(numbers: &mut Numbers, source: &Source) -> Request {
    let mut request = Request {
        format: source.format,
        two: numbers.below(2) == 0,
        ..Request::default()
    };
    for _ in 0..=numbers.below(2) {
        let want = match numbers.below(10) {
            0 | 1 => pick(numbers, &source.tags).clone(),
            2 | 3 => pick(numbers, &source.commits).id.clone(),
            _ => pick(numbers, &source.branches).0.clone(),
        };
        request.wants.push(want);
    }
    if request.two && numbers.below(5) == 0 {
        request
            .want_refs
            .push(pick(numbers, &source.branches).1.clone());
    }
    let shallow_client = numbers.below(4) == 0;
    if shallow_client {
        let have = numbers.below(source.commits.len());
        request.haves.push(source.commits[have].id.clone());
        let ends = source.ends(have, 1 + numbers.below(4));
        request.shallow = ends
            .iter()
            .map(|end| source.commits[*end].id.clone())
            .collect();
    } else {
        for _ in 0..numbers.below(3) {
            request
                .haves
                .push(pick(numbers, &source.commits).id.clone());
        }
    }
    let mut starts_there = false;
    match numbers.below(8) {
        0 | 1 => request
            .rules
            .push(format!("deepen {}", 1 + numbers.below(5))),
        2 => request.rules.push(format!(
            "deepen-since {}",
            1_700_000_000 + numbers.below(COMMITS)
        )),
        3 => request
            .rules
            .push(format!("deepen-not {}", pick(numbers, &source.branches).1)),
        4 if shallow_client => {
            request.rules.push(format!("deepen {INFINITE}"));
            starts_there = true;
        }
        5 if shallow_client => {
            request
                .rules
                .push(format!("deepen {}", 1 + numbers.below(3)));
            request.flags.push("deepen-relative");
            starts_there = true;
        }
        6 if numbers.below(3) == 0 => {
            request.rules.push("deepen-not refs/heads/none".to_owned());
        }
        7 if numbers.below(4) == 0 => {
            request.rules.push("deepen 2".to_owned());
            request.rules.push("deepen-since 1700000010".to_owned());
        }
        _ => {}
    }
    // This server deepens only history that is reachable from a want; git deepens all visible
    // history.
    if starts_there {
        let have = request.haves[0].clone();
        request.wants.push(have);
    }
    if numbers.below(3) == 0 {
        request.rules.push(filter(numbers, source));
    }
    // Objects by name, as in lazy fetches.
    if request.rules.iter().all(|rule| !rule.starts_with("deepen")) && numbers.below(4) == 0 {
        for _ in 0..=numbers.below(5) {
            let list = if numbers.below(2) == 0 {
                &source.trees
            } else {
                &source.blobs
            };
            request.wants.push(pick(numbers, list).clone());
        }
    }
    if numbers.below(20) == 0 {
        request.wants.push("1".repeat(source.format.hex_bytes()));
    }
    for flag in ["thin-pack", "ofs-delta", "include-tag", "no-progress"] {
        if numbers.below(2) == 0 {
            request.flags.push(flag);
        }
    }
    request
}
