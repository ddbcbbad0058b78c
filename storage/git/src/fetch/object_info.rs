//! `object-info` of protocol v2: sizes of objects that are not sent.

use crate::fetch::FetchError;
use crate::fetch::request::ObjectInfo;
use crate::fetch::select::not_tips;
use crate::fetch::serve::Session;
use crate::oid::Oid;
use crate::output::Output;
use crate::pkt;

impl Session<'_> {
    /// Writes the requested information about each object. An object that the client may not want
    /// is reported like a missing one: with a space and nothing behind it.
    pub(super) fn object_info(
        &self,
        request: &ObjectInfo,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        if request.ids.is_empty() {
            return Ok(pkt::write_flush(output)?);
        }
        let store = self.objects.open()?;
        let present: Vec<Oid> = {
            let ids = request.ids.iter().copied();
            ids.filter(|id| store.contains(id)).collect()
        };
        let not_tips = not_tips(self.refs, self.index(), &present);
        let hidden = self.not_ours(&store, &not_tips)?;
        if request.size {
            pkt::write(output, b"size")?;
        }
        for id in &request.ids {
            if self.work.is_set() {
                return Err(FetchError::Stopped);
            }
            let found = if hidden.contains(id) {
                None
            } else {
                store.header(id)?
            };
            let line = match found {
                None => format!("{id} "),
                Some((_, size)) if request.size => format!("{id} {size}"),
                Some(_) => id.to_string(),
            };
            pkt::write(output, line.as_bytes())?;
        }
        Ok(pkt::write_flush(output)?)
    }
}
