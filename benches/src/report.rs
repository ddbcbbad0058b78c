//! Figures as Markdown.

use std::fmt;

/// One bench's table, with notes.
#[derive(Debug)]
pub(crate) struct Section {
    title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Section {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(
            cells.len(),
            self.columns.len(),
            "a row has a cell per column"
        );
        self.rows.push(cells);
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.title)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len()))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

/// A figure with about three digits.
pub(crate) fn figure(value: f64) -> String {
    if value.is_nan() {
        "none".to_owned()
    } else if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// `ours / theirs`, as `1.50×`.
pub(crate) fn ratio(ours: f64, theirs: f64) -> String {
    let ratio = ours / theirs;
    if ratio.is_finite() {
        format!("{ratio:.2}×")
    } else {
        "none".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_a_table_with_notes() {
        let mut section = Section::new("push", &["what", "ms"]);
        section.row(vec!["a".to_owned(), figure(12.345)]);
        section.note("said");
        assert_eq!(
            section.to_string(),
            "## push\n\n| what | ms |\n|---|---|\n| a | 12.3 |\n\n- said\n"
        );
    }

    #[test]
    fn figures_have_three_digits_and_ratios_say_when_there_is_none() {
        let figures = [1234.5, 12.34, 1.234, f64::NAN].map(figure);
        assert_eq!(figures, ["1234", "12.3", "1.23", "none"]);
        assert_eq!(ratio(3.0, 2.0), "1.50×");
        assert_eq!(ratio(3.0, 0.0), "none");
    }
}
