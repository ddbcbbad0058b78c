//! Signed pushes to a plain repository: what is asked to be signed, and the certificate as an object of the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use gix_object::Kind;
use henge_types::{ObjectId, PushCertificate};

use crate::bare::BareRepository;
use crate::oid::{from_gix, hash_kind};
use crate::push::Nonces;
use crate::store::install;

/// One certificate: git has no bound, this is one for ten thousand refs with long names.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

impl BareRepository {
    /// What is asked to be signed at this time, in seconds since the Unix epoch, if its configuration has a seed.
    pub(super) fn nonces_at(&self, now_s: u64) -> Option<Nonces> {
        let config = self.config();
        let seed = config.cert_nonce_seed.as_ref()?;
        // One path for one repository, however it is reached: another one's nonces are not its own.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let path = path.as_os_str().as_bytes();
        let slop_s = config.cert_nonce_slop_s;
        Some(Nonces::new(seed.as_bytes(), path, now_s, slop_s))
    }

    /// Writes a certificate as a blob, as git does for its hooks, and tells the log of it. Durable when it returns, and
    /// before any ref has changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep_certificate(&self, certificate: &PushCertificate) -> io::Result<()> {
        let id = self.write_blob(&certificate.text)?;
        tracing::info!(
            repository = %self.path.display(),
            certificate = %id,
            pusher = certificate.pusher,
            nonce = certificate.nonce.as_str(),
            slop_s = certificate.nonce.slop_s(),
            signature = certificate.signature.map_or("none", |kind| kind.as_str()),
            "signed push; the signature was not verified"
        );
        Ok(())
    }

    /// A loose object: gitrepository-layout(5), `objects/[0-9a-f][0-9a-f]`.
    fn write_blob(&self, data: &[u8]) -> io::Result<ObjectId> {
        let kind = hash_kind(self.object_format());
        let id = gix_object::compute_hash(kind, Kind::Blob, data).map_err(io::Error::other)?;
        let hex = id.to_string();
        let (folder, name) = hex.split_at(2);
        let objects = self.objects();
        let folder = objects.join(folder);
        match fs::create_dir(&folder) {
            Ok(()) => File::open(&objects)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let level = gix_zlib::Compression::DEFAULT;
        let mut deflate = gix_zlib::stream::deflate::Write::new(Vec::new(), level);
        deflate.write_all(&gix_object::encode::loose_header(
            Kind::Blob,
            data.len() as u64,
        ))?;
        deflate.write_all(data)?;
        deflate.flush()?;
        install(&folder.join(name), &deflate.into_inner())?;
        Ok(from_gix(&id))
    }
}
