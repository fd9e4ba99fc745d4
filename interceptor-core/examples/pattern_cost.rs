//! What the built-in patterns find in a corpus, and how long looking takes: `cargo xtask bench pii` runs it.
//!
//! `pattern_cost CELLS FOUND PROSE` reads cells separated by 0x1E, writes what it finds in them to FOUND as
//! `cell TAB pattern TAB first byte TAB end`, and prints `name TAB value TAB unit` for each measure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measuring program may fail by panicking"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use interceptor_core::mask::{HashKey, Masks, TextMask};
use interceptor_core::policy::{self, Source, vocabulary};

/// Each figure is the best of so many: what else the machine does only adds.
const ROUNDS: u32 = 15;
const CELL: &str = "Berlin, Alexanderplz";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cells, found, prose] = arguments.as_slice() else {
        panic!("usage: pattern_cost CELLS FOUND PROSE");
    };
    let names: Vec<&str> = vocabulary::patterns().collect();
    let masks = masks(&names.join(", "));
    let cells = std::fs::read(cells).unwrap();
    let cells: Vec<&[u8]> = cells.split(|byte| *byte == 0x1e).collect();
    let mut lines = String::new();
    for (number, cell) in cells.iter().enumerate() {
        masks.find_in_text(cell, |name, range| {
            writeln!(lines, "{number}\t{name}\t{}\t{}", range.start, range.end).unwrap();
        });
    }
    std::fs::write(found, lines).unwrap();

    let prose = std::fs::read(prose).unwrap();
    let bytes: usize = cells.iter().map(|cell| cell.len()).sum();
    let throughput = |bytes: usize, seconds: f64| bytes as f64 / seconds / 1e6;
    let took = best(|| drop(mask(&masks, &prose)));
    println!("prose\t{}\tMB/s", throughput(prose.len(), took));
    let took = best(|| {
        for cell in &cells {
            mask(&masks, cell);
        }
    });
    println!("cells\t{}\tMB/s", throughput(bytes, took));
    let mut out = Vec::new();
    let times = 100_000;
    let took = best(|| {
        for _ in 0..times {
            let _ = black_box(masks.mask_text(black_box(CELL.as_bytes()), &mut out));
        }
    });
    println!("cell of 20 bytes\t{}\tns", took / f64::from(times) * 1e9);
}

fn mask(masks: &Masks, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match masks.mask_text(text, &mut out) {
        TextMask::Clean => assert!(out.is_empty()),
        TextMask::Rewritten { .. } | TextMask::Null { .. } => assert!(!out.is_empty()),
    }
    out
}

fn best(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(once).fold(f64::MAX, f64::min)
}

fn masks(names: &str) -> Arc<Masks> {
    let text = format!(
        "{{kind: Target, name: t, spec: {{protocol: postgres, endpoints: ['10.0.0.5:5432']}}}}\n---\n\
         {{kind: Mask, name: all, spec: {{patterns: [{names}]}}}}\n"
    );
    let source = Source {
        file: "policy.yaml",
        text: &text,
    };
    let snapshot = policy::load(&[source], &HashKey::new([7; 32]))
        .unwrap_or_else(|errors| panic!("\n{errors}"));
    Arc::clone(&snapshot.target("t").unwrap().masks)
}
