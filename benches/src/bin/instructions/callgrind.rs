//! A part under callgrind: this program once more, with nothing counted but what the part measures.

use std::env;
use std::process::{Command, ExitCode};

use framegate_benches::{Part, parts};

pub(crate) const RUN: &str = "run";

/// Rounds before those that count, until every buffer, window and table is as large as it gets.
const WARM: u32 = 64;
const ROUNDS: u32 = 64;

/// Callgrind counts while this is on the stack.
#[inline(never)]
fn framegate_counted(work: &mut dyn FnMut()) {
    std::hint::black_box(work)();
}

/// Does the rounds of a part.
pub(crate) fn run(name: &str) -> ExitCode {
    let part = parts().find(|part| part.name == name).expect("a part has this name");
    let mut round = (part.prepare)();
    for _ in 0..WARM {
        round(&mut |work| work());
    }
    for _ in 0..ROUNDS {
        round(&mut |work| {
            framegate_counted(work);
            std::hint::black_box(());
        });
    }
    ExitCode::SUCCESS
}

/// The instructions of a part, for each of its units.
pub(crate) fn count(part: &Part) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*framegate_counted*")
        // valgrind counts `rep movsb` once for each byte, which no processor does.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM")
        .arg(env::current_exe().expect("a program has a path"))
        .args([RUN, part.name])
        .output()
        .expect("valgrind is installed");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {report}", part.name);
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.unwrap_or_else(|| panic!("{}: {report}", part.name));
    let instructions: f64 = collected.trim().parse().expect("a number of instructions");
    assert!(instructions > 0.0, "{}: nothing was counted: {report}", part.name);
    instructions / f64::from(ROUNDS) / f64::from(part.units)
}

/// What else the counts depend on: the compiler, the C library's copies, and the instructions that
/// these may choose from.
pub(crate) fn environment() -> String {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().expect(program);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let libc = first_line("ldd", "--version");
    let libc = libc.rsplit(' ').next().unwrap_or_default();
    let valgrind = first_line("valgrind", "--version");
    format!("{}, glibc {libc}, {valgrind}, {}", first_line(&rustc, "-V"), processor())
}

#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx2") { "x86_64 with AVX2" } else { "x86_64" }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    env::consts::ARCH
}
