//! The core: what is checked and run on each kernel, in a guest and on this host alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use interceptor_tests::process;
use serde::{Deserialize, Serialize};

use crate::{root, show};

/// The tests that have to be built.
pub(crate) const TESTS: [&str; 4] = ["kernel_plane", "kernel_edge", "filters", "end_to_end"];

/// A file of the guest's shared directory.
const PLAN: &str = "plan.json";
const OUTCOME: &str = "outcome.json";

/// The kernel plane without its thousands of targets, which take an emulated processor too long; and of
/// the end-to-end tests what depends on the kernel, and a refusal, a hold and a mask with the real
/// PostgreSQL.
const STEPS: [(&str, &str); 12] = [
    ("kernel_plane", "life"),
    ("kernel_plane", "packets"),
    ("kernel_plane", "clients"),
    ("kernel_plane", "hosts"),
    ("kernel_edge", ""),
    ("filters", ""),
    (
        "end_to_end",
        "deny::names_its_rule_and_leaves_the_session_usable",
    ),
    ("end_to_end", "hold::approved_it_goes_on"),
    ("end_to_end", "masks::text_rows"),
    (
        "end_to_end",
        "lifecycle::killed_it_refuses_and_restarted_it_carries",
    ),
    ("end_to_end", "lifecycle::a_local_process_is_known"),
    ("end_to_end", "lifecycle::detached_it_leaves_nothing"),
];
/// How long a step may take on a processor of its own.
const STEP_TIME_MAX: Duration = Duration::from_secs(180);
/// Lines of a failed step that are shown.
const TAIL_LINES: usize = 60;

/// What to run.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// `interceptor` and the tests.
    pub(crate) binaries: BTreeMap<String, PathBuf>,
    /// By what the tests multiply their limits on time.
    pub(crate) slowness: u32,
    /// Run the kernel plane with tc filters too, where the kernel would not need them.
    pub(crate) with_filters: bool,
    /// Only steps whose name has this in it.
    pub(crate) only: String,
}

/// What was found on a kernel.
#[derive(Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Its release.
    pub(crate) kernel: String,
    /// What `interceptor doctor` says.
    pub(crate) checks: Vec<Check>,
    /// What ran.
    pub(crate) steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) detail: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) seconds: f64,
    /// The end of what it printed, if it failed.
    pub(crate) output: String,
}

impl Outcome {
    /// Whether the gateway can run there, and everything passed.
    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.state != "missing")
            && self.steps.iter().all(|step| step.passed)
    }
}

/// Writes the plan where [`run_inside`] finds it.
pub(crate) fn write_plan(directory: &Path, plan: &Plan) -> Result<()> {
    Ok(fs::write(directory.join(PLAN), serde_json::to_vec(plan)?)?)
}

/// What [`run_inside`] left; `None` if it did not come that far.
pub(crate) fn read_outcome(directory: &Path) -> Result<Option<Outcome>> {
    match fs::read(directory.join(OUTCOME)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Runs the plan of a directory, and leaves the outcome there.
pub(crate) fn run_inside(directory: &Path) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(directory.join(PLAN))?)?;
    let outcome = run(&plan)?;
    // In one step: half an outcome is none.
    let scratch = directory.join("outcome.new");
    fs::write(&scratch, serde_json::to_vec(&outcome)?)?;
    Ok(fs::rename(scratch, directory.join(OUTCOME))?)
}

/// Runs the plan on the running kernel.
pub(crate) fn run(plan: &Plan) -> Result<Outcome> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let checks = doctor(plan)?;
    let mut steps = Vec::new();
    for (test, filter) in STEPS {
        steps.extend(step(plan, test, filter, &[])?);
    }
    if plan.with_filters {
        let environment = [("ICPT_KT_FILTERS", "1")];
        steps.extend(step(plan, "kernel_plane", "life", &environment)?);
    }
    Ok(Outcome {
        kernel: release.trim().to_owned(),
        checks,
        steps,
    })
}

fn doctor(plan: &Plan) -> Result<Vec<Check>> {
    #[derive(Deserialize)]
    struct Report {
        checks: Vec<Check>,
    }
    let mut command = Command::new(binary(plan, "interceptor")?);
    command.args(["doctor", "--json"]);
    // It fails where something is missing, and says what all the same.
    let finished = process::run(command, STEP_TIME_MAX)?;
    let report: Report = serde_json::from_str(&finished.stdout)
        .with_context(|| format!("`interceptor doctor` printed {}", finished.stderr))?;
    Ok(report.checks)
}

/// Runs one test, unless the plan leaves it out.
fn step(
    plan: &Plan,
    test: &str,
    filter: &str,
    environment: &[(&str, &str)],
) -> Result<Option<Step>> {
    let mut name = format!("{test} {filter}").trim().to_owned();
    if !environment.is_empty() {
        name.push_str(" with tc filters");
    }
    if !name.contains(&plan.only) {
        return Ok(None);
    }
    show::progress(&name);
    let mut command = Command::new(binary(plan, test)?);
    if !filter.is_empty() {
        command.args(["--exact", filter]);
    }
    command
        .current_dir(root()?)
        .env("INTERCEPTOR_BIN", binary(plan, "interceptor")?)
        .env("INTERCEPTOR_TEST_SLOWNESS", plan.slowness.to_string())
        .envs(environment.iter().copied());
    let limit = STEP_TIME_MAX.saturating_mul(plan.slowness);
    let (passed, seconds, text) = match process::run(command, limit) {
        Ok(finished) => (
            // A name that no test has passes too, with nothing run.
            finished.status.success() && !finished.stdout.contains("running 0 tests"),
            finished.elapsed.as_secs_f64(),
            format!("{}{}", finished.stdout, finished.stderr),
        ),
        Err(error) => (false, limit.as_secs_f64(), format!("{error:#}")),
    };
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..);
    Ok(Some(Step {
        name,
        passed,
        seconds,
        output: if passed {
            String::new()
        } else {
            tail.unwrap_or_default().join("\n")
        },
    }))
}

fn binary<'p>(plan: &'p Plan, name: &str) -> Result<&'p Path> {
    let found = plan.binaries.get(name).map(PathBuf::as_path);
    found.ok_or_else(|| anyhow!("Cargo built no `{name}`"))
}
