//! The counts that are committed.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use framegate_benches::Part;

/// What a count may rise by without a word: as a part of it, and in instructions. Counts repeat better than that;
/// but the compiler chooses anew with any change what it inlines, and a call more or less is much of the
/// smallest parts.
const TOLERANCE: f64 = 0.05;
const CALL: f64 = 25.0;

const ENVIRONMENT: &str = "# counted with ";
const HEADER: &str = "\
# Instructions outside the kernel, for each frame or whatever the last column says.
# `./ci.sh counts` compares with these; `./ci.sh bench-update` writes them anew.
";

#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) environment: String,
    /// By name and unit, in the order of the parts.
    pub(crate) counts: Vec<(String, f64)>,
}

/// How a part stands in the table.
pub(crate) fn key(part: &Part) -> String {
    format!("{:<36} {}", part.name, part.unit)
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Three digits: what follows them may be another in the next build of the same source.
fn digits(count: f64) -> String {
    let step = 10_f64.powf(count.max(1.0).log10().floor() - 2.0);
    format!("{:.*}", usize::from(step < 1.0), (count / step).round() * step)
}

impl Snapshot {
    /// The committed one; an empty one if there is none.
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string(path()).unwrap_or_default())
    }

    pub(crate) fn write(&self) {
        fs::write(path(), self.text()).expect("the snapshot can be written");
    }

    fn parse(text: &str) -> Self {
        let mut snapshot = Self::default();
        for line in text.lines() {
            if let Some(environment) = line.strip_prefix(ENVIRONMENT) {
                snapshot.environment = environment.to_owned();
            } else if let Some((count, key)) = line.trim_start().split_once("  ")
                && let Ok(count) = count.parse()
            {
                snapshot.counts.push((key.to_owned(), count));
            }
        }
        snapshot
    }

    fn text(&self) -> String {
        let mut text = format!("{HEADER}{ENVIRONMENT}{}\n", self.environment);
        for (key, count) in &self.counts {
            let _ = writeln!(text, "{:>8}  {key}", digits(*count));
        }
        text
    }

    /// Prints the counts beside older ones; `true` if one has risen by more than the tolerance.
    pub(crate) fn print_beside(&self, was: &Self) -> bool {
        let mut has_risen = false;
        println!("{:>8} {:>8} {:>8}  {:<36} for each", "was", "is", "change", "part");
        for (key, count) in &self.counts {
            let before = was.counts.iter().find(|(other, _)| other == key).map(|(_, count)| *count);
            let change = before.map(|before| count / before - 1.0);
            let has_this = before.is_some_and(|before| {
                *count > before * (1.0 + TOLERANCE) && *count > before + CALL
            });
            has_risen |= has_this;
            println!(
                "{:>8} {:>8} {:>8}  {key}{}",
                before.map_or_else(|| "-".to_owned(), digits),
                digits(*count),
                change.map_or_else(String::new, |change| format!("{:+.1} %", change * 100.0)),
                if has_this { "  <-- risen" } else { "" },
            );
        }
        for (key, _) in was.counts.iter().filter(|(key, _)| self.counts.iter().all(|c| c.0 != *key))
        {
            println!("{:>26}  {key}", "gone");
        }
        has_risen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(counts: &[(&str, f64)]) -> Snapshot {
        let counts = counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
        Snapshot { environment: "rustc 1".to_owned(), counts }
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let written = snapshot(&[("framing    frame", 14.26), ("turn, up    segment", 123_556.0)]);
        let read = Snapshot::parse(&written.text());
        assert_eq!(read.environment, written.environment);
        let expected = [("framing    frame", 14.3), ("turn, up    segment", 124_000.0)];
        assert_eq!(read.counts, snapshot(&expected).counts);
        assert_eq!(Snapshot::parse(&read.text()).text(), read.text());
    }

    #[test]
    fn only_a_rise_above_the_tolerance_counts() {
        let was = snapshot(&[("a", 1000.0), ("small", 20.0), ("gone", 1.0)]);
        assert!(!snapshot(&[("a", 500.0), ("new", 1000.0)]).print_beside(&was));
        assert!(!snapshot(&[("a", 1049.0)]).print_beside(&was));
        assert!(snapshot(&[("a", 1051.0)]).print_beside(&was));
        assert!(!snapshot(&[("small", 44.0)]).print_beside(&was));
        assert!(snapshot(&[("small", 46.0)]).print_beside(&was));
    }
}
