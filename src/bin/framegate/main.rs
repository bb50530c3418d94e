//! The `framegate` program: a gateway for the guests of a VMM that speaks libkrun's or QEMU's stream
//! framing, and a demonstration that needs no VM.
//!
//! Exit status: 0 when all went well, 1 when something failed, 2 when the command line makes no sense.

mod args;
mod demo;
mod egress_args;
mod serve;

use std::io;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::filter::LevelFilter;

use crate::args::Command;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(stop) => return stop.report(),
    };
    // The demonstration says itself what the host forbids.
    log_to_stderr(match command {
        Command::Serve(_) => LevelFilter::WARN,
        Command::Demo(_) => LevelFilter::ERROR,
    });
    raise_descriptor_limit();
    match command {
        Command::Serve(options) => serve::run(&options),
        Command::Demo(options) => demo::run(&options),
    }
}

/// What `FRAMEGATE_LOG` asks for: `off`, `error`, `warn`, `info`, `debug`, `trace`.
fn log_to_stderr(default: LevelFilter) {
    let level =
        std::env::var("FRAMEGATE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(default);
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
}

/// Every TCP flow of the guest is a descriptor of ours, and the usual soft limit of 1,024 is there for
/// programs that use select(2). Without the right to raise it, flows end at the old one.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit on open files: {error}");
    }
}
