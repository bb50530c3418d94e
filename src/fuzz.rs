//! What the fuzz targets call, and the tests that replay their corpora.

/// A stream of bytes as the VMM might send it.
pub fn framing(data: &[u8]) {
    crate::bridge::framing::fuzz_framing(data);
}

/// One frame as the guest might send it.
pub fn classify(data: &[u8]) {
    crate::gateway::fuzz_classify(data);
}

/// Fragments as the guest might send them, with time that passes.
pub fn fragments(data: &[u8]) {
    crate::gateway::fuzz_fragments(data);
}

/// A flow's life, as a sequence of steps.
pub fn flow(data: &[u8]) {
    crate::gateway::fuzz_flow(data);
}

/// A query of the guest, with its length before it, and an upstream's answer to it.
pub fn dns(data: &[u8]) {
    crate::gateway::fuzz_dns(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs a target over every file of its corpus; says which file it was that failed.
    fn replay(name: &str, target: fn(&[u8])) {
        struct Failed<'a>(&'a Path);
        impl Drop for Failed<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("the input was {}", self.0.display());
                }
            }
        }

        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = fs::read_dir(&corpus).expect("the corpus is part of the repository");
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            let _failed = Failed(&path);
            target(&data);
            count += 1;
        }
        assert!(count >= 50, "only {count} files in {}", corpus.display());
    }

    #[test]
    fn the_corpus_of_classify() {
        replay("classify", super::classify);
    }

    #[test]
    fn the_corpus_of_fragments() {
        replay("fragments", super::fragments);
    }

    #[test]
    fn the_corpus_of_dns() {
        replay("dns", super::dns);
    }

    #[test]
    fn the_corpus_of_framing() {
        replay("framing", super::framing);
    }

    #[test]
    fn the_corpus_of_flow() {
        replay("flow", super::flow);
    }
}
