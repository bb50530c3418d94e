//! SPECIFICATION.md against the sources: every test that it names exists, and every row of its tables
//! of RFC requirements says what holds and why.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
#[cfg(feature = "runtime")]
use std::time::Duration;

const FILE: &str = "SPECIFICATION.md";
const HEADER: &str = "| requirement | state | how, or why not | tests |";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn specification() -> String {
    fs::read_to_string(root().join(FILE)).unwrap()
}

/// The tests that a text names, as `file.rs::function`.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-/.:".contains(c);
    text.split(move |c| !is_name(c)).filter_map(|word| {
        let (file, function) = word.split_once(".rs::")?;
        let function = function.rsplit("::").next()?.trim_end_matches(['.', ':']);
        Some((&word[..file.len() + 3], function))
    })
}

/// Whether the function is in that file.
fn exists((file, function): (&str, &str)) -> bool {
    thread_local! {
        static SOURCES: std::cell::RefCell<BTreeMap<String, String>> = std::cell::RefCell::default();
    }
    SOURCES.with_borrow_mut(|sources| {
        let read = || fs::read_to_string(root().join(file)).unwrap_or_default();
        let source = sources.entry(file.to_owned()).or_insert_with(read);
        let is_it = |rest: &str| rest.trim_start().starts_with(['(', '<']);
        source.split(&format!("fn {function}")).skip(1).any(is_it)
    })
}

/// A row of a table of requirements.
struct Row {
    line: usize,
    /// Under which RFC it stands.
    heading: String,
    requirement: String,
    state: String,
    why: String,
    tests: String,
}

impl Row {
    fn missing(&self) -> Vec<String> {
        let missing = named(&self.tests).filter(|test| !exists(*test));
        missing.map(|(file, function)| format!("{file}::{function}")).collect()
    }

    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<String> {
        let missing = self.missing();
        match self.state.as_str() {
            _ if self.requirement.is_empty() => Some("names no requirement".into()),
            "met" if named(&self.tests).next().is_none() => Some("is met by no test".into()),
            _ if !missing.is_empty() => {
                Some(format!("names tests that do not exist: {}", missing.join(", ")))
            }
            "refused" | "n.a." if self.why.is_empty() => Some("gives no reason".into()),
            "met" | "refused" | "n.a." => None,
            other => Some(format!("is {other:?}, and not met, refused or n.a.")),
        }
    }

    fn place(&self) -> String {
        format!("{FILE}:{}: {}, {}", self.line, self.heading, self.requirement)
    }
}

/// The rows of all tables with the header of requirements.
fn rows(text: &str) -> Vec<Row> {
    let (mut rows, mut heading, mut inside) = (Vec::new(), "", false);
    for (line, content) in text.lines().enumerate() {
        if let Some(title) = content.strip_prefix("### ") {
            heading = title;
        }
        let Some(cells) = content.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        if content == HEADER {
            inside = true;
        } else if inside && !content.starts_with("|--") {
            let cells: Vec<_> = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            let place = format!("{FILE}:{}", line + 1);
            let [requirement, state, why, tests] =
                cells.try_into().unwrap_or_else(|_| panic!("{place}: not four cells"));
            let heading = heading.to_owned();
            rows.push(Row { line: line + 1, heading, requirement, state, why, tests });
        }
    }
    rows
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let text = specification();
    let missing: Vec<_> = text
        .lines()
        .enumerate()
        .flat_map(|(line, content)| named(content).map(move |test| (line + 1, test)))
        .filter(|(_, test)| !exists(*test))
        .map(|(line, (file, function))| format!("{FILE}:{line}: no test {file}::{function}"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_row_says_what_holds_and_why() {
    let rows = rows(&specification());
    assert!(rows.len() > 100, "only {} rows of requirements were found", rows.len());
    let faults: Vec<_> =
        rows.iter().filter_map(|row| Some(format!("{} {}", row.place(), row.fault()?))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What the RFCs ask of time-outs is what a gateway has that nobody has configured.
#[cfg(feature = "runtime")]
#[test]
fn the_default_time_outs_are_those_of_the_rfcs() {
    let (limits, minutes) = (framegate::Limits::default(), |n: u64| Duration::from_secs(60 * n));
    // RFC 5382 REQ-5.
    assert!(limits.tcp_idle >= minutes(2 * 60 + 4));
    assert!(limits.tcp_transitory >= minutes(4));
    // RFC 4787 REQ-5, and its exception for a well-known port.
    assert!(limits.udp_idle >= minutes(5));
    assert_eq!(limits.udp_dns_idle, Duration::from_secs(30));
    // RFC 5508 REQ-2.
    assert!(limits.ping_idle >= minutes(1));
}

#[test]
fn faults_are_found() {
    let row = |row: &str| rows(&format!("### RFC 1\n{HEADER}\n|---|---|---|---|\n{row}\n"));
    let this = "`tests/specification.rs::faults_are_found`";
    for good in [
        format!("| REQ-1 | met | | {this} |"),
        format!("| REQ-1 | met | by a lock | {this}, {this} |"),
        "| REQ-1 | refused | for this reason | |".into(),
        "| REQ-1 | n.a. | for this reason | |".into(),
    ] {
        let rows = row(&good);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].fault(), None, "{good}");
        assert_eq!(rows[0].heading, "RFC 1");
    }
    for bad in [
        "| REQ-1 | met | by hope | |",
        "| REQ-1 | met | | tests/specification.rs |",
        "| REQ-1 | met | | `tests/specification.rs::to_come` |",
        "| REQ-1 | met | | `tests/specification.rs::faults_are` |",
        "| REQ-1 | met | | `tests/no_such_file.rs::faults_are_found` |",
        "| REQ-1 | refused | | |",
        "| REQ-1 | n.a. | | |",
        "| REQ-1 | refused | for this reason | `tests/specification.rs::to_come` |",
        "| REQ-1 | open | for now | |",
        "| | refused | for this reason | |",
    ] {
        assert!(row(bad)[0].fault().is_some(), "{bad}");
    }
}
