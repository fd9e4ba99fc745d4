//! What a decision costs, each timed on its own, and what 10,000 documents take: `cargo xtask bench
//! policy` runs it and reads its lines of name, value and unit.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends here"
)]

mod corpus;

use std::hint::black_box;
use std::time::{Duration, Instant};

use interceptor_core::policy::View;

/// How often each command is decided.
const DECISIONS: usize = 100_000;
/// Decisions before the first that counts.
const WARM_UP: usize = 1_000;

fn main() {
    let clock = clock_ns();
    print("clock, subtracted", clock, "ns");
    let mixed = corpus::mixed();
    decisions("", &corpus::view(&mixed), clock);
    decisions("worst case: ", &corpus::view(&corpus::patterns()), clock);
    let masks = &mixed.target("orders").unwrap().masks;
    let samples = sample(|| {
        black_box(masks.column("public", black_box("customers"), "column_3_77")).is_some()
    });
    spread("mask of a column", &samples, clock);
    let started = Instant::now();
    black_box(corpus::view(black_box(&mixed)));
    print(
        "view of a session",
        started.elapsed().as_nanos() as f64 / 1e3,
        "us",
    );
    documents();
}

fn decisions(prefix: &str, view: &View, clock: f64) {
    for shape in corpus::shapes() {
        let input = shape.input();
        let samples = sample(|| black_box(view.decide(black_box(&input))));
        spread(&format!("{prefix}{}", shape.name), &samples, clock);
    }
}

fn documents() {
    let before = resident_kib();
    let started = Instant::now();
    let (snapshot, rules) = corpus::full();
    let elapsed = started.elapsed();
    let after = resident_kib();
    print("rules loaded", rules as f64, "rules");
    print("load", elapsed.as_secs_f64() * 1e3, "ms");
    print("memory", (after - before) / 1024.0, "MiB");
    let view = corpus::view(&snapshot);
    let clock = clock_ns();
    decisions("10,000 documents: ", &view, clock);
}

/// The median of what reading the clock twice takes.
fn clock_ns() -> f64 {
    let samples = sample(|| ());
    at(&samples, 0.5)
}

fn sample<T>(mut run: impl FnMut() -> T) -> Vec<Duration> {
    for _ in 0..WARM_UP {
        black_box(run());
    }
    let mut samples = Vec::with_capacity(DECISIONS);
    for _ in 0..DECISIONS {
        let started = Instant::now();
        let result = run();
        let elapsed = started.elapsed();
        drop(black_box(result));
        samples.push(elapsed);
    }
    samples.sort_unstable();
    samples
}

fn at(samples: &[Duration], quantile: f64) -> f64 {
    let position = (samples.len() as f64 * quantile) as usize;
    let sample = samples.get(position.min(samples.len() - 1)).unwrap();
    sample.as_nanos() as f64
}

fn spread(name: &str, samples: &[Duration], clock: f64) {
    for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let value = (at(samples, quantile) - clock).max(0.0);
        print(&format!("{name}, {label}"), value, "ns");
    }
}

/// Of this process.
fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{name}\t{value:.1}\t{unit}");
}
