//! A decision under 1,000 rules and 10,000 column masks: `cargo bench --workspace --bench decide`.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(
    dead_code,
    reason = "the corpus serves the example decision_cost as well"
)]

#[path = "../examples/decision_cost/corpus.rs"]
mod corpus;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

fn decide(criterion: &mut Criterion) {
    let (mixed, patterns) = (corpus::mixed(), corpus::patterns());
    for (policy, snapshot) in [("mixed", &mixed), ("patterns", &patterns)] {
        let view = corpus::view(snapshot);
        let mut group = criterion.benchmark_group(policy);
        for shape in corpus::shapes() {
            let input = shape.input();
            group.bench_function(shape.name, |bencher| {
                bencher.iter(|| view.decide(black_box(&input)));
            });
        }
        group.finish();
    }
}

fn masks(criterion: &mut Criterion) {
    let snapshot = corpus::mixed();
    let Some(target) = snapshot.target("orders") else {
        return;
    };
    criterion.bench_function("mask of a column", |bencher| {
        bencher.iter(|| {
            target
                .masks
                .column("public", black_box("customers"), "column_3_77")
        });
    });
}

fn session(criterion: &mut Criterion) {
    let snapshot = corpus::mixed();
    criterion.bench_function("view of a session", |bencher| {
        bencher.iter(|| corpus::view(black_box(&snapshot)));
    });
}

criterion_group!(all, decide, masks, session);
criterion_main!(all);
