//! How fast events become durable, and what that costs: alone, and when many sessions record at once.
//!
//! `cargo bench --workspace --bench audit -- [DIR]` writes to a directory under DIR, so that the disk
//! in question is measured; default is the temporary directory. Processor time is the whole process's:
//! encoding, the queue, waking, the chain, the journal and the database.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interceptor_core::audit::event::{Command, Event, Kind, Outcome};
use interceptor_user::audit::{Recorder, Store};
use nix::sys::resource::{UsageWho, getrusage};

/// What a session does for a query.
#[derive(Clone, Copy)]
enum Work {
    /// An intent that it waits for.
    Intents,
    /// The same, and an outcome that it does not wait for.
    Queries,
}

fn main() {
    // `cargo test --benches` only asks whether it runs; `cargo bench` says so.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let lasts = Duration::from_millis(if measured { 5000 } else { 100 });
    let place = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let place = place.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:>8} {:>9} {:>10} {:>9} {:>9} {:>9} {:>12} {:>12}",
        "work", "sessions", "events/s", "p50", "p99", "max", "CPU µs/event", "bytes/event"
    );
    for (name, work) in [("intents", Work::Intents), ("queries", Work::Queries)] {
        for sessions in [1, 8, 64, 512] {
            measure(name, work, sessions, &place, lasts);
        }
    }
}

fn measure(name: &str, work: Work, sessions: usize, place: &Path, lasts: Duration) {
    let directory = tempfile::tempdir_in(place).unwrap();
    let (recorder, writer) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = processor_time();
    let begin = Instant::now();
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let tasks: Vec<_> = (0..sessions)
            .map(|session| tokio::spawn(record(recorder.clone(), session, work, begin + lasts)))
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let took = begin.elapsed();
    // What is still on its way into the database counts, too.
    recorder.close();
    writer.join().unwrap();
    let spent = processor_time() - before;
    let events = match work {
        Work::Intents => waits.len(),
        Work::Queries => waits.len() * 2,
    };
    waits.sort_unstable();
    let share = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    let database = std::fs::metadata(directory.path().join("db")).unwrap();
    println!(
        "{name:>8} {sessions:>9} {:>10.0} {:>9.1?} {:>9.1?} {:>9.1?} {:>12.2} {:>12}",
        events as f64 / took.as_secs_f64(),
        share(50),
        share(99),
        share(100),
        spent.as_secs_f64() * 1e6 / events as f64,
        database.len() / events as u64,
    );
}

async fn record(recorder: Recorder, session: usize, work: Work, until: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        recorder.append(intent(session)).await.unwrap();
        waits.push(start.elapsed());
        if matches!(work, Work::Queries) {
            recorder.note(outcome(session)).unwrap();
        }
    }
    waits
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

fn intent(session: usize) -> Event {
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
    event(session, Kind::Command(command))
}

fn outcome(session: usize) -> Event {
    let outcome = Outcome {
        command: 1,
        tag: "SELECT 1".to_owned(),
        rows: 1,
        ..Outcome::default()
    };
    event(session, Kind::Outcome(outcome))
}

fn event(session: usize, kind: Kind) -> Event {
    let mut id = vec![1; 16];
    id[..8].copy_from_slice(&session.to_be_bytes());
    Event {
        time_unix_ns: 1_760_000_000_000_000_000,
        session: id,
        kind: Some(kind),
    }
}
