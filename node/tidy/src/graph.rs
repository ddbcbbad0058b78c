//! The dependency graph: edges between our crates, owners of libraries, and the purity wall.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The allowed dependencies of each of our crates. A crate without a row is a violation.
/// Dependencies point down only; no crate depends on the binary, on the benches or on this crate.
const ALLOWED_EDGES: &[(&str, &[&str])] = &[
    ("henge-types", &[]),
    ("henge-runtime", &[]),
    ("henge-tidy", &["henge-types"]),
    ("henge-state", &["henge-types"]),
    ("henge-auth", &["henge-types"]),
    ("henge-client", &["henge-types"]),
    ("henge-proto", &["henge-types"]),
    ("henge-storage", &["henge-types", "henge-runtime"]),
    (
        "henge-git",
        &["henge-types", "henge-runtime", "henge-storage"],
    ),
    (
        "henge-git-client",
        &["henge-types", "henge-runtime", "henge-git"],
    ),
    (
        "henge-cluster",
        &[
            "henge-types",
            "henge-runtime",
            "henge-state",
            "henge-storage",
            "henge-proto",
        ],
    ),
    (
        "henge-repos",
        &[
            "henge-types",
            "henge-runtime",
            "henge-state",
            "henge-storage",
            "henge-git",
            "henge-cluster",
            "henge-git-client",
        ],
    ),
    (
        "henge-api",
        &[
            "henge-types",
            "henge-runtime",
            "henge-auth",
            "henge-git",
            "henge-cluster",
            "henge-repos",
            "henge-client",
        ],
    ),
    (
        "henge-cli",
        &[
            "henge-types",
            "henge-runtime",
            "henge-client",
            "henge-git",
            "henge-git-client",
        ],
    ),
    ("henge-jepsen", &["henge-types", "henge-client"]),
    (
        "henge-benches",
        &[
            "henge-types",
            "henge-runtime",
            "henge-state",
            "henge-storage",
            "henge-git",
            "henge-cluster",
            "henge-client",
        ],
    ),
    (
        "henge",
        &[
            "henge-types",
            "henge-runtime",
            "henge-state",
            "henge-storage",
            "henge-git-client",
            "henge-git",
            "henge-proto",
            "henge-client",
            "henge-cluster",
            "henge-repos",
            "henge-api",
            "henge-cli",
        ],
    ),
];

/// Edges that only tests may have, on top of [`ALLOWED_EDGES`].
const TEST_EDGES: &[(&str, &[&str])] = &[(
    "henge-api",
    &["henge-state", "henge-storage", "henge-proto"],
)];

/// The reach of a rule about a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applies {
    /// Shipped code; tests may name the library.
    Shipped,
    /// Shipped code and tests.
    Everywhere,
}

struct Ownership {
    /// The library; a trailing `*` stands for every library with that prefix.
    library: &'static str,
    owners: &'static [&'static str],
    applies: Applies,
    why: &'static str,
}

const OWNERSHIP: &[Ownership] = &[
    Ownership {
        library: "openraft*",
        owners: &["henge-cluster"],
        applies: Applies::Everywhere,
        why: "cluster adapts storage's plain log and kv to it",
    },
    Ownership {
        library: "sled",
        owners: &["henge-storage"],
        applies: Applies::Everywhere,
        why: "it stands behind storage's kv trait",
    },
    Ownership {
        library: "prost*",
        owners: &["henge-proto", "henge-cluster", "henge-benches"],
        applies: Applies::Everywhere,
        why: "protobuf is known where messages are converted and carried; the benches write to etcd",
    },
    Ownership {
        library: "tonic*",
        owners: &["henge-proto", "henge-cluster", "henge-benches"],
        applies: Applies::Everywhere,
        why: "gRPC is known where messages are converted and carried; the benches write to etcd",
    },
    Ownership {
        library: "quinn*",
        owners: &["henge-cluster"],
        applies: Applies::Shipped,
        why: "the bulk transport hides it",
    },
    Ownership {
        library: "gix*",
        owners: &["henge-git"],
        applies: Applies::Shipped,
        why: "it changes often: one crate wraps it",
    },
    Ownership {
        library: "clap*",
        owners: &["henge", "henge-cli", "henge-benches", "henge-jepsen"],
        applies: Applies::Shipped,
        why: "only programs have a command line",
    },
    Ownership {
        library: "anyhow",
        owners: &["henge", "henge-cli", "henge-benches", "henge-jepsen"],
        applies: Applies::Shipped,
        why: "libraries have errors that callers can tell apart",
    },
];

/// The crates below the purity wall.
pub const PURE_CRATES: &[&str] = &["henge-types", "henge-state", "henge-auth", "henge-plan"];

/// Libraries that a pure crate must not reach, at any distance.
const IMPURE_LIBRARIES: &[&str] = &[
    "axum*",
    "hyper*",
    "mio",
    "openraft*",
    "quinn*",
    "reqwest",
    "rustls*",
    "sled",
    "socket2",
    "tokio*",
    "tonic*",
];

fn names(pattern: &str, library: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => library.starts_with(prefix),
        None => library == pattern,
    }
}

/// The user of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The crate itself, or its build script.
    Shipped,
    /// Its tests.
    Test,
}

/// The workspace's crates and all packages that they reach.
#[derive(Debug, Default)]
pub struct Graph {
    members: BTreeSet<String>,
    declared: BTreeMap<String, BTreeSet<(String, Kind)>>,
    resolved: BTreeMap<String, BTreeSet<String>>,
    names: BTreeMap<String, String>,
    directories: BTreeMap<String, String>,
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("cargo metadata: no text {key:?}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .ok_or_else(|| format!("cargo metadata: no list {key:?}"))
}

impl Graph {
    /// Parses the output of `cargo metadata --format-version 1`.
    ///
    /// # Errors
    /// When the text is not JSON or lacks a part; the message names the part.
    pub fn parse(metadata: &str) -> Result<Self, String> {
        let metadata: Value = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
        let mut graph = Self::default();
        let root = text(&metadata, "workspace_root")?;
        let members: BTreeSet<&str> = list(&metadata, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for package in list(&metadata, "packages")? {
            let (id, name) = (text(package, "id")?, text(package, "name")?);
            graph.names.insert(id.to_owned(), name.to_owned());
            if !members.contains(id) {
                continue;
            }
            graph.members.insert(name.to_owned());
            let manifest = text(package, "manifest_path")?;
            let directory = manifest.trim_start_matches(root).trim_matches('/');
            let directory = directory.trim_end_matches("Cargo.toml").trim_matches('/');
            graph
                .directories
                .insert(name.to_owned(), directory.to_owned());
            for dependency in list(package, "dependencies")? {
                let kind = match dependency.get("kind").and_then(Value::as_str) {
                    Some("dev") => Kind::Test,
                    _ => Kind::Shipped,
                };
                let edge = (text(dependency, "name")?.to_owned(), kind);
                graph
                    .declared
                    .entry(name.to_owned())
                    .or_default()
                    .insert(edge);
            }
        }
        graph.read_resolve(&metadata)?;
        Ok(graph)
    }

    fn read_resolve(&mut self, metadata: &Value) -> Result<(), String> {
        let resolve = metadata
            .get("resolve")
            .ok_or("cargo metadata: no resolve")?;
        for node in list(resolve, "nodes")? {
            let mut edges = BTreeSet::new();
            for dependency in list(node, "deps")? {
                let only_tests = list(dependency, "dep_kinds")?
                    .iter()
                    .all(|kind| kind.get("kind").and_then(Value::as_str) == Some("dev"));
                if !only_tests {
                    edges.insert(text(dependency, "pkg")?.to_owned());
                }
            }
            self.resolved.insert(text(node, "id")?.to_owned(), edges);
        }
        Ok(())
    }

    /// The folder of each of our crates, below the root.
    pub fn directories(&self) -> &BTreeMap<String, String> {
        &self.directories
    }

    /// Edges between our crates that point up or sideways.
    pub fn forbidden_edges(&self) -> Vec<String> {
        let table: BTreeMap<_, _> = ALLOWED_EDGES.iter().copied().collect();
        let tests: BTreeMap<_, _> = TEST_EDGES.iter().copied().collect();
        let mut found = Vec::new();
        for member in &self.members {
            let Some(allowed) = table.get(member.as_str()) else {
                found.push(format!(
                    "{member}: not in the table of allowed edges: add it with what it may name"
                ));
                continue;
            };
            for (target, kind) in self.declared.get(member).into_iter().flatten() {
                if !self.members.contains(target) || target == member {
                    continue;
                }
                let in_tests = *kind == Kind::Test
                    && tests
                        .get(member.as_str())
                        .is_some_and(|extra| extra.contains(&target.as_str()));
                if !allowed.contains(&target.as_str()) && !in_tests {
                    found.push(format!("{member} must not depend on {target}"));
                }
            }
        }
        found
    }

    /// Libraries that a crate names without owning them.
    pub fn misplaced_libraries(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (member, edges) in &self.declared {
            for (library, kind) in edges {
                for rule in OWNERSHIP {
                    let applies = rule.applies == Applies::Everywhere || *kind == Kind::Shipped;
                    if applies
                        && names(rule.library, library)
                        && !rule.owners.contains(&member.as_str())
                    {
                        let (owners, why) = (rule.owners.join(", "), rule.why);
                        found.push(format!(
                            "{member} names {library}; only {owners} may: {why}"
                        ));
                    }
                }
            }
        }
        found
    }

    /// Impure libraries that a pure crate reaches, with the path to each.
    pub fn impurities(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, name) in &self.names {
            if !self.members.contains(name) || !PURE_CRATES.contains(&name.as_str()) {
                continue;
            }
            let mut ways = BTreeMap::from([(id.clone(), name.clone())]);
            let mut open = vec![id.clone()];
            while let Some(at) = open.pop() {
                let way = ways.get(&at).cloned().unwrap_or_default();
                for next in self.resolved.get(&at).into_iter().flatten() {
                    if ways.contains_key(next) {
                        continue;
                    }
                    let library = self.names.get(next).map_or(next.as_str(), String::as_str);
                    let longer = format!("{way} -> {library}");
                    if IMPURE_LIBRARIES
                        .iter()
                        .any(|pattern| names(pattern, library))
                    {
                        found.push(format!("below the purity wall: {longer}"));
                    }
                    ways.insert(next.clone(), longer);
                    open.push(next.clone());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &Value) -> Value {
        json!({"id": format!("id-{name}"), "name": name,
            "manifest_path": format!("/r/{name}/Cargo.toml"), "dependencies": dependencies})
    }

    fn node(name: &str, dependencies: &[&str], kind: &Value) -> Value {
        let deps: Vec<_> = dependencies
            .iter()
            .map(|to| json!({"pkg": format!("id-{to}"), "dep_kinds": [{"kind": kind}]}))
            .collect();
        json!({"id": format!("id-{name}"), "deps": deps})
    }

    fn graph(packages: &[Value], members: &[&str], nodes: &[Value]) -> Graph {
        let members: Vec<_> = members.iter().map(|name| format!("id-{name}")).collect();
        let metadata = json!({"workspace_root": "/r", "workspace_members": members,
            "packages": packages, "resolve": {"nodes": nodes}});
        Graph::parse(&metadata.to_string()).unwrap()
    }

    #[test]
    fn an_edge_that_points_up_is_found() {
        let up = json!([{"name": "henge-state", "kind": null}]);
        let graph = graph(
            &[
                package("henge-types", &up),
                package("henge-state", &json!([])),
            ],
            &["henge-types", "henge-state"],
            &[],
        );
        assert_eq!(
            graph.forbidden_edges(),
            ["henge-types must not depend on henge-state"]
        );
        assert_eq!(
            graph.directories().get("henge-types").unwrap(),
            "henge-types"
        );
    }

    #[test]
    fn an_unknown_crate_is_found() {
        let graph = graph(&[package("henge-new", &json!([]))], &["henge-new"], &[]);
        assert_eq!(graph.forbidden_edges().len(), 1);
    }

    #[test]
    fn a_library_in_the_wrong_crate_is_found_also_in_tests() {
        let edges = json!([{"name": "openraft", "kind": "dev"}, {"name": "anyhow", "kind": "dev"}]);
        let graph = graph(&[package("henge-api", &edges)], &["henge-api"], &[]);
        let found = graph.misplaced_libraries();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("henge-api names openraft"));
    }

    #[test]
    fn a_runtime_two_steps_below_the_wall_is_found_with_the_way_there() {
        let packages = [
            package("henge-state", &json!([])),
            package("innocent", &json!([])),
            package("tokio", &json!([])),
        ];
        let shipped = [
            node("henge-state", &["innocent"], &Value::Null),
            node("innocent", &["tokio"], &Value::Null),
        ];
        assert_eq!(
            graph(&packages, &["henge-state"], &shipped).impurities(),
            ["below the purity wall: henge-state -> innocent -> tokio"]
        );
        let tests_only = [
            node("henge-state", &["innocent"], &json!("dev")),
            node("innocent", &["tokio"], &Value::Null),
        ];
        assert!(
            graph(&packages, &["henge-state"], &tests_only)
                .impurities()
                .is_empty()
        );
    }
}
