//! From samples to a table for people and a JSON array for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path as FilePath;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::paths::{Laxness, Path};

/// Begins the names of work that is done with the gateway's log in memory: no goal is about it.
pub(super) const IN_MEMORY: &str = "log_in_memory.";

/// Begin the names of work that is done with a gateway that is less strict: no goal is about it either.
const READS_OVERLAP: &str = "reads_overlap.";
const DURABILITY_PROCESS: &str = "durability_process.";

pub(super) fn less_strict(laxness: Laxness) -> &'static str {
    match laxness {
        Laxness::ReadsOverlap => READS_OVERLAP,
        Laxness::DurabilityProcess => DURABILITY_PROCESS,
    }
}

/// One run over one path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Items a second.
    pub(crate) rate: f64,
    /// Processor time of the proxy for one item; `None` where there is no proxy.
    pub(crate) cpu_us_per_item: Option<f64>,
}

/// All samples of one kind of work, in the order of the rounds.
pub(crate) struct Series {
    name: String,
    unit: &'static str,
    samples: BTreeMap<Path, Vec<Sample>>,
}

impl Series {
    pub(crate) fn new(name: String, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            samples: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, path: Path, sample: Sample) {
        self.samples.entry(path).or_default().push(sample);
    }

    fn of(&self, path: Path) -> &[Sample] {
        self.samples.get(&path).map_or(&[], Vec::as_slice)
    }

    fn rate(&self, path: Path) -> Option<f64> {
        median(self.of(path).iter().map(|sample| sample.rate))
    }

    fn cpu(&self, path: Path) -> Option<f64> {
        median(
            self.of(path)
                .iter()
                .filter_map(|sample| sample.cpu_us_per_item),
        )
    }

    /// The median over the rounds of the ratio of processor times within a round.
    fn cpu_ratio(&self, path: Path, to: Path) -> Option<f64> {
        let cpu = |path| {
            self.of(path)
                .iter()
                .filter_map(|sample| sample.cpu_us_per_item)
        };
        median(cpu(path).zip(cpu(to)).map(|(one, other)| one / other))
    }

    /// The median over the rounds of the ratio within a round.
    fn ratio(&self, path: Path, to: Path) -> Option<f64> {
        let pairs = self.of(path).iter().zip(self.of(to));
        median(pairs.map(|(one, other)| one.rate / other.rate))
    }
}

/// The median time of a query over each path, in microseconds, round by round.
#[derive(Default)]
pub(crate) struct Latencies(BTreeMap<Path, Vec<f64>>);

impl Latencies {
    pub(crate) fn add(&mut self, path: Path, p50_us: f64) {
        self.0.entry(path).or_default().push(p50_us);
    }

    fn of(&self, path: Path) -> &[f64] {
        self.0.get(&path).map_or(&[], Vec::as_slice)
    }

    fn p50(&self, path: Path) -> Option<f64> {
        median(self.of(path).iter().copied())
    }

    /// What the path adds to the direct one: the median over the rounds of the difference within one.
    fn added(&self, path: Path) -> Option<f64> {
        let pairs = self.of(path).iter().zip(self.of(Path::Direct));
        median(pairs.map(|(one, direct)| one - direct))
    }
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// The project's goal for it, and whether it is met; null where there is none.
    pub(super) target: Option<f64>,
    pub(super) ok: Option<bool>,
}

/// Everything that was measured.
pub(crate) struct Report {
    paths: Vec<Path>,
    series: Vec<Series>,
    memory_kib: BTreeMap<Path, u64>,
    latencies: Latencies,
    /// Figures of one path only: name, value, unit, and the most that they may be.
    figures: Vec<(&'static str, f64, &'static str, Option<f64>)>,
}

impl Report {
    pub(crate) fn new(paths: &[Path]) -> Self {
        Self {
            paths: paths.to_vec(),
            series: Vec::new(),
            memory_kib: BTreeMap::new(),
            latencies: Latencies::default(),
            figures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(crate) fn memory(&mut self, path: Path, kib: u64) {
        self.memory_kib.insert(path, kib);
    }

    pub(crate) fn latencies(&mut self, latencies: Latencies) {
        self.latencies = latencies;
    }

    /// A figure that concerns the gateway alone; `at_most` is the goal.
    pub(crate) fn figure(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        at_most: Option<f64>,
    ) {
        self.figures.push((name, value, unit, at_most));
    }

    /// The table.
    pub(crate) fn print(&self) {
        self.table("rate, and its ratio to direct", |series, path| {
            let rate = series.rate(path)?;
            let ratio = series.ratio(path, Path::Direct);
            Some(match ratio {
                Some(ratio) if path != Path::Direct => format!("{rate:.0} ({ratio:.2})"),
                _ => format!("{rate:.0}"),
            })
        });
        self.table(
            "µs of the proxy's processor time per query or row",
            |series, path| series.cpu(path).map(|cpu| format!("{cpu:.2}")),
        );
        if !self.latencies.0.is_empty() {
            println!("\none client, one query after the other: p50, and what the path adds, in µs");
            for path in &self.paths {
                let (p50, added) = (self.latencies.p50(*path), self.latencies.added(*path));
                let shown = |value: Option<f64>| value.map(|us| format!("{us:.1}"));
                println!(
                    "  {:<20} {:>8} {:>8}",
                    path.to_string(),
                    shown(p50).unwrap_or_default(),
                    shown(added).unwrap_or_default()
                );
            }
        }
        println!("\npeak memory of the proxy (VmHWM)");
        for (path, kib) in &self.memory_kib {
            println!("  {path:<20} {:>8.1} MiB", *kib as f64 / 1024.0);
        }
        for (name, value, unit, _) in &self.figures {
            println!("  {name:<44} {value:>10.1} {unit}");
        }
        println!("\ngoals");
        for goal in self.goals() {
            println!("  {goal}");
        }
    }

    fn table(&self, title: &str, cell: impl Fn(&Series, Path) -> Option<String>) {
        print!("\n{title}\n  {:<20} {:<10}", "", "");
        for path in &self.paths {
            print!(" {:>18}", path.to_string());
        }
        println!();
        for series in &self.series {
            print!("  {:<20} {:<10}", series.name, series.unit);
            for path in &self.paths {
                print!(" {:>18}", cell(series, *path).unwrap_or_default());
            }
            println!();
        }
    }

    /// The JSON array.
    pub(crate) fn write(&self, file: &FilePath) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.measures())?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    fn measures(&self) -> Vec<Measure> {
        let mut list: Vec<Measure> = self.goals().iter().map(Goal::measure).collect();
        let mut push = |name: String, value: Option<f64>, unit| {
            if let Some(value) = value {
                list.push(Measure {
                    name: format!("postgres.{name}"),
                    value,
                    unit,
                    target: None,
                    ok: None,
                });
            }
        };
        for series in &self.series {
            for path in &self.paths {
                let name = format!("{}.{path}", series.name);
                push(format!("{name}.rate"), series.rate(*path), series.unit);
                push(format!("{name}.cpu"), series.cpu(*path), "µs");
                for other in self.paths.iter().filter(|other| *other < path) {
                    let ratio = series.ratio(*path, *other);
                    push(format!("{name}.to_{other}"), ratio, "ratio");
                }
            }
        }
        for path in &self.paths {
            push(
                format!("latency.{path}.p50"),
                self.latencies.p50(*path),
                "µs",
            );
            push(
                format!("latency.{path}.added"),
                self.latencies.added(*path),
                "µs",
            );
        }
        for (name, value, unit, _) in self.figures.iter().filter(|figure| figure.3.is_none()) {
            push((*name).to_owned(), Some(*value), *unit);
        }
        for (path, kib) in &self.memory_kib {
            push(format!("memory_peak.{path}"), Some(*kib as f64), "KiB");
        }
        list
    }
}

impl Report {
    /// The project's goals that this run can tell of.
    fn goals(&self) -> Vec<Goal> {
        let gateway = Path::Interceptor;
        let mut goals = Vec::new();
        let mut goal = |name: String, value: Option<f64>, unit, limit, at_least| {
            if let Some(value) = value {
                goals.push(Goal {
                    name,
                    value,
                    unit,
                    limit,
                    at_least,
                });
            }
        };
        let variants = [IN_MEMORY, READS_OVERLAP, DURABILITY_PROCESS];
        let as_used = |series: &&Series| !variants.iter().any(|it| series.name.starts_with(it));
        for series in self.series.iter().filter(as_used) {
            let name = &series.name;
            if name.ends_with("clients_8") || name.ends_with("clients_64") {
                for other in [Path::Pgbouncer, Path::Haproxy] {
                    let ratio = series.ratio(gateway, other);
                    goal(format!("{name}.to_{other}"), ratio, "ratio", 1.0, true);
                }
            }
            if name.contains("clients_") {
                let ratio = series.cpu_ratio(gateway, Path::Pgbouncer);
                goal(
                    format!("{name}.cpu_to_pgbouncer"),
                    ratio,
                    "ratio",
                    1.0,
                    false,
                );
            }
            if matches!(name.as_str(), "copy.masked" | "select.masked") {
                let ratio = series.ratio(gateway, Path::Haproxy);
                goal(format!("{name}.to_haproxy"), ratio, "ratio", 0.9, true);
            }
        }
        let added = |path| self.latencies.added(path);
        let ratio = added(gateway).zip(added(Path::Haproxy));
        let ratio = ratio.map(|(ours, theirs)| ours / theirs);
        goal(
            "latency.added_to_haproxy".into(),
            ratio,
            "ratio",
            1.2,
            false,
        );
        for (name, value, unit, at_most) in &self.figures {
            if let Some(at_most) = at_most {
                goal((*name).to_owned(), Some(*value), *unit, *at_most, false);
            }
        }
        goals
    }
}

/// A figure that the project wants to be at least, or at most, so much.
struct Goal {
    name: String,
    value: f64,
    unit: &'static str,
    limit: f64,
    at_least: bool,
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.at_least {
            true => self.value >= self.limit,
            false => self.value <= self.limit,
        }
    }

    fn measure(&self) -> Measure {
        Measure {
            name: format!("postgres.goal.{}", self.name),
            value: self.value,
            unit: self.unit,
            target: Some(self.limit),
            ok: Some(self.is_met()),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            unit,
            limit,
            at_least,
        } = self;
        let sign = if *at_least { "≥" } else { "≤" };
        let word = if self.is_met() { "met" } else { "missed" };
        write!(f, "{name:<44} {value:>10.2} {sign} {limit} {unit}: {word}")
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get(middle.saturating_sub(1)).copied()?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(direct: &[f64], haproxy: &[f64]) -> Series {
        let mut series = Series::new("work".into(), "queries/s");
        for (path, rates) in [(Path::Direct, direct), (Path::Haproxy, haproxy)] {
            for rate in rates {
                let sample = Sample {
                    rate: *rate,
                    cpu_us_per_item: None,
                };
                series.add(path, sample);
            }
        }
        series
    }

    #[test]
    fn takes_medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn compares_within_a_round() {
        // The machine was half as fast in the second round; the ratio does not notice.
        let series = series(&[100.0, 50.0, 100.0], &[80.0, 40.0, 80.0]);
        assert_eq!(series.ratio(Path::Haproxy, Path::Direct), Some(0.8));
        assert_eq!(series.ratio(Path::Interceptor, Path::Direct), None);
    }

    #[test]
    fn says_which_goals_are_met() {
        let mut report = Report::new(&[Path::Direct, Path::Haproxy, Path::Interceptor]);
        let mut latencies = Latencies::default();
        for (path, p50) in [
            (Path::Direct, 60.0),
            (Path::Haproxy, 80.0),
            (Path::Interceptor, 90.0),
        ] {
            latencies.add(path, p50);
        }
        report.latencies(latencies);
        report.figure("idle.memory", 19.0, "KiB", Some(20.0));
        report.figure("idle.check", 30.0, "KiB", None);
        let goals = report.goals();
        let told: Vec<_> = goals
            .iter()
            .map(|it| (it.name.as_str(), it.is_met()))
            .collect();
        assert_eq!(
            told,
            [("latency.added_to_haproxy", false), ("idle.memory", true)]
        );
        assert!(goals[0].to_string().ends_with("1.50 ≤ 1.2 ratio: missed"));
    }

    #[test]
    fn writes_what_has_no_goal_as_null() -> Result<()> {
        let mut report = Report::new(&[Path::Direct, Path::Haproxy]);
        report.add(series(&[100.0], &[80.0]));
        let json = serde_json::to_value(report.measures())?;
        let first = json.get(0).cloned().unwrap_or_default();
        assert_eq!(
            first,
            serde_json::json!({"name": "postgres.work.direct.rate", "value": 100.0,
                "unit": "queries/s", "target": null, "ok": null})
        );
        assert!(json.to_string().contains("postgres.work.haproxy.to_direct"));
        Ok(())
    }
}
