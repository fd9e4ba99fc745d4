//! From samples to a table for people and a JSON array for machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::paths::Path;

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

    /// The median over the rounds of the ratio within a round.
    fn ratio(&self, path: Path, to: Path) -> Option<f64> {
        let pairs = self.of(path).iter().zip(self.of(to));
        median(pairs.map(|(one, other)| one.rate / other.rate))
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
}

impl Report {
    pub(crate) fn new(paths: &[Path]) -> Self {
        Self {
            paths: paths.to_vec(),
            series: Vec::new(),
            memory_kib: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(crate) fn memory(&mut self, path: Path, kib: u64) {
        self.memory_kib.insert(path, kib);
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
        println!("\npeak memory of the proxy (VmHWM)");
        for (path, kib) in &self.memory_kib {
            println!("  {path:<20} {:>8.1} MiB", *kib as f64 / 1024.0);
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
        let mut list = Vec::new();
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
        for (path, kib) in &self.memory_kib {
            push(format!("memory_peak.{path}"), Some(*kib as f64), "KiB");
        }
        list
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
