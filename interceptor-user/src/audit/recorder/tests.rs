use interceptor_core::audit::event::{GatewayNote, Kind};

use super::*;

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

/// A recorder whose writer takes nothing: what is queued stays queued.
fn recorder_without_writer(directory: &std::path::Path) -> Recorder {
    let store = Store::open(directory).unwrap();
    let (_, durable) = watch::channel(store.head());
    let handle = Handle {
        shared: Arc::new(Shared::new(Counter::new(0).unwrap(), &store)),
        durable,
        logs: mpsc::channel().0,
        durability: store.durability(),
    };
    Recorder {
        handle: Arc::new(handle),
    }
}

#[tokio::test]
async fn events_are_numbered_in_the_order_they_were_queued() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let reader = store.reader();
    let (recorder, writer) = Recorder::start(store).unwrap();
    let first = recorder.append(event("first"));
    recorder.note(event("second")).unwrap();
    let third = recorder.append(event("third"));
    assert_eq!(third.await, Ok(3));
    assert_eq!(first.await, Ok(1));
    assert_eq!(recorder.subscribe().borrow().sequence, 3);
    let details: Vec<String> = reader
        .records_from(1)
        .map(|stored| {
            let stored = stored.unwrap();
            let record = interceptor_core::audit::chain::Record::decode(&stored.bytes).unwrap();
            record.event().unwrap().line()
        })
        .collect();
    assert_eq!(details, ["first", "second", "third"]);
    drop(recorder);
    writer.join().unwrap();
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, writer) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    let pending: Vec<Pending> = (0..500).map(|_| recorder.append(event("queued"))).collect();
    recorder.close();
    assert_eq!(recorder.note(event("late")), Err(AuditError::Closed));
    assert!(!recorder.is_failed());
    writer.join().unwrap();
    for (sequence, pending) in (1..).zip(pending) {
        assert_eq!(pending.await, Ok(sequence));
    }
}

#[tokio::test]
async fn request_numbers_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, writer) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    assert_eq!(
        (
            recorder.next_request_number(),
            recorder.next_request_number()
        ),
        (1, 2)
    );
    recorder.append(event("hold 2")).await.unwrap();
    drop(recorder);
    writer.join().unwrap();
    let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    assert_eq!(recorder.next_request_number(), 3);
}

#[test]
fn too_many_events_are_a_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = recorder_without_writer(directory.path());
    for _ in 0..QUEUE_EVENTS_MAX {
        recorder.note(event("")).unwrap();
    }
    let refused = recorder.note(event(""));
    assert!(matches!(
        refused,
        Err(AuditError::Backlog {
            events: QUEUE_EVENTS_MAX,
            ..
        })
    ));
    // A backlog passes; it is not a failure.
    assert!(!recorder.is_failed());
}

#[test]
fn too_many_bytes_are_a_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = recorder_without_writer(directory.path());
    let large = event(&"x".repeat(EVENT_BYTES_MAX - 100));
    let taken = (0..100)
        .take_while(|_| recorder.note(large.clone()).is_ok())
        .count();
    assert_eq!(taken, QUEUE_BYTES_MAX / EVENT_BYTES_MAX);
    assert!(matches!(
        recorder.note(large),
        Err(AuditError::Backlog { .. })
    ));
}

#[tokio::test]
async fn an_event_above_the_limit_is_refused_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
    let refused = recorder.append(event(&"x".repeat(EVENT_BYTES_MAX))).await;
    assert!(matches!(refused, Err(AuditError::TooLarge { .. })));
    assert_eq!(recorder.append(event("small")).await, Ok(1));
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_and_all_who_come() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = recorder_without_writer(directory.path());
    let waiting = recorder.append(event("waits"));
    let cause = AuditError::Failed {
        cause: "no space left".into(),
    };
    recorder.handle.shared.fail(&cause);
    assert_eq!(waiting.await, Err(cause.clone()));
    assert_eq!(recorder.append(event("comes")).await, Err(cause));
    assert!(recorder.is_failed());
}

#[tokio::test]
async fn a_writer_that_panics_fails_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = recorder_without_writer(directory.path());
    let waiting = recorder.append(event("waits"));
    let shared = Arc::clone(&recorder.handle.shared);
    let writer = std::thread::spawn(move || {
        let _guard = writer::guard(&shared);
        panic!("as sled might");
    });
    writer.join().unwrap_err();
    assert!(matches!(waiting.await, Err(AuditError::Failed { .. })));
    assert!(recorder.is_failed());
}
