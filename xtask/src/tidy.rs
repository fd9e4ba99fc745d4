//! What neither rustfmt nor clippy looks at: lengths, words, and what the core depends on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, root, show};

/// A file that is longer is probably two.
const LINES_MAX: usize = 600;

/// The heading in CONTRIBUTING.md under which the words stand, one in each `- ` line.
const WORDS_HEADING: &str = "## Words that do not pass";

/// What the core must not reach, however indirectly: sockets, clocks, files and logging.
const NOT_IN_CORE: &[&str] = &[
    "async-io",
    "async-std",
    "chrono",
    "fs-err",
    "log",
    "mio",
    "nix",
    "polling",
    "rustix",
    "signal-hook",
    "sled",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tracing",
    "tracing-core",
    "walkdir",
];

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    let files = tracked_files()?;
    warn_of_long_files(&root, &files)?;
    find_words(&root, &files)?;
    core_is_no_std(&root)?;
    core_dependencies_are_pure()?;
    println!("{} files are tidy, and the core is pure", files.len());
    Ok(())
}

fn tracked_files() -> Result<Vec<String>> {
    let list = cargo::capture(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    )?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn warn_of_long_files(root: &Path, files: &[String]) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let Some(text) = read(root, file)? else {
            continue;
        };
        let lines = text.lines().count();
        if lines > LINES_MAX {
            show::progress(&format!(
                "{file} has {lines} lines: it is probably two files"
            ));
        }
    }
    Ok(())
}

fn find_words(root: &Path, files: &[String]) -> Result<()> {
    let guide = fs::read_to_string(root.join("CONTRIBUTING.md")).context("no CONTRIBUTING.md")?;
    let words = forbidden_words(&guide);
    ensure!(
        !words.is_empty(),
        "CONTRIBUTING.md lists no words under {WORDS_HEADING:?}"
    );
    let mut found = Vec::new();
    let not_text = |file: &&String| {
        // The guide names the words, and the lock file names what others chose to call things.
        !file.ends_with("CONTRIBUTING.md") && !file.ends_with("Cargo.lock")
    };
    for file in files.iter().filter(not_text) {
        let Some(text) = read(root, file)? else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{file}:{}: {word}", number.saturating_add(1)));
            }
        }
    }
    if !found.is_empty() {
        bail!(
            "words that CONTRIBUTING.md keeps out:\n  {}",
            found.join("\n  ")
        );
    }
    Ok(())
}

/// Text of a file; `None` for a deleted or binary one.
fn read(root: &Path, file: &str) -> Result<Option<String>> {
    let path = root.join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
    Ok(String::from_utf8(bytes).ok())
}

fn forbidden_words(guide: &str) -> Vec<String> {
    guide
        .lines()
        .skip_while(|line| *line != WORDS_HEADING)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// A word in capitals is looked for as it stands, any other in any case; never inside a word.
fn has_word(line: &str, word: &str) -> bool {
    let capitals = !word.chars().any(char::is_lowercase);
    let (line, word) = if capitals {
        (line.to_owned(), word.to_owned())
    } else {
        (line.to_lowercase(), word.to_lowercase())
    };
    let is_edge = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
    line.match_indices(&word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.strip_prefix(word.as_str()).unwrap_or_default();
        is_edge(before.chars().next_back()) && is_edge(after.chars().next())
    })
}

fn core_is_no_std(root: &Path) -> Result<()> {
    let lib = fs::read_to_string(root.join("interceptor-core/src/lib.rs"))?;
    ensure!(
        lib.lines().any(|line| line == "#![no_std]"),
        "interceptor-core/src/lib.rs lost its #![no_std]: the core could reach files and clocks"
    );
    let mut previous = "";
    for line in lib.lines() {
        ensure!(
            line != "extern crate std;" || previous == "#[cfg(test)]",
            "interceptor-core/src/lib.rs takes std in outside of tests"
        );
        previous = line;
    }
    Ok(())
}

fn core_dependencies_are_pure() -> Result<()> {
    // As the core alone asks for them: other crates of the workspace may turn more features on.
    let options = "tree --locked -p interceptor-core -e normal --prefix none --format {p}|{f}";
    let options: Vec<&str> = options.split(' ').collect();
    let tree = cargo::capture("cargo", &options)?;
    let impure = impure(&tree);
    ensure!(
        impure.is_empty(),
        "interceptor-core must do no I/O, but depends on {}; `cargo tree -p interceptor-core -e normal -i NAME` says why",
        impure.join(", ")
    );
    Ok(())
}

/// The packages in the lines `name version|features` that the core must not reach.
fn impure(tree: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in tree.lines() {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        // Without `std` it is arithmetic and tables, and has no clock.
        let has_clock = || features.split([',', ' ']).any(|feature| feature == "std");
        if NOT_IN_CORE.contains(&name) || (name == "jiff" && has_clock()) {
            found.push(name);
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_whole_words_only() {
        assert!(has_word("// LATER: more", "LATER"));
        assert!(!has_word("collateral", "later"));
        assert!(!has_word("later!()", "LATER"));
        assert!(has_word("The Greylist.", "greylist"));
        assert!(has_word("müde greylist", "greylist"));
    }

    #[test]
    fn reads_the_words_of_its_section() {
        let guide =
            format!("- `no`\n{WORDS_HEADING}\n\ntext\n- `A`: why\n- `b c`\n## Next\n- `no`");
        assert_eq!(forbidden_words(&guide), ["A", "b c"]);
    }

    #[test]
    fn what_the_core_must_not_reach_is_found() {
        let tree = "core v1 (/core)|\nmio v1|\njiff v0.2|alloc,tzdb-bundle-always\nserde v1|std\n";
        assert_eq!(impure(tree), ["mio"]);
        assert_eq!(impure("jiff v0.2|alloc,std (*)"), ["jiff"]);
    }
}
