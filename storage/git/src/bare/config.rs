//! The settings in a repository's own `config` file that a server follows: git-config(1).

mod objects;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use gix_config::file::Metadata;
use gix_config::file::includes::{Options as Includes, conditional};
use gix_config::file::init;
use gix_config::path::interpolate;
use gix_config::{File, Source};

use henge_types::ObjectFormat;

use crate::hidden::HiddenRefs;
use crate::protocol::{AcceptedWants, FetchPolicy};
use crate::push::Rule;
use crate::rules::{ObjectRules, RuleError};

/// The reason for refusing a config file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read or parsed, or a value is not of its kind.
    #[error("{}", reason(.0))]
    Gix(gix_error::Error),
    /// A value that is not among the known ones.
    #[error("{key} cannot be {value:?}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// An invalid setting of a rule for pushed objects.
    #[error("receive.fsck.{name}: {source}")]
    Rule {
        /// Its name.
        name: String,
        /// The reason.
        #[source]
        source: RuleError,
    },
    /// The list of objects exempt from the rules cannot be read.
    #[error("receive.fsck.skipList cannot be read from {}: {source}", .path.display())]
    SkipList {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It requires an unsupported feature.
    #[error("it uses {what}, which is not supported")]
    Unsupported {
        /// The feature.
        what: String,
    },
}

fn reason(error: &gix_error::Error) -> String {
    let (said, cause) = (error.to_string(), error.probable_cause().to_string());
    if said.contains(&cause) {
        return said;
    }
    format!("{said}: {cause}")
}

impl From<gix_error::Error> for ConfigError {
    fn from(error: gix_error::Error) -> Self {
        Self::Gix(error)
    }
}

/// The settings of a repository for serving it. The defaults are git's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `extensions.objectFormat`: the hash algorithm of object ids.
    pub object_format: ObjectFormat,
    /// `core.bare`; `None` if unset.
    pub is_bare: Option<bool>,
    /// `http.uploadpack`: fetches over HTTP.
    pub http_upload_pack: bool,
    /// `http.receivepack`: pushes over HTTP. If unset, git accepts the pushes of authenticated
    /// clients.
    pub http_receive_pack: Option<bool>,
    /// `transfer.hideRefs` and `uploadpack.hideRefs`.
    pub hidden_from_fetches: HiddenRefs,
    /// `transfer.hideRefs` and `receive.hideRefs`.
    pub hidden_from_pushes: HiddenRefs,
    /// `uploadpack.allowTipSHA1InWant`: clients may want the tips of hidden refs.
    pub allow_tip_in_want: bool,
    /// `uploadpack.allowReachableSHA1InWant`: clients may want all objects that any ref reaches.
    pub allow_reachable_in_want: bool,
    /// `uploadpack.allowAnySHA1InWant`: clients may want every object.
    pub allow_any_in_want: bool,
    /// `uploadpack.allowFilter`: partial clones.
    pub allow_filter: bool,
    /// `uploadpack.allowRefInWant`: wants by name.
    pub allow_ref_in_want: bool,
    /// `uploadpack.advertiseBundleURIs`: [`Config::bundles`] are offered.
    pub advertise_bundle_uris: bool,
    /// Everything below `bundle.`, in the form in which git's own server lists it: section and key
    /// in lower case.
    pub bundles: Vec<(String, String)>,
    /// `receive.denyDeletes`.
    pub deletes: Rule,
    /// `receive.denyNonFastForwards`.
    pub non_fast_forwards: Rule,
    /// `receive.denyDeleteCurrent`.
    pub delete_current: Rule,
    /// `receive.denyCurrentBranch`, for branches that are checked out somewhere.
    pub update_checked_out: Rule,
    /// `receive.advertiseAtomic`.
    pub atomic: Rule,
    /// `receive.advertisePushOptions`.
    pub push_options: Rule,
    /// `receive.maxInputSize`: maximum bytes of a pushed pack; `None` if the repository sets no
    /// bound.
    pub pack_bytes_max: Option<u64>,
    /// `receive.fsckObjects`, `transfer.fsckObjects` and `receive.fsck.*`: the checks of pushed
    /// objects; `None` if objects are not checked. An error refuses pushes only.
    pub objects: Result<Option<Arc<ObjectRules>>, String>,
    /// `receive.certNonceSeed`: enables signed pushes, whose nonces are made with it.
    pub cert_nonce_seed: Option<NonceSeed>,
    /// `receive.certNonceSlop`: seconds for which the nonce of another request is accepted like a
    /// current one.
    pub cert_nonce_slop_s: u64,
}

/// A secret of the repository's administrator. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceSeed(Box<[u8]>);

impl NonceSeed {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NonceSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSeed(…)")
    }
}

impl Config {
    /// Reads the configuration of the repository at `path`, with its included files.
    ///
    /// # Errors
    /// When it cannot be read, a value is malformed, or it requires an unsupported feature.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut file = read_file(path, &path.join("config"))?;
        let object_format = check_format(&file)?;
        if file.boolean("extensions.worktreeConfig")?.unwrap_or(false) {
            file.append(read_file(path, &path.join("config.worktree"))?)?;
        }
        Ok(Self {
            object_format,
            // Fetches ignore these rules, as with git: an error refuses pushes only.
            objects: objects::object_rules(&file, path, object_format)
                .map_err(|error| error.to_string()),
            ..Self::parse(&file)?
        })
    }

    fn parse(file: &File) -> Result<Self, ConfigError> {
        let denied_if = |key, default| -> Result<Rule, ConfigError> {
            let denied = file.boolean(key)?.unwrap_or(default);
            Ok(if denied { Rule::Denied } else { Rule::Allowed })
        };
        let offered = |key, default| -> Result<Rule, ConfigError> {
            let offered = file.boolean(key)?.unwrap_or(default);
            Ok(if offered { Rule::Allowed } else { Rule::Denied })
        };
        let is_on = |key, default| -> Result<bool, ConfigError> {
            Ok(file.boolean(key)?.unwrap_or(default))
        };
        let bytes = file.integer("receive.maxInputSize")?.unwrap_or(0);
        Ok(Self {
            object_format: ObjectFormat::Sha1,
            is_bare: file.boolean("core.bare")?,
            http_upload_pack: is_on("http.uploadpack", true)?,
            http_receive_pack: file.boolean("http.receivepack")?,
            hidden_from_fetches: hidden(file, "uploadpack"),
            hidden_from_pushes: hidden(file, "receive"),
            allow_tip_in_want: is_on("uploadpack.allowTipSHA1InWant", false)?,
            allow_reachable_in_want: is_on("uploadpack.allowReachableSHA1InWant", false)?,
            allow_any_in_want: is_on("uploadpack.allowAnySHA1InWant", false)?,
            allow_filter: is_on("uploadpack.allowFilter", false)?,
            allow_ref_in_want: is_on("uploadpack.allowRefInWant", false)?,
            advertise_bundle_uris: is_on("uploadpack.advertiseBundleURIs", false)?,
            bundles: bundles(file),
            deletes: denied_if("receive.denyDeletes", false)?,
            non_fast_forwards: denied_if("receive.denyNonFastForwards", false)?,
            delete_current: current(file, "receive.denyDeleteCurrent")?,
            update_checked_out: current(file, "receive.denyCurrentBranch")?,
            atomic: offered("receive.advertiseAtomic", true)?,
            push_options: offered("receive.advertisePushOptions", false)?,
            pack_bytes_max: u64::try_from(bytes).ok().filter(|bytes| *bytes > 0),
            objects: Ok(None),
            cert_nonce_seed: nonce_seed(file)?,
            cert_nonce_slop_s: seconds(file, "receive.certNonceSlop")?,
        })
    }

    /// The requests that clients may make.
    pub const fn fetch_policy(&self) -> FetchPolicy {
        FetchPolicy {
            wants: if self.allow_any_in_want {
                AcceptedWants::Any
            } else {
                AcceptedWants::Reachable
            },
            filter: self.allow_filter,
            ref_in_want: self.allow_ref_in_want,
            bundle_uri: self.advertise_bundle_uris,
        }
    }

    /// Whether clients may want the tips of hidden refs by their ids.
    pub fn gives_hidden_tips(&self) -> bool {
        self.allow_tip_in_want || self.allow_reachable_in_want || self.allow_any_in_want
    }
}

fn read_file(repository: &Path, path: &Path) -> Result<File, ConfigError> {
    // Home directories are unknown here: an include below one is an error and is not skipped.
    let conditional = conditional::Context {
        git_dir: Some(repository),
        branch_name: None,
    };
    let options = init::Options {
        includes: Includes::follow(interpolate::Context::default(), conditional).strict(),
        lossy: true,
        ignore_io_errors: false,
    };
    let file = File::from_paths_metadata_buf(
        &mut std::iter::once(Metadata::from(Source::Local).at(path)),
        &mut Vec::new(),
        false,
        options,
    )?;
    Ok(file.unwrap_or_default())
}

fn nonce_seed(file: &File) -> Result<Option<NonceSeed>, ConfigError> {
    let key = "receive.certNonceSeed";
    match file.string_implicit(key) {
        None => Ok(None),
        Some(Some(seed)) => Ok(Some(NonceSeed(seed.to_vec().into()))),
        Some(None) => Err(ConfigError::Value {
            key,
            value: String::new(),
        }),
    }
}

/// A number that is not negative; 0 if unset.
fn seconds(file: &File, key: &'static str) -> Result<u64, ConfigError> {
    let said = file.integer(key)?.unwrap_or(0);
    said.try_into().map_err(|_| ConfigError::Value {
        key,
        value: said.to_string(),
    })
}

/// `transfer.hideRefs` and the `hideRefs` of a service, in the order of the file.
fn hidden(file: &File, service: &str) -> HiddenRefs {
    let mut hidden = HiddenRefs::default();
    for section in file.sections() {
        let header = section.header();
        let name = header.name();
        let counts =
            name.eq_ignore_ascii_case(b"transfer") || name.eq_ignore_ascii_case(service.as_bytes());
        if counts && header.subsection_name().is_none() {
            for pattern in section.values("hideRefs") {
                hidden.push(&pattern);
            }
        }
    }
    hidden
}

/// Everything below `bundle.` that has a value, in the order of the file. Empty values are left
/// out, as in newer versions of git, because clients refuse a list that has them.
fn bundles(file: &File) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for section in file.sections() {
        let header = section.header();
        if !header.name().eq_ignore_ascii_case(b"bundle") {
            continue;
        }
        let id = header.subsection_name();
        let section_key = id.map_or_else(|| "bundle".to_owned(), |id| format!("bundle.{id}"));
        for (name, value) in section.body() {
            if value.is_empty() {
                tracing::warn!(key = name, "a key below bundle. has no value");
                continue;
            }
            let key = format!("{section_key}.{}", name.to_ascii_lowercase());
            found.push((key, value.to_string()));
        }
    }
    found
}

/// `refuse`, `warn`, `ignore`, `updateInstead`, or a boolean; refused if unset.
fn current(file: &File, key: &'static str) -> Result<Rule, ConfigError> {
    let text = match file.string_implicit(key) {
        None | Some(None) => return Ok(Rule::Denied),
        Some(Some(text)) => text.to_string(),
    };
    match text.to_ascii_lowercase().as_str() {
        "ignore" | "warn" => Ok(Rule::Allowed),
        // `updateInstead` changes a work tree; this server changes none.
        "refuse" | "updateinstead" => Ok(Rule::Denied),
        _ => match file.boolean(key) {
            Ok(Some(true) | None) => Ok(Rule::Denied),
            Ok(Some(false)) => Ok(Rule::Allowed),
            Err(_) => Err(ConfigError::Value { key, value: text }),
        },
    }
}

/// The object format. Unknown formats are refused, as by git (gitrepository-layout(5),
/// repository-version).
fn check_format(file: &File) -> Result<ObjectFormat, ConfigError> {
    let unsupported = |what: String| Err(ConfigError::Unsupported { what });
    let version = file.integer("core.repositoryFormatVersion")?.unwrap_or(0);
    if !(0..=1).contains(&version) {
        return unsupported(format!("repository format version {version}"));
    }
    let mut object_format = ObjectFormat::Sha1;
    let sections = file.sections().filter(|section| {
        let header = section.header();
        header.name().eq_ignore_ascii_case(b"extensions") && header.subsection_name().is_none()
    });
    for section in sections {
        for name in section.value_names() {
            let name = name.to_ascii_lowercase();
            let value = section.value(&name).unwrap_or_default().to_string();
            match (name.as_str(), value.as_str()) {
                ("noop" | "preciousobjects" | "worktreeconfig", _) => {}
                ("partialclone", _) => {
                    return unsupported("a partial clone's missing objects".to_owned());
                }
                ("objectformat", format) if version == 1 => {
                    object_format = match format.parse() {
                        Ok(format) => format,
                        Err(_) => return unsupported(format!("the object format {format}")),
                    };
                }
                ("refstorage", "files") if version == 1 => {}
                ("noop-v1" | "relativeworktrees" | "submodulepathconfig", _) if version == 1 => {}
                ("compatobjectformat", format) if version == 1 => {
                    return unsupported(format!("the second object format {format}"));
                }
                ("refstorage", storage) if version == 1 => {
                    return unsupported(format!("the ref storage {storage}"));
                }
                (
                    "objectformat"
                    | "compatobjectformat"
                    | "refstorage"
                    | "noop-v1"
                    | "relativeworktrees"
                    | "submodulepathconfig",
                    _,
                ) => {
                    return unsupported(format!(
                        "extensions.{name} with repository format version 0"
                    ));
                }
                // Version 0 respects only a few historical extensions; others are ignored.
                _ if version == 0 => {}
                _ => return unsupported(format!("the extension {name}")),
            }
        }
    }
    Ok(object_format)
}

#[cfg(test)]
mod tests;
