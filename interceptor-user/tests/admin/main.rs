//! The administration socket, from both ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod members;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interceptor_core::audit::chain::Record;
use interceptor_core::audit::event::{Event, GatewayNote, Kind};
use interceptor_core::audit::verify::Verifier;
use interceptor_core::command::Subject;
use interceptor_core::policy::HoldPlan;
use interceptor_user::admin::client::AuditLine;
use interceptor_user::admin::{
    AdminContext, AdminError, AdminRequest, Client, ClientError, SessionRow, Socket, SocketGroup,
    serve, serve_on,
};
use interceptor_user::approval::{Approvals, Held, Request};
use interceptor_user::audit::{Recorder, Store};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A gateway's administration, without the gateway.
struct Gateway {
    directory: tempfile::TempDir,
    approvals: Approvals,
    recorder: Recorder,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), AdminError>>,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_for(None).await
    }

    /// With a socket that a group may use.
    async fn start_for(group: Option<SocketGroup>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, _) =
            Recorder::start(Store::open(&directory.path().join("audit")).unwrap()).unwrap();
        let approvals = Approvals::default();
        let (stop, stopped) = watch::channel(false);
        let context = context(&approvals, &recorder);
        let socket = directory.path().join("run/admin.sock");
        let server = tokio::spawn(async move {
            match group {
                None => serve(&socket, context, stopped).await,
                Some(group) => {
                    let socket = Socket::bind(&socket, Some(&group))?;
                    serve_on(socket, context, stopped).await
                }
            }
        });
        let gateway = Self {
            directory,
            approvals,
            recorder,
            stop,
            server,
        };
        while !gateway.socket().exists() {
            assert!(!gateway.server.is_finished(), "the server ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gateway
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/admin.sock")
    }

    async fn call(&self, request: AdminRequest) -> Result<Value, ClientError> {
        let socket = self.socket();
        tokio::task::spawn_blocking(move || connect(&socket).call(&request))
            .await
            .unwrap()
    }

    fn hold(&self, number: u64) -> Held {
        self.approvals.open(request(number)).unwrap()
    }

    fn events(&self) -> Vec<Kind> {
        let log = self.recorder.reader().unwrap();
        let event = |bytes: &[u8]| Record::decode(bytes).unwrap().event().unwrap();
        log.records_from(1)
            .filter_map(|stored| event(&stored.unwrap().bytes).kind)
            .collect()
    }

    async fn record(&self, detail: &str) {
        let note = GatewayNote {
            detail: detail.to_owned(),
        };
        let kind = Some(Kind::PolicyLoaded(note));
        let event = Event {
            time_unix_ns: 1,
            session: Vec::new(),
            kind,
        };
        self.recorder.append(event).await.unwrap();
    }
}

fn context(approvals: &Approvals, recorder: &Recorder) -> AdminContext {
    let session = SessionRow {
        id: "0190".to_owned(),
        client: "192.0.2.1:5000".to_owned(),
        target: "shop-db".to_owned(),
        user: "alice".to_owned(),
        database: "shop".to_owned(),
        process: String::new(),
        since_unix_ns: 1,
        state: "idle".to_owned(),
        commands: 3,
    };
    AdminContext {
        approvals: approvals.clone(),
        recorder: recorder.clone(),
        sessions: Arc::new(move || vec![session.clone()]),
        kill: Arc::new(|_, _| true),
        status: Arc::new(|| json!({ "policies": 2 })),
        upgrade: tokio::sync::mpsc::channel(1).0,
        reload: tokio::sync::mpsc::channel(1).0,
        metrics: Arc::new(String::new),
    }
}

fn connect(socket: &Path) -> Client {
    Client::connect(socket)
        .map_err(|error| error.to_string())
        .unwrap()
}

fn request(number: u64) -> Request {
    Request {
        number,
        session: uuid::Uuid::from_u128(42),
        command: 3,
        plan: Arc::new(HoldPlan::by_anybody(Duration::from_secs(60))),
        person: None,
        people: Arc::default(),
        opened_unix_ns: 1_000_000_000,
        expires_unix_ns: 61_000_000_000,
        subject: Subject {
            client: "192.0.2.1:5000".parse().unwrap(),
            process: None,
            user: "alice".to_owned(),
            database: "shop".to_owned(),
        },
        target: "shop-db".to_owned(),
        rule: "no-bulk-delete".to_owned(),
        reason: "ask first".to_owned(),
        text: format!("DELETE FROM orders /* {} */", "x".repeat(300)),
        parameters: vec!["'1'".to_owned()],
        kinds: vec!["DELETE".to_owned()],
        reads: Vec::new(),
        writes: vec!["orders".to_owned()],
    }
}

fn resolve(number: u64, approve: bool) -> AdminRequest {
    AdminRequest::Resolve {
        number,
        approve,
        reason: "change 4711".to_owned(),
    }
}

#[tokio::test]
async fn nobody_but_the_owner_may_connect() {
    let gateway = Gateway::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&gateway.socket()), 0o600);
    assert_eq!(mode(gateway.socket().parent().unwrap()), 0o700);
}

#[tokio::test]
async fn status_and_sessions_are_answered() {
    let gateway = Gateway::start().await;
    assert_eq!(
        gateway.call(AdminRequest::Status).await.unwrap(),
        json!({ "policies": 2 })
    );
    let sessions = gateway.call(AdminRequest::Sessions).await.unwrap();
    let sessions: Vec<SessionRow> = serde_json::from_value(sessions).unwrap();
    assert_eq!(sessions.first().unwrap().user, "alice");
}

#[tokio::test]
async fn an_approval_is_on_record_before_it_takes_effect() {
    let gateway = Gateway::start().await;
    let held = gateway.hold(7);
    let list = gateway.call(AdminRequest::Approvals).await.unwrap();
    assert_eq!(list.pointer("/0/number"), Some(&json!(7)));
    let cut = list.pointer("/0/text").unwrap().as_str().unwrap();
    assert!(cut.ends_with('…') && cut.chars().count() == 201);
    let shown = gateway
        .call(AdminRequest::Approval { number: 7 })
        .await
        .unwrap();
    assert_eq!(
        shown.get("text").unwrap().as_str().unwrap(),
        request(7).text
    );

    gateway.call(resolve(7, true)).await.unwrap();
    let resolution = held.await;
    assert!(resolution.approved);
    assert_eq!(resolution.reason, "change 4711");
    let uid = nix::unistd::getuid();
    assert!(
        resolution.by.contains(&format!("uid {uid}")),
        "{}",
        resolution.by
    );

    let stored = gateway
        .recorder
        .reader()
        .unwrap()
        .records_from(1)
        .next()
        .unwrap()
        .unwrap();
    let event = Record::decode(&stored.bytes).unwrap().event().unwrap();
    let Some(Kind::Administration(act)) = event.kind else {
        panic!("another event")
    };
    assert_eq!(act.by, resolution.by);
    assert_eq!(act.action, "approve request 7");

    let again = gateway.call(resolve(7, false)).await.unwrap_err();
    assert!(
        again.to_string().starts_with("request 7 is not open"),
        "{again}"
    );
}

#[tokio::test]
async fn without_a_log_nobody_approves() {
    let gateway = Gateway::start().await;
    let held = gateway.hold(7);
    gateway.recorder.close();
    let error = gateway.call(resolve(7, true)).await.unwrap_err();
    assert!(
        error.to_string().contains("the audit log is closed"),
        "{error}"
    );
    assert_eq!(held.withdraw(), None);
}

#[tokio::test]
async fn a_withdrawn_request_is_no_longer_open() {
    let gateway = Gateway::start().await;
    drop(gateway.hold(7));
    let error = gateway.call(resolve(7, true)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("request 7 is not open"),
        "{error}"
    );
}

#[tokio::test]
async fn the_log_is_verified_from_the_stream() {
    let gateway = Gateway::start().await;
    for number in 0..1_500 {
        gateway.record(&format!("policy {number}")).await;
    }
    let socket = gateway.socket();
    let head = tokio::task::spawn_blocking(move || {
        let mut verifier = Verifier::from_start();
        for line in connect(&socket).audit(1, None, false).unwrap() {
            match line.unwrap() {
                AuditLine::Record(bytes) => verifier.take(&bytes).unwrap(),
                AuditLine::Head(head) => return verifier.finish(Some(head)).unwrap(),
            }
        }
        panic!("no head")
    });
    assert_eq!(head.await.unwrap().sequence, 1_500);
}

#[tokio::test]
async fn a_follower_sees_the_last_records_and_then_new_ones() {
    let gateway = Gateway::start().await;
    for detail in ["one", "two", "three"] {
        gateway.record(detail).await;
    }
    let socket = gateway.socket();
    let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
    let follower = std::thread::spawn(move || {
        for line in connect(&socket).audit(1, Some(2), true).unwrap() {
            let AuditLine::Record(bytes) = line.unwrap() else {
                panic!("it ended")
            };
            let detail = Record::decode(&bytes).unwrap().event().unwrap().line();
            if send.send(detail).is_err() {
                return;
            }
        }
    });
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(5), received.recv())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!([next().await, next().await], ["two", "three"]);
    gateway.record("four").await;
    assert_eq!(next().await, "four");
    drop(received);
    gateway.record("five").await;
    tokio::task::spawn_blocking(|| follower.join().unwrap())
        .await
        .unwrap();
}

/// Sends bytes as they are and returns the answer's line.
async fn raw(gateway: &Gateway, bytes: Vec<u8>) -> Value {
    let socket = gateway.socket();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // The server may answer and hang up before it has read all.
        let _ = stream.write_all(&bytes);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    serde_json::from_str(&answer.await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_malformed_request_is_answered_with_an_error() {
    let gateway = Gateway::start().await;
    for request in [
        "{}\n",
        "\n",
        "nonsense\n",
        "{\"request\":\"shutdown\"}\n",
        "\u{0}\n",
        "{\"request\":\"resolve\",\"number\":-1,\"approve\":true,\"reason\":\"\"}\n",
    ] {
        let answer = raw(&gateway, request.as_bytes().to_vec()).await;
        assert!(answer.get("error").is_some(), "{request}: {answer}");
    }
    // It still serves.
    assert!(gateway.call(AdminRequest::Status).await.is_ok());
}

#[tokio::test]
async fn an_overlong_request_is_refused() {
    let gateway = Gateway::start().await;
    let answer = raw(&gateway, vec![b' '; 64 * 1024 + 2]).await;
    assert_eq!(
        answer.get("error").unwrap(),
        "a request is at most 65536 bytes long"
    );
    let reason = "x".repeat(4097);
    let error = gateway
        .call(AdminRequest::Resolve {
            number: 1,
            approve: true,
            reason,
        })
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "a reason is at most 4096 bytes long");
}

#[tokio::test]
async fn the_socket_goes_when_the_gateway_stops() {
    let gateway = Gateway::start().await;
    gateway.stop.send_replace(true);
    gateway.server.await.unwrap().unwrap();
    assert!(!gateway.directory.path().join("run/admin.sock").exists());
}

async fn serve_at(gateway: &Gateway, path: &Path) -> Result<(), AdminError> {
    let context = context(&gateway.approvals, &gateway.recorder);
    let (_stop, stopped) = watch::channel(true);
    serve(path, context, stopped).await
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let gateway = Gateway::start().await;
    let refused = serve_at(&gateway, &gateway.socket()).await;
    assert!(matches!(refused, Err(AdminError::AlreadyServed(_))));
    assert!(gateway.call(AdminRequest::Status).await.is_ok());

    let stale = gateway.directory.path().join("run/stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.metadata().unwrap().file_type().is_socket());
    serve_at(&gateway, &stale).await.unwrap();

    let file = gateway.directory.path().join("run/file.sock");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(
        serve_at(&gateway, &file).await,
        Err(AdminError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused() {
    let gateway = Gateway::start().await;
    let open = gateway.directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = serve_at(&gateway, &open.join("admin.sock")).await;
    assert!(matches!(refused, Err(AdminError::OpenDirectory(_))));
}
