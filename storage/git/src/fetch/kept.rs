//! Answers that are kept: which requests are equal, and what to do about them.

use sha2::{Digest, Sha256};

use crate::fetch::FetchError;
use crate::fetch::ls_refs::{ls_refs, what_is_listed};
use crate::fetch::request::{Fetch, LsRefs};
use crate::fetch::serve::Session;
use crate::output::Output;
use crate::protocol::Asker;
use crate::responses::Turn;

impl Session<'_> {
    /// Answers `ls-refs`.
    pub(super) fn ls_refs(
        &mut self,
        request: &LsRefs,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let key = match (&self.limits.responses, self.refs.version()) {
            (Some(responses), Some(version)) => {
                let mut key = responses.key("ls-refs", &what_is_listed(request));
                self.add_asker(&mut key);
                key.update(version.to_le_bytes());
                Some(key)
            }
            (Some(_), None) | (None, _) => None,
        };
        self.once(key, output, |session, output| {
            // Nothing leaves before it is whole: whoever waits for the same must not wait for a client that takes nothing.
            output.begin_pack();
            let (refs, stop) = (session.refs, &session.work);
            session.summary.refs_listed += ls_refs(refs, session.objects, request, stop, output)?;
            Ok(())
        })
    }

    /// The key of a fetch, where answers are kept.
    pub(super) fn fetch_key(&self, request: &Fetch) -> Option<Sha256> {
        let responses = self.limits.responses.as_ref()?;
        let mut key = responses.key("fetch", &request.digest);
        self.add_asker(&mut key);
        // What is refused now must not be given because it was allowed before.
        key.update([u8::from(self.limits.policy.filter)]);
        self.add_refs(request, &mut key);
        Some(key)
    }

    /// Who has a token waits for nobody without one, who may wait for a turn behind a flood.
    fn add_asker(&self, key: &mut Sha256) {
        key.update([u8::from(self.limits.asker == Asker::Known)]);
    }

    /// Adds to the key of a fetch what its answer depends on beside the request: objects never change, refs do. An
    /// object that came since could make the answer shorter, never wrong.
    fn add_refs(&self, request: &Fetch, key: &mut Sha256) {
        if request.include_tag {
            key.update(self.index().tags(self.refs));
        }
        if request.names_refs() {
            key.update(self.refs.head().as_str());
            self.refs.for_each_name("", &mut |name, id| {
                key.update(name.len().to_le_bytes());
                key.update(name);
                key.update(id.as_bytes());
            });
        }
    }

    /// Answers like an earlier request with the same key, or by `make`.
    pub(super) fn once(
        &mut self,
        key: Option<Sha256>,
        output: &mut dyn Output,
        make: impl FnOnce(&mut Self, &mut dyn Output) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let (Some(key), Some(responses)) = (key, &self.limits.responses) else {
            return make(self, output);
        };
        let (admission, stop) = (self.limits.admission.as_deref(), &self.limits.stop);
        match self.work.uncounted(|| responses.turn(key, stop, admission)) {
            None => Err(FetchError::Stopped),
            Some(Turn::Known(answer)) => {
                self.summary.replayed += 1;
                Ok(answer.replay(output)?)
            }
            Some(Turn::Make(making)) => {
                let mut recorder = making.recorder(output);
                make(self, &mut recorder)?;
                Ok(making.finish(recorder)?)
            }
        }
    }
}
