//! Builds the eBPF programs of `interceptor-ebpf` into `OUT_DIR`, where `src/kernel/objects.rs`
//! embeds them. Both builds are small; they run again only when their sources change.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
/// Debian's compiler: the only one that ships a compiled `core` for eBPF.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The objects in C, by the names of their sources.
const C_OBJECTS: [&str; 4] = ["guard", "identify", "sever", "unix"];

fn main() {
    if let Err(message) = build() {
        // Cargo shows this line to the person who builds.
        println!("cargo::error={message}");
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let source = manifest
        .parent()
        .ok_or("interceptor-user has no parent directory")?
        .join("interceptor-ebpf");
    for path in [
        "src",
        "c",
        "Cargo.toml",
        "Cargo.lock",
        "../interceptor-common/src",
    ] {
        println!("cargo::rerun-if-changed={}", source.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    build_c(&source, &out)?;
    build_rust(&source, &out)
}

fn build_c(source: &Path, out: &Path) -> Result<(), String> {
    // The kernel's headers include <asm/types.h>, which Debian keeps in a directory per architecture.
    let multiarch = format!(
        "/usr/include/{}-linux-gnu",
        variable("CARGO_CFG_TARGET_ARCH")?
    );
    for object in C_OBJECTS {
        let mut clang = Command::new("clang");
        clang.args([
            "-O2",
            "-g",
            "-target",
            "bpf",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-idirafter",
            &multiarch,
        ]);
        clang
            .arg("-c")
            .arg(source.join(format!("c/{object}.bpf.c")))
            .arg("-o")
            .arg(out.join(format!("{object}.bpf.o")));
        run(clang, "clang")?;
    }
    Ok(())
}

fn build_rust(source: &Path, out: &Path) -> Result<(), String> {
    let target_dir = out.join("ebpf");
    let mut cargo = rust_toolchain()?;
    cargo
        .current_dir(source)
        .args(["build", "--release", "--locked", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir);
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{}\"", variable("CARGO_CFG_TARGET_ARCH")?),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run(cargo, "the eBPF build")?;
    let object = target_dir.join(TARGET).join("release/interceptor-ebpf");
    std::fs::copy(&object, out.join("cgroup.o"))
        .map(drop)
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))
}

/// Cargo with a compiler that can build for eBPF.
fn rust_toolchain() -> Result<Command, String> {
    let mut cargo = if debian_has_core() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // `core` is built already, and `bpf_target_arch` needs an unstable check of `cfg` names.
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        cargo
    } else if succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        let mut cargo = Command::new("rustup");
        cargo
            .args(["run", "nightly", "cargo", "-Zbuild-std=core"])
            .env_remove("RUSTC");
        cargo
    } else {
        return Err(missing("a Rust compiler for eBPF"));
    };
    // What the outer build set for the host's compiler (clippy, flags, wrappers) is wrong for this one.
    for name in outer_build_variables() {
        cargo.env_remove(name);
    }
    Ok(cargo)
}

fn outer_build_variables() -> impl Iterator<Item = OsString> {
    let fixed = [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTUP_TOOLCHAIN",
        "CARGO_BUILD_TARGET",
    ];
    let per_build = env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_PKG_")
    });
    fixed.into_iter().map(OsString::from).chain(per_build)
}

fn debian_has_core() -> bool {
    let mut rustc = Command::new(DEBIAN_RUSTC);
    rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .env("RUSTC_BOOTSTRAP", "1");
    let Ok(output) = rustc.output() else {
        return false;
    };
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    output.status.success()
        && directory.read_dir().is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore"))
            })
        })
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn run(mut command: Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|_| missing(what))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("linker `bpf-linker` not found") {
        return Err(missing("bpf-linker"));
    }
    // The compiler's own words, for whoever works on the programs.
    eprintln!("{text}");
    Err(format!(
        "{what} failed; its output is above. If a header or a target is missing, run `cargo xtask setup`"
    ))
}

fn missing(what: &str) -> String {
    format!("{what} is missing; run `cargo xtask setup`, which installs what the eBPF build needs")
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
