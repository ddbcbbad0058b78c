//! Where a command writes and reads.

use std::fmt;
use std::io::{self, BufRead, Write};

/// Whether a person sits at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A terminal: questions can be asked.
    Terminal,
    /// A pipe, a file, nothing.
    Other,
}

/// Output, complaints and answers of one command.
pub struct Console<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// What went wrong.
    pub err: &'a mut (dyn Write + Send),
    /// Answers to questions.
    pub answers: &'a mut (dyn BufRead + Send),
    /// Whether there is somebody to ask.
    pub input: Input,
    /// Whether somebody watches standard error.
    pub watcher: Input,
}

impl Console<'_> {
    /// Asks for a line of text.
    ///
    /// # Errors
    /// When the question cannot be written or the answer not be read.
    pub fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(self.err, "{question} ")?;
        self.err.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}
