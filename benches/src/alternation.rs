//! Two binaries of Henge in alternation: the cost of a change, measured on a shared machine.
//!
//! A single run of each cannot show a few percent. Each round runs a bench with both binaries, with
//! the order reversed each time; the result is the median of the rounds' ratios.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::report::{Section, figure};

/// A figure's position in a bench's table.
type Place = (usize, usize);

/// The rounds of one bench.
#[derive(Debug, Default)]
pub(crate) struct Alternation {
    names: BTreeMap<Place, String>,
    /// The figures before and after, per round.
    figures: BTreeMap<Place, Vec<(f64, f64)>>,
}

impl Alternation {
    /// Adds the tables of one round.
    pub(crate) fn add(&mut self, before: &Section, after: &Section) -> anyhow::Result<()> {
        ensure!(
            before.rows.len() == after.rows.len() && before.columns == after.columns,
            "the two binaries made different tables"
        );
        let mut firsts = Vec::new();
        for (row, (before_row, after_row)) in before.rows.iter().zip(&after.rows).enumerate() {
            let first = before_row.first().context("a row without cells")?;
            let second = before_row.get(1).filter(|_| firsts.contains(&first));
            let name = second.map_or_else(|| first.clone(), |second| format!("{first}, {second}"));
            firsts.push(first);
            for (column, (one, other)) in before_row.iter().zip(after_row).enumerate().skip(1) {
                let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) else {
                    continue;
                };
                let heading = before.columns.get(column).map_or("", String::as_str);
                let place = (row, column);
                self.names.insert(place, format!("{name}: {heading}"));
                self.figures.entry(place).or_default().push((one, other));
            }
        }
        Ok(())
    }

    /// One row per figure.
    pub(crate) fn section(&self, title: &str) -> Section {
        let mut section = Section::new(
            format!("{title}: two binaries in alternation"),
            &[
                "figure",
                "before, median",
                "after, median",
                "after / before, median",
                "quartiles",
                "every round",
            ],
        );
        for (place, rounds) in &self.figures {
            let name = self.names.get(place).map_or("", String::as_str);
            let ratios: Vec<f64> = rounds
                .iter()
                .map(|(before, after)| after / before)
                .collect();
            let before = rounds.iter().map(|(before, _)| *before).collect();
            let after = rounds.iter().map(|(_, after)| *after).collect();
            let listed: Vec<String> = ratios.iter().map(|ratio| figure(*ratio)).collect();
            section.row(vec![
                name.to_owned(),
                figure(quantile(before, 2)),
                figure(quantile(after, 2)),
                format!("{:.3}×", quantile(ratios.clone(), 2)),
                format!(
                    "{:.3} - {:.3}",
                    quantile(ratios.clone(), 1),
                    quantile(ratios, 3)
                ),
                listed.join(" "),
            ]);
        }
        section.note("columns of a peer are the same program in both: how far they are from 1 is the machine's noise");
        section
    }
}

/// The `quarter`th quartile, interpolated between the two nearest values.
fn quantile(mut values: Vec<f64>, quarter: usize) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let (below, rest) = (last * quarter / 4, (last * quarter) % 4);
    let low = values.get(below).copied().unwrap_or(f64::NAN);
    let high = values.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * rest as f64 / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(figures: [&str; 2]) -> Section {
        let mut section = Section::new("push", &["what", "ms", "ratio"]);
        for figure in figures {
            section.row(vec!["a".to_owned(), figure.to_owned(), "0.50×".to_owned()]);
        }
        section
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut rounds = Alternation::default();
        for (before, after) in [("1", "2"), ("2", "2"), ("4", "12")] {
            rounds
                .add(&table([before, "7"]), &table([after, "7"]))
                .expect("the same tables");
        }
        let text = rounds.section("push").to_string();
        assert!(
            text.contains("| a: ms | 2.00 | 2.00 | 2.000× | 1.500 - 2.500 | 2.00 1.00 3.00 |"),
            "{text}"
        );
        assert!(
            text.contains("| a, 7: ms | 7.00 | 7.00 | 1.000× |"),
            "{text}"
        );
        assert!(!text.contains("0.50"), "no ratio of ratios: {text}");
    }

    #[test]
    fn quartiles_lie_between_the_nearest() {
        let values = vec![4.0, 1.0, 3.0, 2.0];
        let all = [1, 2, 3].map(|quarter| quantile(values.clone(), quarter));
        assert_eq!(all, [1.75, 2.5, 3.25]);
        assert!(quantile(Vec::new(), 2).is_nan());
    }
}
