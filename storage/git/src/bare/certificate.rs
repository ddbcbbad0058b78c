//! Signed pushes to a plain repository: their nonces, and the certificate as an object of the
//! store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use gix_object::Kind;
use henge_types::{ObjectId, PushCertificate};

use crate::bare::BareRepository;
use crate::oid::{from_gix, hash_kind};
use crate::push::Nonces;
use crate::store::install;

/// Maximum bytes of a certificate: enough for ten thousand refs with long names. git has no bound.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

impl BareRepository {
    /// The nonces at this time, in seconds since the Unix epoch; `None` if the configuration has no
    /// seed.
    pub(super) fn nonces_at(&self, now_s: u64) -> Option<Nonces> {
        let config = self.config();
        let seed = config.cert_nonce_seed.as_ref()?;
        // The canonical path makes the nonces of a repository equal on every path to it, and
        // different from those of other repositories.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let path = path.as_os_str().as_bytes();
        let slop_s = config.cert_nonce_slop_s;
        Some(Nonces::new(seed.as_bytes(), path, now_s, slop_s))
    }

    /// Writes a certificate as a blob, as git does for its hooks, and logs it. The blob is durable
    /// on return, before any ref changes.
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

    /// Writes a loose object: gitrepository-layout(5), `objects/[0-9a-f][0-9a-f]`.
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
