//! The record under attack: killed writers, a full disk, and hands in the database.
//!
//! Without the standard harness, because these tests start this program again in other roles: as a
//! writer that is killed, as one whose disk fills up, and as the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod commands;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use interceptor_core::audit::chain::{Head, Record};
use interceptor_core::audit::event::{Event, GatewayNote, Kind};
use interceptor_core::audit::verify::Verifier;
use interceptor_user::audit::store::Reader;
use interceptor_user::audit::{AuditError, Recorder, Store, StoreError};
use interceptor_user::cli;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let role = arguments
        .get(1)
        .and_then(|role| role.to_str())
        .unwrap_or_default();
    match role {
        "role-append" => append_until_killed(Path::new(&arguments[2])),
        "role-fill" => return fill_a_small_disk(Path::new(&arguments[2])),
        "role-cli" => return command_line(&arguments[1..]),
        _ => {}
    }
    let tests: [(&str, fn()); 6] = [
        ("every acknowledged record survives kill -9", survives_kill),
        (
            "a full disk fails the log for good",
            a_full_disk_fails_the_log,
        ),
        (
            "verify names the tampered record",
            verify_names_the_tampered_record,
        ),
        (
            "an export is verified by the documented script",
            an_export_is_verified_by_python,
        ),
        (
            "the commands work on a running gateway",
            commands::work_on_a_running_gateway,
        ),
        (
            "what is not there is not made",
            what_is_not_there_is_not_made,
        ),
    ];
    for (name, test) in tests {
        let begin = Instant::now();
        // A test that fails panics, and the process ends with it.
        test();
        println!("test {name} ... ok ({:.1?})", begin.elapsed());
    }
    ExitCode::SUCCESS
}

fn event(detail: &str) -> Event {
    let note = GatewayNote {
        detail: detail.to_owned(),
    };
    Event {
        time_unix_ns: 1,
        session: Vec::new(),
        kind: Some(Kind::GatewayStarted(note)),
    }
}

fn encoded(detail: &str) -> Vec<u8> {
    prost::Message::encode_to_vec(&event(detail))
}

fn detail(record: &Record) -> String {
    match record.event().unwrap().kind {
        Some(Kind::GatewayStarted(note)) => note.detail,
        other => panic!("{other:?}"),
    }
}

fn this_program(role: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(role).arg(directory);
    command
}

fn write_log(directory: &Path, details: &[&str]) {
    let mut store = Store::open(directory).unwrap();
    store
        .append(details.iter().map(|detail| encoded(detail)), 0)
        .unwrap();
}

fn records(directory: &Path) -> (Vec<Vec<u8>>, Head) {
    let reader = Reader::open(directory).unwrap();
    let records = reader
        .records_from(0)
        .map(|stored| stored.unwrap().bytes)
        .collect();
    (records, reader.head().unwrap())
}

// --- kill -9 ---

fn append_until_killed(directory: &Path) -> ! {
    let (recorder, _) = Recorder::start(Store::open(directory).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let life = std::process::id();
    runtime.block_on(async {
        for worker in 0..16 {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                for count in 0_u64.. {
                    // Now and then one that takes many of the database's pages.
                    let padding = if count % 50 == 7 { 40_000 } else { 10 };
                    let name = format!("{life}-{worker}-{count}");
                    let event = event(&format!("{name} {}", "x".repeat(padding)));
                    let sequence = recorder.append(event).await.unwrap();
                    // In one write, so that a kill does not cut it.
                    let line = format!("{sequence} {name}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        std::future::pending::<()>().await;
    });
    unreachable!("it runs until it is killed")
}

fn survives_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let seed = std::process::id();
    for round in 0..20_u32 {
        let mut child = this_program("role-append", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if round % 4 == 1 {
            // While it opens the log, and brings home what the one before left in the journal.
            let moment = seed.wrapping_mul(round) % 30_000;
            std::thread::sleep(Duration::from_micros(u64::from(moment)));
            child.kill().unwrap();
            child.wait().unwrap();
            continue;
        }
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let reader = std::thread::spawn(move || {
            std::iter::once(first)
                .chain(lines.map_while(Result::ok))
                .collect::<Vec<String>>()
        });
        let moment = seed.wrapping_add(round).wrapping_mul(2_654_435_761) % 150_000;
        std::thread::sleep(Duration::from_micros(u64::from(moment)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let (sequence, name) = line.split_once(' ').unwrap();
            let before = acknowledged.insert(sequence.parse::<u64>().unwrap(), name.to_owned());
            assert_eq!(before, None, "a sequence number was given twice");
        }
        // Those who only read find all of it, the journal's part too.
        all_are_there(directory.path(), &acknowledged);
        if round % 4 != 0 {
            // It must open as the gateway would open it, and be whole.
            drop(Store::open(directory.path()).unwrap());
            all_are_there(directory.path(), &acknowledged);
        }
    }
    println!(
        "  {} acknowledged records after 20 kills",
        acknowledged.len()
    );
}

fn all_are_there(directory: &Path, acknowledged: &BTreeMap<u64, String>) {
    let (records, head) = records(directory);
    let mut verifier = Verifier::from_start();
    let mut found = 0;
    for bytes in &records {
        verifier.take(bytes).unwrap();
        let record = Record::decode(bytes).unwrap();
        if let Some(name) = acknowledged.get(&record.sequence) {
            assert_eq!(detail(&record).split(' ').next(), Some(name.as_str()));
            found += 1;
        }
    }
    verifier.finish(Some(head)).unwrap();
    assert_eq!(
        found,
        acknowledged.len(),
        "acknowledged records are missing"
    );
}

// --- a full disk ---

fn a_full_disk_fails_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = this_program("role-fill", directory.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the writer hangs on a full disk");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
}

/// Needs root: it mounts a small file system where only this process sees it.
fn fill_a_small_disk(directory: &Path) -> ExitCode {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root, to mount a small disk");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    // Of this, the journal has 16 MiB, and 32 MiB stay free.
    let size = Some("size=56m");
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        size,
    )
    .unwrap();
    let (recorder, writer) = Recorder::start(Store::open(directory).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut written = 0;
    runtime.block_on(async {
        let text = "x".repeat(4096);
        let error = loop {
            let waiting = recorder.append(event(&text));
            match tokio::time::timeout(Duration::from_secs(20), waiting).await {
                Ok(Ok(_)) => written += 1,
                Ok(Err(error)) => break error,
                Err(_) => panic!("no answer on a full disk after {written} events"),
            }
            assert!(written < 10_000, "the disk never filled");
        };
        assert!(matches!(error, AuditError::Failed { .. }), "{error}");
        assert!(recorder.is_failed());
        // For good, also for small ones that would fit.
        assert_eq!(recorder.append(event("small")).await, Err(error.clone()));
        assert_eq!(recorder.note(event("small")), Err(error.clone()));
        println!("  after {written} events: {error}");
    });
    drop(recorder);
    writer.join().unwrap();
    // Now somebody else takes what was left.
    let mut filler = std::fs::File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    for refused in [
        Store::open(directory).map(drop),
        Reader::open(directory).map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::DiskFull { .. })));
    }
    // Nothing was damaged by that: with room it is read as it was.
    drop(filler);
    std::fs::remove_file(directory.join("filler")).unwrap();
    let (records, head) = records(directory);
    let mut verifier = Verifier::from_start();
    for record in &records {
        verifier.take(record).unwrap();
    }
    assert_eq!(verifier.finish(Some(head)), Ok(head));
    assert!(head.sequence >= written, "{} of {written}", head.sequence);
    ExitCode::SUCCESS
}

// --- tampering ---

fn command_line(arguments: &[OsString]) -> ExitCode {
    cli::run_from(
        arguments.iter().cloned(),
        &cli::Parts {
            run: |_| anyhow::bail!("not in this test"),
            detach: |_| anyhow::bail!("not in this test"),
            kernel_status: |_| anyhow::bail!("not in this test"),
        },
    )
}

fn interceptor(arguments: &[&str]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .arg("role-cli")
        .args(arguments)
        .output()
        .unwrap()
}

fn path(directory: &Path) -> &str {
    directory.to_str().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The database's keys, as `docs/adr/0002-sled.md` tells them: what an attacker with root uses.
fn key(sequence: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&sequence.to_be_bytes());
    key
}

fn tamper(directory: &Path, tamper: impl FnOnce(&sled::Tree)) {
    let database = sled::Config::new()
        .path(directory)
        .flush_every_ms(None)
        .open()
        .unwrap();
    let records = database.open_tree("records").unwrap();
    lay_singly(&records);
    tamper(&records);
    database.flush().unwrap();
}

/// Each record in a value of its own, as the log takes it, too: so that attacks find them.
fn lay_singly(records: &sled::Tree) {
    let blocks: Vec<_> = records.iter().map(Result::unwrap).collect();
    records.clear().unwrap();
    let mut sequence = 1;
    for (_, block) in blocks {
        let mut rest = block.strip_prefix(&[0]).expect("a block");
        while !rest.is_empty() {
            let length = prost::decode_length_delimiter(&mut rest).unwrap();
            let (record, after) = rest.split_at(length);
            records.insert(key(sequence), record).unwrap();
            sequence += 1;
            rest = after;
        }
    }
}

fn verify_names_the_tampered_record() {
    type Attack = fn(&sled::Tree);
    let attacks: [(&str, Attack, &str); 6] = [
        ("a changed byte", |log| flip(log, 5), "record 5 was altered"),
        (
            "a removed record",
            |log| remove(log, 5),
            "record 5 is missing",
        ),
        (
            "two swapped records",
            |log| swap(log, 3, 6),
            "record 3 is out of order",
        ),
        (
            "a cut tail",
            |log| remove(log, 8),
            "the log ends at record 7",
        ),
        (
            "a rewritten record",
            |log| rewrite(log, 5),
            "record 5 was altered",
        ),
        (
            "an added record",
            add_one,
            "record 9 stands after the log's head",
        ),
    ];
    for (name, attack, finding) in attacks {
        let directory = tempfile::tempdir().unwrap();
        write_log(directory.path(), &["a", "b", "c", "d", "e", "f", "g", "h"]);
        let before = interceptor(&["audit", "verify", "--dir", path(directory.path())]);
        assert!(
            stdout(&before).starts_with("8 records, head "),
            "{}",
            stderr(&before)
        );
        assert!(stdout(&before).ends_with(": intact\n"));
        assert_eq!(before.status.code(), Some(0));

        tamper(directory.path(), attack);
        let after = interceptor(&["audit", "verify", "--dir", path(directory.path())]);
        assert_eq!(after.status.code(), Some(1), "{name}");
        assert!(
            stdout(&after).starts_with(finding),
            "{name}: {}",
            stdout(&after)
        );
        let complaint = format!("interceptor: {finding}");
        assert!(
            stderr(&after).starts_with(&complaint),
            "{name}: {}",
            stderr(&after)
        );

        let json = interceptor(&["audit", "verify", "--json", "--dir", path(directory.path())]);
        assert_eq!(json.status.code(), Some(1), "{name}");
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["intact"], false, "{name}");
        // The gateway must not write on after a log like this. A record that continues the chain is
        // what a crash can leave: that one it takes.
        assert_eq!(
            Store::open(directory.path()).is_ok(),
            name == "an added record",
            "{name}"
        );
    }
}

fn remove(log: &sled::Tree, sequence: u64) {
    log.remove(key(sequence)).unwrap().unwrap();
}

fn flip(log: &sled::Tree, sequence: u64) {
    let mut bytes = log.get(key(sequence)).unwrap().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    log.insert(key(sequence), bytes).unwrap();
}

fn swap(log: &sled::Tree, one: u64, other: u64) {
    let (a, b) = (
        log.get(key(one)).unwrap().unwrap(),
        log.get(key(other)).unwrap().unwrap(),
    );
    log.insert(key(one), b).unwrap();
    log.insert(key(other), a).unwrap();
}

/// Another event in a record's place, with its hash computed anew.
fn rewrite(log: &sled::Tree, sequence: u64) {
    let old = Record::decode(&log.get(key(sequence)).unwrap().unwrap()).unwrap();
    let before = Head {
        sequence: sequence - 1,
        hash: old.previous,
    };
    let new = Record::after(&before, encoded("innocent"));
    log.insert(key(sequence), new.encode()).unwrap();
}

fn add_one(log: &sled::Tree) {
    let (_, last) = log.last().unwrap().unwrap();
    let head = Record::decode(&last).unwrap().head();
    let new = Record::after(&head, encoded("invented"));
    log.insert(key(new.sequence), new.encode()).unwrap();
}

// --- export ---

fn an_export_is_verified_by_python() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    write_log(&log, &["one", "two \u{1b}[2J", "three"]);
    let export = directory.path().join("audit.jsonl");
    let done = interceptor(&[
        "audit",
        "export",
        "--dir",
        path(&log),
        "--output",
        path(&export),
    ]);
    assert!(done.status.success(), "{}", stderr(&done));
    let (stored, head) = records(&log);
    let head = head.hash.to_string();

    let script = directory.path().join("verify.py");
    std::fs::write(&script, documented_script()).unwrap();
    let python = |export: &Path| {
        let script = [path(&script), path(export), &head];
        Command::new("python3")
            .args(script)
            .output()
            .expect("python3 is needed")
    };
    let intact = python(&export);
    assert_eq!(
        stdout(&intact),
        format!("3 records, head {head}: intact\n"),
        "{}",
        stderr(&intact)
    );

    let text = std::fs::read_to_string(&export).unwrap();
    let line: Vec<&str> = text.lines().collect();
    let altered = text.replace(&hex::encode("two"), &hex::encode("TWO"));
    let attacks = [
        (altered, "record 2 was altered"),
        (
            [line[0], line[2]].join("\n"),
            "record 2 is missing or out of order",
        ),
        (
            [line[1], line[0], line[2]].join("\n"),
            "record 1 is missing or out of order",
        ),
        (
            [line[0], line[1]].join("\n"),
            "the log does not end at the head that you gave",
        ),
    ];
    for (text, finding) in attacks {
        let file = directory.path().join("tampered.jsonl");
        std::fs::write(&file, text).unwrap();
        let found = python(&file);
        assert!(!found.status.success());
        assert!(stderr(&found).starts_with(finding), "{}", stderr(&found));
    }

    // The same in protobuf: each record as stored, after its length.
    let raw = interceptor(&[
        "audit",
        "export",
        "--format",
        "protobuf",
        "--dir",
        path(&log),
    ]);
    let mut rest = raw.stdout.as_slice();
    for expected in stored {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        let (record, after) = rest.split_at(length);
        assert_eq!(record, expected);
        rest = after;
    }
    assert!(rest.is_empty());

    let tail = interceptor(&["audit", "tail", "-n", "2", "--dir", path(&log)]);
    let tail = stdout(&tail);
    assert_eq!(tail.lines().count(), 2);
    assert!(tail.contains("two \\u{1b}[2J"), "{tail}");
}

/// The script in the documentation: what is printed there is what works.
fn documented_script() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-log.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, script) = text
        .split_once("```python\n")
        .expect("a script in docs/audit-log.md");
    let (script, _) = script.split_once("```").unwrap();
    script.to_owned()
}

fn what_is_not_there_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let place = path(directory.path());
    let output = interceptor(&["audit", "verify", "--dir", place]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("interceptor: no audit log in "),
        "{}",
        stderr(&output)
    );
    let output = interceptor(&["audit", "tail", "--run-dir", place, "--state", place]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("and there is no log in"),
        "{}",
        stderr(&output)
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_eq!(interceptor(&["audit", "explode"]).status.code(), Some(2));
}
