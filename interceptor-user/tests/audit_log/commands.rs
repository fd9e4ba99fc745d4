//! The command line on a running gateway's socket.

use std::sync::Arc;
use std::time::Duration;

use interceptor_core::command::Subject;
use interceptor_core::policy::HoldPlan;
use interceptor_user::admin::{AdminContext, serve};
use interceptor_user::approval::{Approvals, Request};
use interceptor_user::audit::{Recorder, Store};

use super::{interceptor, path, stderr, stdout, write_log};

pub(super) fn work_on_a_running_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let run_dir = directory.path().join("run");
    let socket = run_dir.join("admin.sock");
    write_log(&directory.path().join("audit"), &["one", "two", "three"]);
    let store = Store::open(&directory.path().join("audit")).unwrap();
    let (recorder, _) = Recorder::start(store).unwrap();
    let approvals = Approvals::default();
    let context = AdminContext {
        approvals: approvals.clone(),
        recorder: recorder.clone(),
        sessions: Arc::new(Vec::new),
        kill: Arc::new(|_, _| false),
        status: Arc::new(|| serde_json::json!({ "sessions": 0 })),
        upgrade: tokio::sync::mpsc::channel(1).0,
        reload: tokio::sync::mpsc::channel(1).0,
        metrics: Arc::new(String::new),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let served = socket.clone();
    runtime.spawn(async move { serve(&served, context, stopped).await.unwrap() });
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ask = |command: &str| {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.extend(["--run-dir", path(&run_dir)]);
        interceptor(&arguments)
    };
    let answer = |command: &str| {
        let output = ask(command);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        stdout(&output)
    };

    assert_eq!(answer("approvals list"), "nothing waits for approval\n");
    assert_eq!(answer("sessions list"), "nobody is connected\n");
    let held = approvals.open(held_command(7)).unwrap();
    let other = approvals.open(held_command(8)).unwrap();
    let list = answer("approvals list");
    assert!(
        list.starts_with("NUMBER  LEFT  USER        TARGET"),
        "{list}"
    );
    assert!(
        list.lines()
            .nth(1)
            .unwrap()
            .starts_with("7       0 s   alice@shop"),
        "{list}"
    );
    assert!(answer("approvals show 7").contains("  | DELETE\n  | FROM orders\n"));
    assert_eq!(
        answer("approvals approve 7 --reason ok"),
        "request 7 approved\n"
    );
    let denied: serde_json::Value =
        serde_json::from_str(&answer("approvals deny 8 --json")).unwrap();
    assert_eq!(
        denied,
        serde_json::json!({
            "number": 8, "resolution": "denied", "approved": false, "missing": []
        })
    );
    assert!(held.withdraw().unwrap().approved);
    assert!(!other.withdraw().unwrap().approved);
    let gone = ask("approvals approve 7");
    assert_eq!(gone.status.code(), Some(1));
    let complaint = "interceptor: request 7 is not open: it was resolved, withdrawn or never made;";
    assert!(stderr(&gone).starts_with(complaint), "{}", stderr(&gone));

    // Three events of before, and two decisions.
    let tail = answer("audit tail -n 2");
    assert!(
        tail.lines()
            .next()
            .unwrap()
            .ends_with(": approve request 7"),
        "{tail}"
    );
    let json: serde_json::Value =
        serde_json::from_str(answer("audit tail -n 1 --json").trim()).unwrap();
    assert_eq!(json["event"]["action"], "deny request 8");
    assert!(answer("audit verify").starts_with("5 records, head "));
    assert_eq!(answer("audit export").lines().count(), 5);
}

fn held_command(number: u64) -> Request {
    Request {
        number,
        session: uuid::Uuid::nil(),
        command: 1,
        plan: Arc::new(HoldPlan::by_anybody(Duration::from_secs(60))),
        person: None,
        people: Arc::default(),
        opened_unix_ns: 1,
        expires_unix_ns: 2,
        subject: Subject {
            client: "192.0.2.1:5000".parse().unwrap(),
            process: None,
            user: "alice".to_owned(),
            database: "shop".to_owned(),
        },
        target: "shop-db".to_owned(),
        rule: "no-bulk-delete".to_owned(),
        reason: "ask first".to_owned(),
        text: "DELETE\nFROM orders".to_owned(),
        parameters: Vec::new(),
        kinds: vec!["DELETE".to_owned()],
        reads: Vec::new(),
        writes: vec!["orders".to_owned()],
    }
}
