//! The response cache for listings and fetches: the keys of equal requests, and their use.

use sha2::{Digest, Sha256};

use crate::fetch::FetchError;
use crate::fetch::ls_refs::{ls_refs, what_is_listed};
use crate::fetch::request::{Fetch, LsRefs};
use crate::fetch::serve::Session;
use crate::output::Output;
use crate::protocol::Asker;
use crate::responses::Turn;

impl Session<'_> {
    /// Serves `ls-refs`.
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
            // Nothing is sent before the response is complete: requests for the same response must
            // not wait for a client that reads nothing.
            output.begin_pack();
            let (refs, stop) = (session.refs, &session.work);
            session.summary.refs_listed += ls_refs(refs, session.objects, request, stop, output)?;
            Ok(())
        })
    }

    /// The key of a fetch in the response cache; `None` without a cache.
    pub(super) fn fetch_key(&self, request: &Fetch) -> Option<Sha256> {
        let responses = self.limits.responses.as_ref()?;
        let mut key = responses.key("fetch", &request.digest);
        self.add_asker(&mut key);
        // A request that is refused now must not get a response that was allowed before.
        key.update([u8::from(self.limits.policy.filter)]);
        self.add_refs(request, &mut key);
        Some(key)
    }

    /// Requests with a token have keys of their own: they never wait for a request without one,
    /// which may wait for a permit behind a flood.
    fn add_asker(&self, key: &mut Sha256) {
        key.update([u8::from(self.limits.asker == Asker::Known)]);
    }

    /// Adds to the key of a fetch the refs that its response depends on, besides the request.
    /// Objects never change. A newer object could make the response shorter, never wrong.
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

    /// Replays the response to an earlier request with the same key, or makes it with `make`.
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
