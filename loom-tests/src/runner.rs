//! Runs models, each in a process of its own: a failure inside a `Drop` aborts, and the other models
//! must be heard all the same.

use std::fmt;
use std::fs;
use std::process::{Command, ExitCode};
#[allow(clippy::disallowed_types)] // No model runs in this process.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::explore::{Explored, Model, explore, is_full};

const HELP: &str = "\
models [OPTION]... [PART_OF_A_NAME]...

    --list              names, bounds (quick/full) and claims
    --jobs N            models that run at the same time (2)
    --first-failure     stops at the first model that fails
    --time-limit S      a model that runs for longer fails (300 s; 1200 s with FRAMEGATE_LOOM=full)
    --record FILE       writes a line for each model, with tabs: result, model, set, bound, executions,
                        seconds, cases, shows, claim, not covered

FRAMEGATE_LOOM=full explores further. LOOM_MAX_PREEMPTIONS overrides the bound of every model.";

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    list: bool,
    /// Explore this one, here.
    one: Option<String>,
    jobs: usize,
    first_failure: bool,
    limit: Duration,
    record: Option<String>,
    filters: Vec<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let limit = Duration::from_secs(if is_full() { 1200 } else { 300 });
        let mut options = Self {
            list: false,
            one: None,
            jobs: 2,
            first_failure: false,
            limit,
            record: None,
            filters: Vec::new(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg}: of what?"));
            match arg.as_str() {
                "--list" => options.list = true,
                "--one" => options.one = Some(value()?),
                "--jobs" => options.jobs = number(&value()?)?,
                "--first-failure" => options.first_failure = true,
                "--time-limit" => options.limit = Duration::from_secs(number(&value()?)? as u64),
                "--record" => options.record = Some(value()?),
                "--nocapture" => {} // What a model prints is always shown.
                option if option.starts_with('-') => return Err(HELP.into()),
                filter => options.filters.push(filter.into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, model: &Model) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| model.name.contains(part))
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

/// The line of a model that held, as its process prints it.
impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Some(bound) => write!(f, "bound={bound}")?,
            None => f.write_str("bound=none")?,
        }
        write!(f, " executions={} seconds={:.2}", self.executions, self.seconds)?;
        self.cases.iter().try_for_each(|(case, count)| write!(f, " {case}={count}"))
    }
}

/// How one model ended.
#[derive(Debug)]
struct Outcome {
    model: &'static Model,
    seconds: f64,
    /// What it explored, as it prints it, or what it said last.
    result: Result<String, String>,
}

impl Outcome {
    fn of(model: &'static Model, limit: Duration) -> Self {
        let start = Instant::now();
        let result = in_a_process(model, limit);
        Self { model, seconds: start.elapsed().as_secs_f64(), result }
    }

    /// The value of `key=value` in what was explored.
    fn field(&self, key: &str) -> &str {
        let found = self.result.as_deref().unwrap_or_default();
        let mut values = found.split(' ').filter_map(|field| field.split_once('='));
        values.find_map(|(it, value)| (it == key).then_some(value)).unwrap_or("-")
    }

    /// What was explored without what every model has.
    fn cases(&self) -> String {
        let found = self.result.as_deref().unwrap_or_default();
        found.split(' ').skip(3).collect::<Vec<_>>().join(" ")
    }

    fn verdict(&self) -> &'static str {
        if self.result.is_ok() { "ok" } else { "FAILED" }
    }

    fn print(&self) {
        match &self.result {
            Ok(found) => println!("model={} {found}", self.model.name),
            Err(said) => {
                println!("model={} FAILED after {:.1} s\n{said}", self.model.name, self.seconds)
            }
        }
    }
}

/// Explores a model in a process of its own.
fn in_a_process(model: &'static Model, limit: Duration) -> Result<String, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let limit = limit.as_secs().to_string();
    let output = Command::new(program)
        .args(["--one", model.name, "--time-limit", &limit])
        .env("RUST_BACKTRACE", "0") // Only what was said last is shown, and --one shows all.
        .output()
        .map_err(|error| error.to_string())?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match out.lines().last() {
        Some(found) if output.status.success() => Ok(found.into()),
        _ => {
            let lines: Vec<_> = out.lines().chain(err.lines()).collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n    ");
            Err(format!("    {last}\n    {}", output.status))
        }
    }
}

/// Explores models, as many at a time as there are to be jobs, and prints each as it ends.
#[allow(clippy::disallowed_types)]
fn explore_all(models: &[&'static Model], options: &Options) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let work = |ended: Sender<(usize, Outcome)>| {
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(model) = models.get(index) else { return };
            let outcome = Outcome::of(model, options.limit);
            if options.first_failure && outcome.result.is_err() {
                next.fetch_max(models.len(), Relaxed);
            }
            let _ = ended.send((index, outcome));
        }
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let (ended, outcomes) = channel();
        for _ in 0..options.jobs {
            let ended = ended.clone();
            scope.spawn(|| work(ended));
        }
        drop(ended);
        outcomes.iter().inspect(|(_, outcome)| outcome.print()).collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn print_table(outcomes: &[Outcome], seconds: f64) {
    let width = outcomes.iter().map(|outcome| outcome.model.name.len()).max().unwrap_or(0);
    println!("\n{:width$}  bound  executions  seconds", "model");
    for outcome in outcomes {
        let (bound, executions) = (outcome.field("bound"), outcome.field("executions"));
        let verdict = if outcome.result.is_ok() { "" } else { "  FAILED" };
        println!(
            "{:width$}  {bound:>5}  {executions:>10}  {:>7.2}{verdict}",
            outcome.model.name, outcome.seconds
        );
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("{} models, {failed} failed, {seconds:.0} s", outcomes.len());
}

fn record(outcomes: &[Outcome]) -> String {
    let set = if is_full() { "full" } else { "quick" };
    let mut lines = String::from(
        "result\tmodel\tset\tbound\texecutions\tseconds\tcases\tshows\tclaim\tnot covered\n",
    );
    for outcome in outcomes {
        let fields = [
            outcome.verdict(),
            outcome.model.name,
            set,
            outcome.field("bound"),
            outcome.field("executions"),
            outcome.field("seconds"),
            &outcome.cases(),
            outcome.model.shows,
            outcome.model.claim,
            outcome.model.not_covered,
        ];
        lines += &fields.join("\t");
        lines.push('\n');
    }
    lines
}

fn list(models: &[&'static Model]) {
    for model in models {
        let [quick, full] = [model.bounds.quick, model.bounds.full]
            .map(|bound| bound.map_or("none".into(), |n| n.to_string()));
        println!("{}  {quick}/{full}  {}", model.name, model.claim);
    }
}

/// The program: explores the models that the command line names, or all.
pub fn run(models: &[&'static Model]) -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if let Some(name) = &options.one {
        let Some(model) = models.iter().find(|model| model.name == name) else {
            eprintln!("no model {name}");
            return ExitCode::from(2);
        };
        println!("{}", explore(model, options.limit));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = models.iter().copied().filter(|model| options.wants(model)).collect();
    if options.list {
        list(&wanted);
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let outcomes = explore_all(&wanted, &options);
    print_table(&outcomes, start.elapsed().as_secs_f64());
    if let Some(file) = &options.record
        && let Err(error) = fs::write(file, record(&outcomes))
    {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    let held = !outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.result.is_ok());
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
