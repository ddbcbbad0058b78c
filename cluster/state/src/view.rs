//! The input of a machine, and its writes.

use bytes::Bytes;
use henge_types::StoredRecord;

/// The pairs of one group at one index.
pub trait View {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// The pairs whose keys are not below `from` and start with `prefix`, in the order of the keys.
    fn range<'v>(
        &'v self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'v Bytes, &'v Bytes)> + use<'v, Self>;
}

/// One change of a pair. An outcome has them in key order, no key twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// Its new value; `None` removes the pair.
    pub value: Option<Bytes>,
}

/// Reads a stored record.
///
/// # Panics
/// When it cannot be read: the state is damaged or of a newer release, and guessing would let the
/// replicas diverge.
pub(crate) fn decode<T: StoredRecord>(key: &[u8], bytes: &[u8]) -> T {
    T::decode(bytes).unwrap_or_else(|error| {
        panic!(
            "value of key {:?} cannot be read: {error}",
            Bytes::copy_from_slice(key)
        )
    })
}

/// Reads a number, eight bytes big-endian. Panics as [`decode`] does.
pub(crate) fn decode_u64(key: &[u8], bytes: &[u8]) -> u64 {
    let bytes = bytes.try_into().unwrap_or_else(|_| {
        panic!(
            "value of key {:?} is not eight bytes: {bytes:?}",
            Bytes::copy_from_slice(key)
        )
    });
    u64::from_be_bytes(bytes)
}
