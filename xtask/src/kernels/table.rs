//! The table: features and steps by kernel, and below it what the words in it mean.

use super::core::Outcome;
use crate::show;

pub(crate) fn print(outcomes: &[Outcome]) {
    let kernels: Vec<&str> = outcomes
        .iter()
        .map(|outcome| outcome.kernel.as_str())
        .collect();
    show::heading("What the kernels have");
    let mut rows = vec![row("", &kernels)];
    for name in names(outcomes, |outcome| {
        outcome
            .checks
            .iter()
            .map(|check| check.name.as_str())
            .collect()
    }) {
        let cells: Vec<&str> = outcomes
            .iter()
            .map(|outcome| state(outcome, name))
            .collect();
        rows.push(row(name, &cells));
    }
    print_rows(&rows);
    show::heading("What is done instead");
    for outcome in outcomes {
        for check in &outcome.checks {
            if check.state != "available" {
                println!("  {}: {}: {}", outcome.kernel, check.name, check.detail);
            }
        }
    }
    show::heading("What ran there");
    let mut rows = vec![row("", &kernels)];
    for name in names(outcomes, |outcome| {
        outcome
            .steps
            .iter()
            .map(|step| step.name.as_str())
            .collect()
    }) {
        let cells: Vec<String> = outcomes
            .iter()
            .map(|outcome| result(outcome, name))
            .collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        rows.push(row(name, &cells));
    }
    print_rows(&rows);
    for outcome in outcomes {
        for step in outcome.steps.iter().filter(|step| !step.passed) {
            show::heading(&format!("{}: {} failed", outcome.kernel, step.name));
            show::output(&step.output);
        }
    }
}

/// The names of all outcomes in the order in which they first occur.
fn names<'o>(
    outcomes: &'o [Outcome],
    of_one: impl Fn(&'o Outcome) -> Vec<&'o str>,
) -> Vec<&'o str> {
    let mut names = Vec::new();
    for name in outcomes.iter().flat_map(of_one) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn state<'o>(outcome: &'o Outcome, name: &str) -> &'o str {
    let found = outcome.checks.iter().find(|check| check.name == name);
    match found.map(|check| check.state.as_str()) {
        Some("available") => "yes",
        Some(state) => state,
        None => "-",
    }
}

fn result(outcome: &Outcome, name: &str) -> String {
    match outcome.steps.iter().find(|step| step.name == name) {
        Some(step) if step.passed => format!("passed {:.1} s", step.seconds),
        Some(_) => "FAILED".to_owned(),
        None => "-".to_owned(),
    }
}

fn row(first: &str, cells: &[&str]) -> Vec<String> {
    std::iter::once(first)
        .chain(cells.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn print_rows(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        println!("{}", line.trim_end());
    }
}
