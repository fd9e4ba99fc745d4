//! `cargo xtask setup`: everything that building and testing need, on a bare Debian.
//!
//! It looks before it acts, so that a complete machine costs a few milliseconds.

mod clients;
mod postgresql;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::show;

/// What Debian's packages give, why, and how a machine without them can be recognised.
///
/// `protobuf-compiler` must not be here: with a `protoc` in PATH, pg_query's build script
/// regenerates its sources inside Cargo's registry.
const NEEDS: &[Need] = &[
    need(
        &["gcc", "make", "pkg-config"],
        "cc",
        "linking, and the C parts",
    ),
    need(
        &["libelf-dev", "zlib1g-dev"],
        "/usr/include/libelf.h",
        "libbpf",
    ),
    need(
        &["libbpf-dev"],
        "/usr/include/bpf/bpf_helpers.h",
        "the eBPF programs in C",
    ),
    need(
        &["clang", "libclang-dev"],
        "clang",
        "the eBPF programs in C, and bindgen",
    ),
    need(
        &["rustc-web", "libstd-rust-web-dev-bpf"],
        "/usr/bin/rustc",
        "the eBPF programs in Rust",
    ),
    need(
        &["llvm-22-dev"],
        "/usr/lib/llvm-22/bin/llvm-config",
        "bpf-linker",
    ),
    need(&["nftables"], "nft", "the backstop of the kernel plane"),
    need(
        &["iproute2"],
        "ip",
        "routes, and network namespaces in tests",
    ),
    need(
        &["util-linux"],
        "nsenter",
        "looking into network namespaces",
    ),
    need(&["bpftool"], "bpftool", "looking into the kernel"),
    need(&["postgresql"], "postgres", "tests and demo"),
    need(&["dnsmasq-base"], "dnsmasq", "tests with names"),
    need(&["redis-server"], "redis-server", "tests"),
    need(&["qemu-system-x86"], "qemu-system-x86_64", "other kernels"),
    need(
        &["busybox-static", "cpio", "kmod", "xz-utils"],
        "cpio",
        "the initramfs of other kernels",
    ),
    need(&["python3-venv"], "python3", "clients of Python in tests"),
    need(
        &["default-jdk-headless"],
        "javac",
        "clients of Java in tests",
    ),
    need(
        &["libpostgresql-jdbc-java"],
        "/usr/share/java/postgresql.jar",
        "tests with pgjdbc",
    ),
    need(&["haproxy"], "haproxy", "the bench"),
    need(&["pgbouncer"], "pgbouncer", "the bench"),
];

const BPF_LINKER_VERSION: &str = "0.13.0";
const POLICY_RC: &str = "/usr/sbin/policy-rc.d";

struct Need {
    packages: &'static [&'static str],
    /// A program in PATH, or a file if it starts with a slash.
    probe: &'static str,
    purpose: &'static str,
}

const fn need(
    packages: &'static [&'static str],
    probe: &'static str,
    purpose: &'static str,
) -> Need {
    Need {
        packages,
        probe,
        purpose,
    }
}

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    if is_debian()? {
        install_packages()?;
    } else {
        demand_tools()?;
    }
    install_bpf_linker()?;
    postgresql::install()?;
    clients::install()?;
    show::progress(&format!(
        "setup is complete ({})",
        show::duration(start.elapsed())
    ));
    Ok(())
}

fn is_debian() -> Result<bool> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        return Ok(false);
    }
    // Testing and unstable have no version.
    let version: u32 = field("VERSION_ID").map_or(Ok(u32::MAX), |text| text.parse())?;
    ensure!(
        version >= 12,
        "Debian {version} is too old for the eBPF toolchain; use Debian 12 or later"
    );
    Ok(true)
}

fn install_packages() -> Result<()> {
    let wanted: Vec<&str> = NEEDS
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    let missing = missing_packages(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "these packages are missing and installing them needs root: apt-get install {}",
        missing.join(" ")
    );
    show::progress(&format!("installing with apt-get: {}", missing.join(" ")));
    let _quiet = NoServices::begin()?;
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    let still = missing_packages(&wanted)?;
    ensure!(
        still.is_empty(),
        "apt-get did not install {}",
        still.join(" ")
    );
    Ok(())
}

/// Installs a package that only some need, unless its program is there.
pub(crate) fn install_if_missing(program: &str, package: &str) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    ensure!(
        is_debian()? && nix::unistd::geteuid().is_root(),
        "{program} is missing; install it (Debian 12: as root, apt-get install {package})"
    );
    show::progress(&format!("installing with apt-get: {package}"));
    apt(&["install", "--yes", "--no-install-recommends", package])
}

fn missing_packages<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    // It fails when it does not know one of the names, and still prints the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Abbrev}\n"])
        .args(wanted)
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" ii"))
        .collect();
    Ok(wanted
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(["-q", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    ensure!(
        status.success(),
        "apt-get {} failed ({status}); see its message above",
        arguments.first().copied().unwrap_or_default()
    );
    Ok(())
}

/// While it lives, packages that bring a service do not start it (Debian's `policy-rc.d`).
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let ours = !Path::new(POLICY_RC).exists();
        if ours {
            fs::write(POLICY_RC, "#!/bin/sh\nexit 101\n")
                .with_context(|| format!("cannot write {POLICY_RC}"))?;
            fs::set_permissions(POLICY_RC, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY_RC)
        {
            show::failed(&format!("remove {POLICY_RC} by hand: {error}"));
        }
    }
}

fn demand_tools() -> Result<()> {
    let missing: Vec<String> = NEEDS
        .iter()
        // The packaged compiler is Debian's way to a `core` for BPF; elsewhere rustup's nightly is.
        .filter(|need| need.probe != "/usr/bin/rustc")
        .filter(|need| find(need.probe).is_none())
        .map(|need| {
            let packages = need.packages.join(", ");
            format!("  {} for {} (Debian: {packages})", need.probe, need.purpose)
        })
        .collect();
    if !missing.is_empty() {
        bail!(
            "this is not Debian, so install these yourself:\n{}\nand for the eBPF programs in Rust: \
             rustup toolchain install nightly --component rust-src",
            missing.join("\n")
        );
    }
    Ok(())
}

fn install_bpf_linker() -> Result<()> {
    if installed_bpf_linker().as_deref() == Some(BPF_LINKER_VERSION) {
        return Ok(());
    }
    show::progress(&format!(
        "building bpf-linker {BPF_LINKER_VERSION} (a few minutes)"
    ));
    let llvm = "/usr/lib/llvm-22";
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION])
        .args([
            "--no-default-features",
            "--features",
            "llvm-22",
            "--locked",
            "--force",
        ])
        .stdin(Stdio::null());
    if Path::new(llvm).exists() {
        cargo.env("LLVM_PREFIX", llvm);
    }
    let status = cargo.status().context("cannot run cargo install")?;
    ensure!(
        status.success(),
        "bpf-linker did not build; it needs LLVM 22 with headers (LLVM_PREFIX says where)"
    );
    Ok(())
}

fn installed_bpf_linker() -> Option<String> {
    let program = find("bpf-linker").or_else(|| {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        Some(home.join("bin/bpf-linker")).filter(|path| path.exists())
    })?;
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// A program in PATH, or a file.
pub(crate) fn find(probe: &str) -> Option<PathBuf> {
    if probe.starts_with('/') {
        return Some(PathBuf::from(probe)).filter(|path| path.exists());
    }
    // Root's tools, which a user's PATH leaves out.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administration)
        .map(|directory| directory.join(probe))
        .find(|file| file.is_file())
}
