//! How fast events become durable: alone, and when 64 sessions record at once.
//!
//! `cargo bench -p interceptor-user --bench audit [DIR]` writes to a directory under DIR, so that
//! the disk in question is measured; default is the temporary directory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interceptor_core::audit::event::{Command, Event, Kind};
use interceptor_user::audit::{Recorder, Store};

fn main() {
    // `cargo test --benches` only asks whether it runs; `cargo bench` says so.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let lasts = Duration::from_millis(if measured { 5000 } else { 100 });
    let place = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let place = place.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:>10} {:>12} {:>10} {:>10} {:>10}",
        "appenders", "appends/s", "p50", "p99", "max"
    );
    for appenders in [1, 8, 64, 512] {
        measure(appenders, &place, lasts);
    }
}

fn measure(appenders: usize, place: &Path, lasts: Duration) {
    let directory = tempfile::tempdir_in(place).unwrap();
    let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let begin = Instant::now();
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let tasks: Vec<_> = (0..appenders)
            .map(|_| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    while begin.elapsed() < lasts {
                        let start = Instant::now();
                        recorder.append(event()).await.unwrap();
                        waits.push(start.elapsed());
                    }
                    waits
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let rate = waits.len() as f64 / begin.elapsed().as_secs_f64();
    waits.sort_unstable();
    let share = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    let (p50, p99, max) = (share(50), share(99), share(100));
    println!("{appenders:>10} {rate:>12.0} {p50:>10.1?} {p99:>10.1?} {max:>10.1?}");
    let size: u64 = std::fs::metadata(directory.path().join("db"))
        .unwrap()
        .len();
    println!(
        "{:>10} {} bytes of log for each event",
        "",
        size / waits.len() as u64
    );
}

fn event() -> Event {
    let command = Command {
        number: 1,
        text: "SELECT id, name, email FROM customers WHERE id = $1 ORDER BY name".to_owned(),
        digest: vec![7; 32],
        parameters: 1,
        kinds: vec!["SELECT".to_owned()],
        reads: vec!["public.customers".to_owned()],
        decision: "allow".to_owned(),
        rule: "read-customers".to_owned(),
        rule_source: "policies/shop.yaml:12".to_owned(),
        policy: vec![9; 32],
        ..Command::default()
    };
    Event {
        time_unix_ns: 1_760_000_000_000_000_000,
        session: vec![1; 16],
        kind: Some(Kind::Command(command)),
    }
}
