//! `src/sync.rs` is the only file that names the primitives that threads share. Clippy bans most of them
//! elsewhere, but it sees through re-exports, so the ones that the public API needs are checked here.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_exempt(path: &Path) -> bool {
    let path = path.to_string_lossy();
    // The facade itself, the program, which has no part in the protocol, and tests.
    path.ends_with("src/sync.rs")
        || ["src/sync/", "src/bin/", "tests.rs", "testing.rs"].iter().any(|it| path.contains(it))
}

#[test]
fn only_the_facade_names_shared_primitives() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20, "the sources were found");
    let mut strays = Vec::new();
    for path in files.iter().filter(|path| !is_exempt(path)) {
        let text = fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let names =
                ["std::sync", "crossbeam_queue", "loom::", "std::cell::Unsafe", "core::sync"];
            if names.iter().any(|name| code.contains(name)) {
                strays.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(strays.is_empty(), "outside src/sync.rs:\n{}", strays.join("\n"));
}

#[test]
fn only_sys_is_unsafe() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for path in files {
        let name = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let allows = text.contains("allow(unsafe_code)");
        assert_eq!(allows, name.ends_with("src/sys.rs"), "{name} and unsafe code");
    }
}
