//! A guest: QEMU with an emulated processor, a small initramfs, and this host's files as its root,
//! read-only, under a file system in the guest's memory.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::process;

use super::core::{self, Outcome, Plan};
use super::image::{self, Image};
use crate::{cargo, root};

/// What runs first, before there is a root.
const INIT: &str = include_str!("init.sh");
/// What a guest needs before it can load modules from its root.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// How long a guest may take, from power on to power off.
const GUEST_TIME_MAX: Duration = Duration::from_secs(1800);
const MEMORY_MIB: &str = "2048";
const PROCESSORS: &str = "2";
/// Lines of the console that are shown when a guest fails.
const TAIL_LINES: usize = 60;

/// Boots the kernel and runs the plan there.
pub(crate) fn run(image: &Image, plan: &Plan) -> Result<Outcome> {
    let scratch = tempfile::Builder::new()
        .prefix("guest-")
        .tempdir_in(image::cache()?)?;
    let shared = scratch.path().join("shared");
    fs::create_dir(&shared)?;
    core::write_plan(&shared, &strip(scratch.path(), plan)?)?;
    write_start(&shared, image)?;
    let initramfs = make_initramfs(scratch.path(), image)?;
    let console = boot(image, &initramfs, &shared)?;
    match core::read_outcome(&shared)? {
        Some(outcome) => Ok(outcome),
        None => {
            let lines: Vec<&str> = console.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..);
            bail!(
                "the guest with {} left no outcome; its console said\n{}",
                image.release,
                tail.unwrap_or_default().join("\n")
            )
        }
    }
}

/// Copies of the binaries without what debuggers need: that is nine tenths of them, and an emulated
/// processor takes seconds to read or hash it. They also stay what they are if somebody builds.
fn strip(scratch: &Path, plan: &Plan) -> Result<Plan> {
    let mut plan = plan.clone();
    for (name, path) in &mut plan.binaries {
        let copy = scratch.join(name);
        let [from, to] = [&*path, &copy].map(|path| path.to_string_lossy().into_owned());
        cargo::run("objcopy", &["--strip-debug", &from, &to])?;
        *path = copy;
    }
    Ok(plan)
}

/// The script that the guest runs as its first process once it has a root.
fn write_start(shared: &Path, image: &Image) -> Result<()> {
    let myself = std::env::current_exe()?;
    let text = format!(
        "mkdir -p /lib/modules/{release}\n\
         mount --bind '{modules}' /lib/modules/{release}\n\
         modprobe tun\n\
         ip link set lo up\n\
         sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n\
         cd '{root}'\n\
         '{myself}' kernels --inside /run/shared\n\
         exec busybox poweroff -f\n",
        release = image.release,
        modules = image.modules().display(),
        root = root()?.display(),
        myself = myself.display(),
    );
    Ok(fs::write(shared.join("start.sh"), text)?)
}

fn make_initramfs(scratch: &Path, image: &Image) -> Result<PathBuf> {
    let tree = scratch.join("initramfs");
    fs::create_dir_all(tree.join("modules"))?;
    fs::copy("/bin/busybox", tree.join("busybox"))
        .context("cannot copy /bin/busybox; run `cargo xtask setup`")?;
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut order = File::create(tree.join("modules/order"))?;
    for file in image.files_of(&MODULES)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".xz");
        writeln!(order, "{name}")?;
        let target = tree.join("modules").join(name);
        if file.extension().is_some_and(|end| end == "xz") {
            filter(Command::new("xz").arg("-dc").arg(&file), &target)?;
        } else {
            fs::copy(&file, &target)?;
        }
    }
    let archive = scratch.join("initramfs.cpio");
    let mut cpio = Command::new("sh");
    cpio.args(["-c", "find . | cpio --create --format=newc --quiet"]);
    filter(cpio.current_dir(&tree), &archive)?;
    Ok(archive)
}

/// Runs a program whose output becomes a file.
fn filter(command: &mut Command, target: &Path) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(File::create(target)?)
        .status()
        .context("cannot run it; run `cargo xtask setup`")?;
    ensure!(status.success(), "writing {}: {status}", target.display());
    Ok(())
}

/// Runs the guest to its end; what its console printed.
fn boot(image: &Image, initramfs: &Path, shared: &Path) -> Result<String> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-smp",
        PROCESSORS,
        "-m",
        MEMORY_MIB,
    ])
    .args(["-nodefaults", "-no-reboot", "-display", "none"])
    .args(["-monitor", "none", "-serial", "stdio"])
    .arg("-kernel")
    .arg(image.kernel())
    .arg("-initrd")
    .arg(initramfs)
    .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
    .arg("-virtfs")
    .arg("local,path=/,mount_tag=host,readonly=on,security_model=none,multidevs=remap")
    .arg("-virtfs")
    .arg(format!(
        "local,path={},mount_tag=shared,security_model=none",
        shared.display()
    ));
    let finished = process::run(qemu, GUEST_TIME_MAX)?;
    ensure!(
        finished.status.success(),
        "QEMU failed: {}",
        finished.stderr
    );
    Ok(finished.stdout)
}
