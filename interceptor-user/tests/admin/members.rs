//! Groups of approvers at the socket: who is let in, and whose answer counts.

use interceptor_core::policy::{ApproverGroup, Requirement};

use super::*;

impl Gateway {
    /// A request with one group asked, of these users.
    fn hold_for(&self, number: u64, uids: &[u32], quorum: u32) -> Held {
        let group = ApproverGroup {
            name: "dba".into(),
            users: Vec::new(),
            uids: uids.to_vec(),
        };
        let requirement = Requirement {
            group: Arc::new(group),
            quorum,
        };
        let plan = HoldPlan {
            requirements: vec![requirement],
            requester_may_approve: false,
            ..HoldPlan::by_anybody(Duration::from_secs(60))
        };
        let request = Request {
            plan: Arc::new(plan),
            ..request(number)
        };
        self.approvals.open(request).unwrap()
    }
}

#[tokio::test]
async fn a_vote_is_on_record_before_it_counts() {
    let gateway = Gateway::start().await;
    let uid = nix::unistd::getuid().as_raw();
    let held = gateway.hold_for(7, &[uid, 4201], 2);
    let done = gateway.call(resolve(7, true)).await.unwrap();
    assert_eq!(
        done,
        json!({ "number": 7, "resolution": "vote", "approved": false, "missing": ["1 of dba"] })
    );
    let [Kind::Administration(act), Kind::Approval(vote)] = &*gateway.events() else {
        panic!("{:?}", gateway.events())
    };
    assert_eq!(act.action, "approve request 7");
    assert_eq!(vote.resolution, "vote");
    assert_eq!((vote.request, vote.command), (7, 3));
    assert_eq!(vote.reason, "change 4711");
    assert!(vote.by.contains(&format!("uid {uid}")), "{}", vote.by);

    let shown = gateway.call(AdminRequest::Approval { number: 7 });
    let shown = shown.await.unwrap();
    assert_eq!(shown["approvals"][0]["by"], vote.by.as_str());
    assert_eq!(shown["approvals"][0]["reason"], "change 4711");
    let group = json!([
        { "name": "dba", "quorum": 2, "approvals": 1, "users": [], "uids": [uid, 4201] }
    ]);
    assert_eq!(shown["groups"], group);
    assert_eq!(shown["required"], json!(["2 of dba"]));
    assert_eq!(shown["requester_may_approve"], false);

    // A second time it is neither counted nor on record.
    let twice = gateway.call(resolve(7, true)).await.unwrap_err();
    assert!(twice.to_string().contains("nobody counts twice"), "{twice}");
    assert_eq!(gateway.events().len(), 2);
    assert_eq!(held.withdraw(), None);
}

#[tokio::test]
async fn whoever_is_not_asked_is_told_who_is() {
    let gateway = Gateway::start().await;
    let _held = gateway.hold_for(7, &[4201], 1);
    for approve in [true, false] {
        let error = gateway.call(resolve(7, approve)).await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("request 7 needs 1 of dba, and "),
            "{error}"
        );
    }
    assert_eq!(gateway.events(), []);
}

#[tokio::test]
async fn without_a_log_no_vote_counts() {
    let gateway = Gateway::start().await;
    let uid = nix::unistd::getuid().as_raw();
    let _held = gateway.hold_for(7, &[uid, 4201], 2);
    gateway.recorder.close();
    let error = gateway.call(resolve(7, true)).await.unwrap_err();
    assert!(
        error.to_string().contains("the audit log is closed"),
        "{error}"
    );
    assert_eq!(gateway.approvals.show(7).unwrap().votes, []);
}

/// Runs something as user 4201 of group 4200: this thread alone becomes them.
fn as_guest<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let guest = std::thread::spawn(|| {
        // SAFETY: two system calls with numbers. They change the identity of this thread only, which
        // ends with `work`; libc's own functions would change the whole process.
        let (group, user) = unsafe {
            (
                libc::syscall(libc::SYS_setresgid, 4200, 4200, 4200),
                libc::syscall(libc::SYS_setresuid, 4201, 4201, 4201),
            )
        };
        assert_eq!((group, user), (0, 0), "this test needs root");
        work()
    });
    guest.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_group_decide_and_nothing_else() {
    let gateway = Gateway::start_for(Some(SocketGroup::find("4200").unwrap())).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let socket = gateway.socket();
    assert_eq!(mode(&socket), 0o660);
    assert_eq!(mode(socket.parent().unwrap()), 0o750);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(gateway.directory.path(), open).unwrap();

    let held = gateway.hold_for(7, &[4201], 1);
    let (listed, resolved, refused, log) = as_guest({
        let socket = socket.clone();
        move || {
            let listed = connect(&socket).call(&AdminRequest::Approvals);
            let resolved = connect(&socket).call(&resolve(7, true));
            let others = [
                AdminRequest::Status,
                AdminRequest::Sessions,
                AdminRequest::Upgrade,
                AdminRequest::Kill {
                    id: "0190".to_owned(),
                    reason: String::new(),
                },
            ];
            let refused =
                others.map(|other| connect(&socket).call(&other).unwrap_err().to_string());
            let log = connect(&socket).audit(1, None, false).unwrap().next();
            (listed, resolved, refused, log)
        }
    });
    assert_eq!(listed.unwrap()[0]["number"], 7);
    assert_eq!(resolved.unwrap()["resolution"], "approved");
    assert_eq!(held.await.by, "uid 4201");
    for error in refused {
        assert_eq!(
            error,
            "uid 4201 may use `interceptor approvals` only; run this as root"
        );
    }
    let Some(Err(ClientError::Refused(_))) = log else {
        panic!("the log was read")
    };

    // Without the group they do not even connect.
    let owners = Gateway::start().await;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(owners.directory.path(), open).unwrap();
    let socket = owners.socket();
    let refused = as_guest(move || Client::connect(&socket).err());
    assert!(matches!(refused, Some(ClientError::Forbidden(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_keep_root_out() {
    let gateway = Gateway::start_for(Some(SocketGroup::find("4200").unwrap())).await;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(gateway.directory.path(), open).unwrap();
    let socket = gateway.socket();
    let list = |client: &mut Client| {
        client
            .call(&AdminRequest::Approvals)
            .map_err(|e| e.to_string())
    };
    let guests = as_guest(move || {
        let mut guests: Vec<Client> = (0..40).map(|_| connect(&socket)).collect();
        let answered: Vec<_> = guests.iter_mut().map(list).collect();
        // They stay.
        (guests, answered)
    });
    let refused = Err("32 others are connected already; try again later".to_owned());
    let refusals = guests.1.iter().filter(|answer| **answer == refused).count();
    let answers = guests.1.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((answers, refusals), (32, 8), "{:?}", guests.1);
    gateway.call(AdminRequest::Status).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_the_group_cannot_enter_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o750)).unwrap();
    let group = SocketGroup::find("4200").unwrap();
    let refused = Socket::bind(&run.join("admin.sock"), Some(&group)).err();
    let refused = refused.unwrap();
    assert!(matches!(refused, AdminError::ClosedDirectory { .. }));
    assert!(refused.to_string().contains("chgrp 4200"), "{refused}");
    assert!(SocketGroup::find("no-such-group").is_err());
}
