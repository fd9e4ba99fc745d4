//! From rounds to figures: ratios or differences within a round, their median and range.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::report::{Measure, median};

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(value) => format!("≥ {value}"),
            Self::AtMost(value) => format!("≤ {value}"),
        }
    }
}

/// How the two sides of a round are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Ratio,
    Difference,
}

/// All rounds of one kind of work.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    unit: &'static str,
    comparison: Comparison,
    goal: Option<Goal>,
    rounds: Vec<(f64, f64)>,
}

impl Series {
    /// Ours divided by the other's.
    pub(crate) fn ratio(name: &'static str, unit: &'static str, goal: Option<Goal>) -> Self {
        Self::new(name, unit, goal, Comparison::Ratio)
    }

    /// Ours less the other's.
    pub(crate) fn difference(name: &'static str, unit: &'static str, goal: Option<Goal>) -> Self {
        Self::new(name, unit, goal, Comparison::Difference)
    }

    fn new(
        name: &'static str,
        unit: &'static str,
        goal: Option<Goal>,
        comparison: Comparison,
    ) -> Self {
        Self {
            name,
            unit,
            comparison,
            goal,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, ours: f64, other: f64) {
        self.rounds.push((ours, other));
    }

    fn compared(&self) -> impl Iterator<Item = f64> {
        self.rounds
            .iter()
            .map(|(ours, other)| match self.comparison {
                Comparison::Ratio => ours / other,
                Comparison::Difference => ours - other,
            })
    }

    /// What half of the rounds lie between, below and above.
    fn quartiles(&self) -> (f64, f64) {
        let mut sorted: Vec<f64> = self.compared().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let index = sorted.len().saturating_sub(1) * quarter / 4;
            sorted.get(index).copied().unwrap_or(f64::NAN)
        };
        (at(1), at(3))
    }

    fn value(&self) -> f64 {
        median(self.compared()).unwrap_or(f64::NAN)
    }

    fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_met(self.value()))
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    series: Vec<Series>,
    /// Seconds of the proxies' processor time for a gigabyte.
    processor: Vec<(&'static str, f64, f64)>,
}

impl Tally {
    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(crate) fn add_processor(&mut self, name: &'static str, ours: f64, other: f64) {
        self.processor.push((name, ours, other));
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:<32} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}  {:<5} {:>11} {:>11}",
            "", "goal", "median", "quarter", "three q.", "min", "max", "met", "ours", "other"
        );
        for series in &self.series {
            let goal = series.goal.map(Goal::text).unwrap_or_default();
            let (low, high) = series.quartiles();
            let min = series.compared().fold(f64::INFINITY, f64::min);
            let max = series.compared().fold(f64::NEG_INFINITY, f64::max);
            let digits = match series.comparison {
                Comparison::Ratio => 3,
                Comparison::Difference => 0,
            };
            let met = match series.is_met() {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let side = |pick: fn(&(f64, f64)) -> f64| {
                median(series.rounds.iter().map(pick)).unwrap_or(f64::NAN)
            };
            println!(
                "{:<32} {goal:>8} {:>9.digits$} {low:>9.digits$} {high:>9.digits$} {min:>9.digits$} {max:>9.digits$}  {met:<5} {:>11.1} {:>11.1} {}",
                series.name,
                series.value(),
                side(|round| round.0),
                side(|round| round.1),
                series.unit
            );
        }
        if !self.processor.is_empty() {
            println!("\nseconds of the proxy's processor time for a gigabyte: ours, the other's");
        }
        for (name, ours, other) in &self.processor {
            println!("{name:<32} {ours:>8.3} {other:>8.3}");
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.measures())?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    fn measures(&self) -> Vec<Measure> {
        let mut list: Vec<Measure> = self
            .series
            .iter()
            .map(|series| Measure {
                name: format!("kernel.{}", series.name),
                value: series.value(),
                unit: match series.comparison {
                    Comparison::Ratio => "ratio",
                    Comparison::Difference => series.unit,
                },
                target: series.goal.map(Goal::value),
                ok: series.is_met(),
            })
            .collect();
        for (name, ours, other) in &self.processor {
            for (side, value) in [("interceptor", *ours), ("haproxy", *other)] {
                list.push(Measure {
                    name: format!("kernel.{name}.processor.{side}"),
                    value,
                    unit: "s/GB",
                    target: None,
                    ok: None,
                });
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_within_a_round() {
        let mut ratio = Series::ratio("a", "MB/s", Some(Goal::AtLeast(0.99)));
        let mut difference = Series::difference("b", "ns", Some(Goal::AtMost(200.0)));
        // The machine was half as fast in the second round.
        for (ours, other) in [(99.0, 100.0), (49.5, 50.0), (99.5, 100.0)] {
            ratio.add(ours, other);
            difference.add(ours, other);
        }
        assert_eq!(ratio.value(), 0.99);
        assert_eq!(ratio.is_met(), Some(true));
        assert_eq!(difference.value(), -0.5);
        assert_eq!(difference.is_met(), Some(true));
    }

    #[test]
    fn a_goal_that_is_missed_is_not_met() {
        let mut series = Series::ratio("a", "ns", Some(Goal::AtMost(1.02)));
        series.add(103.0, 100.0);
        assert_eq!(series.is_met(), Some(false));
        let empty = Series::ratio("a", "ns", Some(Goal::AtMost(1.02)));
        assert_eq!(empty.is_met(), Some(false));
    }
}
