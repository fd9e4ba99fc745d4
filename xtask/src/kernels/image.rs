//! Kernels out of Debian's packages: downloaded and unpacked below the target directory, with no
//! package installed and no boot loader asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{cargo, show};

/// A kernel that can be booted.
pub(crate) struct Image {
    /// Its release, as `uname -r` says it.
    pub(crate) release: String,
    /// Where the package was unpacked.
    directory: PathBuf,
}

impl Image {
    pub(crate) fn kernel(&self) -> PathBuf {
        self.directory
            .join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The directory that belongs at `/lib/modules/<release>`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }

    /// The files of modules and of what they need, in the order of loading.
    pub(crate) fn files_of(&self, modules: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in modules {
            let output = Command::new("modprobe")
                .arg("--dirname")
                .arg(&self.directory)
                .args(["--set-version", &self.release, "--show-depends", module])
                .output()
                .context("cannot run modprobe; run `cargo xtask setup`")?;
            ensure!(
                output.status.success(),
                "the kernel {} has no module {module}",
                self.release
            );
            // Lines are `insmod FILE`, or `builtin NAME`.
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if let Some(file) = line.strip_prefix("insmod ")
                    && let file = PathBuf::from(file.trim())
                    && !files.contains(&file)
                {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// Where everything of this task is kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let metadata = cargo::metadata(&["--no-deps"])?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    let cache = Path::new(target.ok_or_else(|| anyhow!("cargo has no target directory"))?);
    let cache = cache.join("kernels");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// The newest kernel whose release begins with `begin`, as `package` depends on it.
pub(crate) fn fetch(begin: &str, package: &str) -> Result<Image> {
    let depends = cargo::capture("apt-cache", &["depends", package])?;
    let newest = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .ok_or_else(|| anyhow!("apt knows no {package}; run apt-get update"))?;
    ensure!(
        newest.starts_with(&format!("{begin}.")),
        "{package} is Linux {newest} here, not {begin}; use --only"
    );
    let cache = cache()?;
    let image = Image {
        release: newest.to_owned(),
        directory: cache.join(newest),
    };
    if !image.directory.exists() {
        remove_older(&cache, begin)?;
        unpack(&cache, &image)?;
    }
    Ok(image)
}

/// Each is several hundred megabytes.
fn remove_older(cache: &Path, begin: &str) -> Result<()> {
    for entry in fs::read_dir(cache)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("{begin}.")) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn unpack(cache: &Path, image: &Image) -> Result<()> {
    let package = format!("linux-image-{}", image.release);
    show::progress(&format!("downloading {package}"));
    let scratch = tempfile::Builder::new().prefix("new-").tempdir_in(cache)?;
    let download = Command::new("apt-get")
        .args(["-q", "download", &package])
        .current_dir(scratch.path())
        .output()
        .context("cannot run apt-get")?;
    ensure!(
        download.status.success(),
        "apt-get did not download {package}: {}",
        String::from_utf8_lossy(&download.stderr)
    );
    let file = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .ok_or_else(|| anyhow!("apt-get left no package"))?;
    let unpacked = scratch.path().join("root");
    let [file, root] = [&file, &unpacked].map(|path| path.to_string_lossy().into_owned());
    cargo::run("dpkg-deb", &["--extract", &file, &root])?;
    // Debian does this when it installs the package.
    cargo::run("depmod", &["--basedir", &root, &image.release])?;
    // In one step: half a kernel is none.
    Ok(fs::rename(&unpacked, &image.directory)?)
}
