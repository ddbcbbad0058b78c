//! The input and output of a command.

use std::fmt;
use std::io::{self, BufRead, Write};

/// Whether an input or output is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A terminal: questions can be put to a user.
    Terminal,
    /// A pipe, a file, nothing.
    Other,
}

/// Output, errors and answers of one command.
pub struct Console<'a> {
    /// Standard output: the result.
    pub out: &'a mut (dyn Write + Send),
    /// Standard error: errors and questions.
    pub err: &'a mut (dyn Write + Send),
    /// Answers to questions.
    pub answers: &'a mut (dyn BufRead + Send),
    /// Whether the answers come from a terminal.
    pub input: Input,
    /// Whether standard error is a terminal.
    pub watcher: Input,
}

impl Console<'_> {
    /// Puts a question and reads a line of text.
    ///
    /// # Errors
    /// When the question cannot be written or the answer cannot be read.
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
