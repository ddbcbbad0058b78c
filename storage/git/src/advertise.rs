//! The advertisement of a server: its refs (protocol v0 and v1) or its capabilities (v2).

use std::io::{self, Write};

use henge_types::{ObjectFormat, ObjectId, RefName};

use crate::oid::null_hex;
use crate::peel::Peeler;
use crate::pkt;
use crate::protocol::{AGENT, AcceptedWants, FetchPolicy, Protocol, Service};
use crate::push::{PushPolicy, Rule};
use crate::refs::RefStore;
use crate::store::Objects;

/// Writes a repository's advertisement without the `# service=` line that HTTP prepends.
///
/// Tags are not peeled: see [`advertise_peeled`]. The default [`FetchPolicy`] is advertised.
///
/// # Errors
/// When the output breaks.
pub fn advertise(
    refs: &dyn RefStore,
    service: Service,
    protocol: Protocol,
    output: &mut dyn Write,
) -> io::Result<()> {
    Advertisement::collect(Some(refs), service, protocol).write(None, output)
}

/// Like [`advertise`], with the peeled value of each annotated tag: clients of protocol v0 and v1
/// follow tags by it.
///
/// # Errors
/// When the output breaks or the object store cannot be read.
pub fn advertise_peeled(
    refs: &dyn RefStore,
    objects: &Objects,
    service: Service,
    protocol: Protocol,
    policy: FetchPolicy,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut listing = Advertisement::collect(Some(refs), service, protocol);
    listing.policy = policy;
    let needs_objects = service == Service::UploadPack && protocol != Protocol::V2;
    if !needs_objects || listing.refs.is_empty() {
        return listing.write(None, output);
    }
    listing.write(Some(&mut Peeler::new(objects)), output)
}

/// Writes the advertisement of a repository of this format without refs.
///
/// There are two uses: a repository that a push would create, and the capabilities alone of a
/// repository that is stored elsewhere, whose clients may request what `policy` allows.
///
/// # Errors
/// When the output breaks.
pub fn advertise_missing(
    service: Service,
    protocol: Protocol,
    format: ObjectFormat,
    policy: FetchPolicy,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut listing = Advertisement::collect(None, service, protocol);
    listing.format = format;
    listing.policy = policy;
    listing.write(None, output)
}

struct Advertisement {
    service: Service,
    protocol: Protocol,
    policy: FetchPolicy,
    head: Option<RefName>,
    refs: Vec<(Box<str>, ObjectId)>,
    pushes: PushPolicy,
    /// The nonce for signed pushes (`push-cert`), if the repository offers them.
    nonce: Option<String>,
    format: ObjectFormat,
}

impl Advertisement {
    fn collect(refs: Option<&dyn RefStore>, service: Service, protocol: Protocol) -> Self {
        let mut listing = Self {
            service,
            protocol,
            policy: FetchPolicy::default(),
            head: None,
            refs: Vec::new(),
            pushes: refs.map(RefStore::push_policy).unwrap_or_default(),
            nonce: match service {
                Service::ReceivePack => refs.and_then(RefStore::nonces).map(|own| own.issue()),
                Service::UploadPack => None,
            },
            format: refs.map(RefStore::object_format).unwrap_or_default(),
        };
        let two = protocol == Protocol::V2 && service == Service::UploadPack;
        if let Some(refs) = refs
            && !two
        {
            listing.head = Some(refs.head());
            refs.for_each_name("", &mut |name, id| listing.refs.push((name.into(), id)));
        }
        listing
    }

    fn write(&self, mut peeler: Option<&mut Peeler<'_>>, output: &mut dyn Write) -> io::Result<()> {
        match (self.service, self.protocol) {
            (Service::UploadPack, Protocol::V2) => {
                return write_v2_capabilities(self.policy, self.format, output);
            }
            (_, Protocol::V1) => pkt::write(output, b"version 1\n")?,
            (_, Protocol::V0 | Protocol::V2) => {}
        }
        let mut capabilities = Some(self.capabilities());
        if self.service == Service::UploadPack
            && let Some(id) = self.head_value()
        {
            write_ref(output, &id.to_string(), "HEAD", &mut capabilities)?;
        }
        let mut hex = [0; ObjectId::HEX_BYTES_MAX];
        for (name, id) in &self.refs {
            write_ref(output, id.to_hex(&mut hex), name, &mut capabilities)?;
            let peeled = match &mut peeler {
                Some(peeler) => peeler.peel(*id).map_err(io::Error::other)?,
                None => None,
            };
            if let Some(peeled) = peeled {
                pkt::write(output, format!("{peeled} {name}^{{}}\n").as_bytes())?;
            }
        }
        if capabilities.is_some() {
            write_ref(
                output,
                &null_hex(self.format),
                "capabilities^{}",
                &mut capabilities,
            )?;
        }
        pkt::write_flush(output)
    }

    fn head_value(&self) -> Option<ObjectId> {
        let head = self.head.as_ref()?;
        let position = self
            .refs
            .binary_search_by(|(name, _)| (**name).cmp(head.as_str()))
            .ok()?;
        Some(self.refs[position].1)
    }

    fn capabilities(&self) -> String {
        let format = self.format;
        match self.service {
            Service::ReceivePack => {
                let offered = |rule: Rule, words: &'static str| match rule {
                    Rule::Allowed => words,
                    Rule::Denied => "",
                };
                let nonce = self.nonce.as_ref();
                let nonce = nonce.map_or_else(String::new, |nonce| format!(" push-cert={nonce}"));
                format!(
                    "report-status report-status-v2 delete-refs side-band-64k quiet{} ofs-delta{nonce}{} object-format={format} agent={AGENT}",
                    offered(self.pushes.atomic, " atomic"),
                    offered(self.pushes.push_options, " push-options"),
                )
            }
            Service::UploadPack => {
                let symref = self
                    .head
                    .as_ref()
                    .filter(|_| self.head_value().is_some())
                    .map_or_else(String::new, |head| format!(" symref=HEAD:{head}"));
                let wants = match self.policy.wants {
                    AcceptedWants::Tips => "allow-tip-sha1-in-want",
                    AcceptedWants::Reachable | AcceptedWants::Any => {
                        "allow-tip-sha1-in-want allow-reachable-sha1-in-want"
                    }
                };
                let filter = if self.policy.filter { " filter" } else { "" };
                format!(
                    "multi_ack multi_ack_detailed no-done thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not deepen-relative no-progress include-tag {wants}{filter}{symref} object-format={format} agent={AGENT}"
                )
            }
        }
    }
}

fn write_ref(
    output: &mut dyn Write,
    id: &str,
    name: &str,
    capabilities: &mut Option<String>,
) -> io::Result<()> {
    let mut line = Vec::with_capacity(id.len() + name.len() + 8);
    match capabilities.take() {
        Some(words) => pkt::append(&mut line, &[id, " ", name, "\0", &words, "\n"])?,
        None => pkt::append(&mut line, &[id, " ", name, "\n"])?,
    }
    output.write_all(&line)
}

fn write_v2_capabilities(
    policy: FetchPolicy,
    format: ObjectFormat,
    output: &mut dyn Write,
) -> io::Result<()> {
    let offered = |is_on: bool, word: &'static str| if is_on { word } else { "" };
    let filter = offered(policy.filter, " filter");
    let by_name = offered(policy.ref_in_want, " ref-in-want");
    pkt::write(output, b"version 2\n")?;
    pkt::write(output, format!("agent={AGENT}\n").as_bytes())?;
    pkt::write(output, b"ls-refs=unborn\n")?;
    let fetch = format!("fetch=shallow wait-for-done{filter}{by_name} sideband-all\n");
    pkt::write(output, fetch.as_bytes())?;
    // Server options are accepted and ignored, as by git itself.
    pkt::write(output, b"server-option\n")?;
    pkt::write(output, format!("object-format={format}\n").as_bytes())?;
    pkt::write(output, b"object-info\n")?;
    if policy.bundle_uri {
        pkt::write(output, b"bundle-uri\n")?;
    }
    pkt::write_flush(output)
}
