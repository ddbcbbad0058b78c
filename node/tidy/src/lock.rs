//! The lock file: banned packages, and the number of packages.

use toml::Table;

/// The largest number of packages in the lock file: each is code to trust and to compile in every
/// cold build. A higher number needs a reason in the commit.
pub const PACKAGES_MAX: usize = 440;

/// Packages that are banned for every platform and feature.
const BANNED: &[(&str, &str)] = &[
    (
        "aws-lc-rs",
        "TLS runs on ring; it needs a C toolchain and cmake",
    ),
    (
        "aws-lc-sys",
        "TLS runs on ring; it needs a C toolchain and cmake",
    ),
    (
        "aws-lc-fips-sys",
        "TLS runs on ring; it needs a C toolchain and cmake",
    ),
    ("native-tls", "TLS is rustls"),
    ("openssl", "TLS is rustls"),
    ("openssl-src", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
];

/// Violations in the lock file `text`.
///
/// # Errors
/// When it does not parse.
pub fn violations(text: &str, packages_max: usize) -> Result<Vec<String>, String> {
    let lock: Table = text
        .parse()
        .map_err(|error| format!("Cargo.lock: {error}"))?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .ok_or("Cargo.lock: no packages")?;
    let mut found = Vec::new();
    for package in packages {
        let name = package.get("name").and_then(toml::Value::as_str);
        if let Some((name, why)) = BANNED.iter().find(|(banned, _)| Some(*banned) == name) {
            found.push(format!("Cargo.lock names {name}: {why}"));
        }
        let source = package.get("source").and_then(toml::Value::as_str);
        if let Some(source) = source
            && source.starts_with("git+")
        {
            let name = name.unwrap_or("?");
            found.push(format!(
                "Cargo.lock takes {name} from {source}: use a registry"
            ));
        }
    }
    if packages.len() > packages_max {
        found.push(format!(
            "Cargo.lock names {} packages, {packages_max} are allowed: drop a dependency or a \
             feature, or raise PACKAGES_MAX with a reason",
            packages.len()
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_packages_git_sources_and_a_broken_budget_are_found() {
        let text = "[[package]]\nname = \"aws-lc-sys\"\nversion = \"1\"\n\
                    [[package]]\nname = \"x\"\nversion = \"1\"\nsource = \"git+https://e/x\"\n";
        let found = violations(text, 1).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(violations("[[package]]\nname = \"a\"\n", 1), Ok(vec![]));
    }
}
