//! Counts the instructions that each part has the processor run outside the kernel.
//!
//! ```text
//! instructions            prints the counts beside those of the snapshot; fails if one has risen
//! instructions update     prints the counts, and writes the snapshot
//! ```
//!
//! Unlike times, counts are the same on a busy machine, so that a change of one is a change of the code.
//! They are not the cost: a system call counts for nothing here, and neither does a cache miss.

mod callgrind;
mod snapshot;

use std::env;
use std::process::ExitCode;

use framegate_benches::parts;

use self::snapshot::Snapshot;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => compare(),
        ["update"] => update(),
        [callgrind::RUN, name] => callgrind::run(name),
        _ => {
            eprintln!("usage: instructions [update]");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Snapshot {
    Snapshot {
        environment: callgrind::environment(),
        counts: parts().map(|part| (snapshot::key(&part), callgrind::count(&part))).collect(),
    }
}

fn compare() -> ExitCode {
    let (was, now) = (Snapshot::read(), measure());
    let has_risen = now.print_beside(&was);
    if !has_risen {
        return ExitCode::SUCCESS;
    }
    if was.environment != now.environment {
        println!("counted with {}", now.environment);
        println!("the snapshot is of {}: no verdict", was.environment);
        return ExitCode::SUCCESS;
    }
    println!("a count has risen; if it must: ./ci.sh bench-update, and say why in the commit");
    ExitCode::FAILURE
}

fn update() -> ExitCode {
    let (was, now) = (Snapshot::read(), measure());
    now.print_beside(&was);
    now.write();
    ExitCode::SUCCESS
}
