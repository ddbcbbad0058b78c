//! The working time of a fetch. It is bounded without a token, and excludes the time in which the
//! client reads the response.

use std::io::{self, Write};

use crate::fetch::FetchError;
use crate::fetch::serve::Session;
use crate::output::{Output, PackPart};
use crate::protocol::{Asker, Stop};

/// An output whose time does not count as work.
pub(super) struct Uncounted<'a> {
    output: &'a mut dyn Output,
    work: Stop,
}

impl<'a> Uncounted<'a> {
    pub(super) fn new(output: &'a mut dyn Output, work: Stop) -> Self {
        Self { output, work }
    }
}

impl Write for Uncounted<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let output = &mut *self.output;
        self.work.uncounted(|| output.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        let output = &mut *self.output;
        self.work.uncounted(|| output.flush())
    }
}

impl Output for Uncounted<'_> {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        let output = &mut *self.output;
        self.work.uncounted(|| output.write_part(part))
    }

    fn begin_pack(&mut self) {
        self.output.begin_pack();
    }
}

impl Session<'_> {
    /// The error that ended the fetch: [`FetchError::TooMuchWork`] if the bound on work without a
    /// token stopped it.
    pub(super) fn reason(&self, error: FetchError) -> FetchError {
        let is_bound = matches!(error, FetchError::Stopped)
            && self.limits.asker == Asker::Anybody
            && !self.limits.stop.is_set();
        if is_bound {
            FetchError::TooMuchWork
        } else {
            error
        }
    }
}
