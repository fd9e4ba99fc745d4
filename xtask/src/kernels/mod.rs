//! `cargo xtask kernels`: the gateway on other kernels than the running one.
//!
//! Debian's kernels are booted in QEMU, whose emulation needs no virtualisation, with this host's files
//! as a read-only root. Nothing of them is installed. The same checks and tests run there and here,
//! and a table shows what each kernel has and which fallback took its place.

mod core;
mod guest;
mod image;
mod table;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::{cargo, setup, show};
use core::{Outcome, Plan};

/// How to run on other kernels.
#[derive(Args)]
pub(crate) struct Options {
    /// Run on this kernel only: `running`, or how its release begins, such as 6.1
    #[arg(long, value_name = "RELEASE")]
    only: Option<String>,
    /// Run only the tests whose name has this in it
    #[arg(long, value_name = "TEXT")]
    step: Option<String>,
    /// Write what was found as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Check vagrant/Vagrantfile instead, with Vagrant, which is installed where Debian has it
    #[arg(long)]
    vagrant: bool,
    /// Run the plan in this directory; what a guest starts
    #[arg(long, hide = true, value_name = "DIR")]
    inside: Option<PathBuf>,
}

/// A kernel that Debian has, by how its release begins, and the package that depends on its newest.
const PACKAGES: [(&str, &str); 2] = [
    ("6.1", "linux-image-amd64"),
    ("6.12", "linux-image-6.12-amd64"),
];
/// What `--only` calls the kernel of this host.
const RUNNING: &str = "running";
/// Where a guest does not see this host's files (init.sh).
const HIDDEN: [&str; 4] = ["/dev", "/run", "/tmp", "/var/tmp"];
/// How much longer than on a processor of its own everything may take in a guest.
const GUEST_SLOWNESS: u32 = 5;

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(directory) = &options.inside {
        return core::run_inside(directory);
    }
    if options.vagrant {
        return validate_vagrant();
    }
    ensure!(
        geteuid().is_root(),
        "network namespaces and eBPF need root; run this as root"
    );
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    ensure!(
        PACKAGES.iter().any(|(begin, _)| wanted(begin)) || wanted(RUNNING),
        "--only takes {RUNNING}, {}",
        PACKAGES.map(|(begin, _)| begin).join(", ")
    );
    let root = crate::root()?;
    ensure!(
        !HIDDEN.iter().any(|place| root.starts_with(place)),
        "a guest has its own {}; move {} elsewhere",
        HIDDEN.join(", "),
        root.display()
    );
    setup::run()?;
    let plan = Plan {
        binaries: cargo::build_tests(&core::TESTS)?,
        slowness: 1,
        with_filters: false,
        only: options.step.clone().unwrap_or_default(),
    };
    let mut outcomes = Vec::new();
    for (begin, package) in PACKAGES.into_iter().filter(|(begin, _)| wanted(begin)) {
        let image = image::fetch(begin, package)?;
        show::progress(&format!("{}: in a guest", image.release));
        let plan = Plan {
            slowness: GUEST_SLOWNESS,
            ..plan.clone()
        };
        outcomes.push(guest::run(&image, &plan)?);
    }
    if wanted(RUNNING) {
        show::progress("the running kernel: in network namespaces");
        outcomes.push(core::run(&Plan {
            with_filters: true,
            ..plan
        })?);
    }
    report(options, &outcomes)
}

fn report(options: &Options, outcomes: &[Outcome]) -> Result<()> {
    table::print(outcomes);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(outcomes)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_good())
        .map(|outcome| outcome.kernel.as_str())
        .collect();
    ensure!(
        failed.is_empty(),
        "something failed on {}",
        failed.join(", ")
    );
    Ok(())
}

/// Nothing is started: it needs no machine that can run others.
fn validate_vagrant() -> Result<()> {
    setup::install_if_missing("vagrant", "vagrant")?;
    let directory = crate::root()?.join("vagrant");
    let scratch = tempfile::tempdir()?;
    let [directory, scratch] =
        [&directory, scratch.path()].map(|path| path.to_string_lossy().into_owned());
    for (release, _) in PACKAGES {
        cargo::run_with(
            "vagrant",
            &["validate", "--ignore-provider"],
            &[
                ("VAGRANT_CWD", &directory),
                ("VAGRANT_DOTFILE_PATH", &scratch),
                ("VAGRANT_HOME", &scratch),
                ("INTERCEPTOR_KERNEL", release),
            ],
        )?;
    }
    Ok(())
}
