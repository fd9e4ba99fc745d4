//! `cargo xtask bench pii`: what the patterns of masks find in a labelled corpus, beside Presidio's pattern
//! recognisers on the same cells, and how fast both are.
//!
//! [`corpus.py`](pii/corpus.py) writes the corpus, with values by faker; the core's example `pattern_cost` and
//! [`presidio.py`](pii/presidio.py) look through it. A finding is right if it shares with a label of its kind at
//! least half of the bytes that either has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::report::Measure;
use crate::{cargo, root, show};

/// What the environment for Python is made of. Its directory has the versions in its name.
const PACKAGES: [&str; 2] = ["presidio-analyzer==2.2.366", "faker==40.54.0"];
const ENVIRONMENT: &str = "presidio-2.2.366-faker-40.54.0";
/// Cells with a value of each kind; as many as all of them together hold none.
const CELLS: u32 = 1_000;
const CELLS_QUICK: u32 = 50;
/// Megabytes a second on text with few matches.
const PROSE_MIN: f64 = 500.0;
/// Nanoseconds for a cell of 20 bytes without a match.
const CELL_NS_MAX: f64 = 30.0;

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the measures to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small corpus: shows that the bench works
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    let python = environment(&target)?;
    let place = tempfile::tempdir().context("cannot make a temporary directory")?;
    let directory = text(place.path())?;
    let scripts = root()?.join("xtask/src/bench/pii");
    let script = |name: &str| text(&scripts.join(name));

    let count = if options.quick { CELLS_QUICK } else { CELLS };
    show::progress("writing the corpus");
    let count = count.to_string();
    cargo::run(&python, &[&script("corpus.py")?, &directory, &count])?;

    show::progress("building and measuring the gateway's patterns");
    let build = [
        "build",
        "--release",
        "--workspace",
        "--example",
        "pattern_cost",
    ];
    cargo::run("cargo", &build)?;
    let program = text(&target.join("release/examples/pattern_cost"))?;
    let file = |name: &str| text(&place.path().join(name));
    let (cells, found, prose) = (file("cells")?, file("ours")?, file("prose")?);
    let printed = cargo::capture(&program, &[&cells, &found, &prose])?;
    let mut measures = printed.lines().map(speed).collect::<Result<Vec<_>>>()?;

    show::progress("measuring Presidio's, which takes minutes");
    let printed = cargo::capture(&python, &[&script("presidio.py")?, &directory])?;
    let value = printed
        .trim()
        .parse()
        .context("presidio.py printed no rate")?;
    measures.push(measure("cells, presidio".into(), value, "MB/s", None));

    let labels = read(&place.path().join("labels"))?;
    let ours = read(&place.path().join("ours"))?;
    let presidio = read(&place.path().join("presidio"))?;
    measures.extend(scores(&labels, &ours, &presidio));
    for one in &measures {
        if one.unit != "ratio" {
            let goal = match (one.target, one.ok) {
                (Some(goal), Some(true)) => format!("goal met: {goal}"),
                (Some(goal), _) => format!("goal missed: {goal}"),
                _ => String::new(),
            };
            println!(
                "{:<32} {:>10.2} {:<5} {goal}",
                one.name, one.value, one.unit
            );
        }
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&measures)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Python with the packages, made once.
fn environment(target: &Path) -> Result<String> {
    let place = target.join(ENVIRONMENT);
    let python = text(&place.join("bin/python"))?;
    let complete = place.join("complete");
    if !complete.exists() {
        show::progress("installing Presidio and faker");
        cargo::run("python3", &["-m", "venv", "--clear", &text(&place)?])?;
        let install = ["-m", "pip", "install", "--quiet"];
        cargo::run(&python, &[&install[..], &PACKAGES].concat())?;
        fs::write(&complete, "").context("cannot mark the environment as complete")?;
    }
    Ok(python)
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().context("a path is not UTF-8")?;
    Ok(text.to_owned())
}

fn measure(name: String, value: f64, unit: &'static str, goal: Option<(f64, bool)>) -> Measure {
    Measure {
        name,
        value,
        unit,
        target: goal.map(|(target, _)| target),
        ok: goal.map(|(_, ok)| ok),
    }
}

/// A line of what `pattern_cost` prints.
fn speed(line: &str) -> Result<Measure> {
    let mut fields = line.split('\t');
    let (Some(name), Some(value), Some(unit)) = (fields.next(), fields.next(), fields.next())
    else {
        anyhow::bail!("`{line}` is no measure");
    };
    let value: f64 = value.parse()?;
    let goal = match name {
        "prose" => Some((PROSE_MIN, value >= PROSE_MIN)),
        "cell of 20 bytes" => Some((CELL_NS_MAX, value <= CELL_NS_MAX)),
        _ => None,
    };
    let unit = if unit == "ns" { "ns" } else { "MB/s" };
    Ok(measure(name.to_owned(), value, unit, goal))
}

/// A value in a cell: what it is, its first byte and its end.
struct Value {
    entity: String,
    start: usize,
    end: usize,
}

impl Value {
    fn fits(&self, other: &Self) -> bool {
        let both = self
            .end
            .min(other.end)
            .saturating_sub(self.start.max(other.start));
        let either = self.end.max(other.end) - self.start.min(other.start);
        self.entity == other.entity && both * 2 >= either
    }
}

type Cells = BTreeMap<u32, Vec<Value>>;

fn read(file: &Path) -> Result<Cells> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut cells = Cells::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [cell, entity, start, end] = fields.as_slice() else {
            anyhow::bail!("`{line}` is no value");
        };
        let value = Value {
            entity: (*entity).to_owned(),
            start: start.parse()?,
            end: end.parse()?,
        };
        ensure!(value.start < value.end, "`{line}` is an empty value");
        cells.entry(cell.parse()?).or_default().push(value);
    }
    Ok(cells)
}

/// How many of the first have their like in the second, and how many there are.
fn hits(of: &Cells, among: &Cells, entity: &str) -> (usize, usize) {
    let mut counts = (0, 0);
    for (cell, values) in of {
        for value in values.iter().filter(|value| value.entity == entity) {
            let others = among.get(cell).map_or(&[][..], Vec::as_slice);
            counts.0 += usize::from(others.iter().any(|other| other.fits(value)));
            counts.1 += 1;
        }
    }
    counts
}

/// Prints precision and recall of both for each kind of value.
fn scores(labels: &Cells, ours: &Cells, presidio: &Cells) -> Vec<Measure> {
    let entities: BTreeSet<&str> = labels
        .values()
        .flatten()
        .map(|value| value.entity.as_str())
        .collect();
    println!(
        "| pattern | precision | recall | Presidio's precision | recall |\n|---|---|---|---|---|"
    );
    let mut measures = Vec::new();
    for entity in entities {
        let mut row = format!("| `{entity}` |");
        for (who, found) in [("ours", ours), ("presidio", presidio)] {
            let (right, all) = hits(found, labels, entity);
            let (met, wanted) = hits(labels, found, entity);
            if all == 0 {
                row += " – | – |";
                continue;
            }
            let (precision, recall) = (right as f64 / all as f64, met as f64 / wanted as f64);
            row += &format!(" {precision:.3} | {recall:.3} |");
            for (what, value) in [("precision", precision), ("recall", recall)] {
                measures.push(measure(
                    format!("{entity}, {what}, {who}"),
                    value,
                    "ratio",
                    None,
                ));
            }
        }
        println!("{row}");
    }
    measures
}
