use std::sync::Barrier;
use std::time::Duration;

use interceptor_core::command::{Process, Subject};
use interceptor_core::policy::{ApproverGroup, HoldPlan, People, Person, Requirement};
use proptest::prelude::*;

use super::*;

/// Uids 1 to 6 exist. Person `ann` is 1 and 2, by number and by name; the others are one each.
const UIDS: std::ops::RangeInclusive<u32> = 1..=6;

fn request(number: u64, plan: HoldPlan) -> Request {
    let ann = Person {
        name: "ann".into(),
        users: vec!["user2".to_owned()],
        uids: vec![1],
    };
    Request {
        number,
        session: Uuid::nil(),
        command: 1,
        plan: Arc::new(plan),
        person: None,
        people: Arc::new(People(vec![ann])),
        opened_unix_ns: 0,
        expires_unix_ns: 0,
        subject: Subject {
            client: "192.0.2.1:5000".parse().unwrap(),
            process: None,
            user: "alice".to_owned(),
            database: "shop".to_owned(),
        },
        target: "shop-db".to_owned(),
        rule: String::new(),
        reason: String::new(),
        text: "DELETE FROM orders".to_owned(),
        parameters: Vec::new(),
        kinds: Vec::new(),
        reads: Vec::new(),
        writes: Vec::new(),
    }
}

fn by_anybody(number: u64) -> Request {
    request(number, HoldPlan::by_anybody(Duration::from_secs(60)))
}

fn group(name: &str, uids: &[u32], quorum: u32) -> Requirement {
    let group = ApproverGroup {
        name: name.into(),
        users: Vec::new(),
        uids: uids.to_vec(),
    };
    Requirement {
        group: Arc::new(group),
        quorum,
    }
}

fn plan(requirements: Vec<Requirement>) -> HoldPlan {
    HoldPlan {
        requirements,
        requester_may_approve: false,
        ..HoldPlan::by_anybody(Duration::from_secs(60))
    }
}

fn user(uid: u32) -> HostUser {
    HostUser {
        uid,
        name: Some(format!("user{uid}")),
    }
}

fn answer(uid: u32, approve: bool) -> Answer {
    let by = Voter {
        user: user(uid),
        login: None,
    };
    Answer {
        by,
        requester: None,
        approve,
        reason: String::new(),
        time_unix_ns: u64::from(uid),
    }
}

fn resolve(approvals: &Approvals, number: u64, answer: Answer) -> Result<Counted, Refusal> {
    Ok(approvals.cast(number, answer)?.count()?)
}

fn approve(approvals: &Approvals, number: u64, uid: u32) -> Result<Counted, Refusal> {
    resolve(approvals, number, answer(uid, true))
}

fn not_open(number: u64) -> Refusal {
    Refusal::NotOpen(NotOpen { number })
}

fn missing(what: &[&str]) -> Counted {
    Counted::Missing(what.iter().map(|&one| one.to_owned()).collect())
}

#[tokio::test]
async fn an_approval_reaches_who_waits_and_ends_the_request() {
    let approvals = Approvals::default();
    let held = approvals.open(by_anybody(7)).unwrap();
    let waiting = approvals.show(7).unwrap();
    assert_eq!(waiting.request.text, "DELETE FROM orders");
    assert_eq!(waiting.missing(), ["1 approval"]);
    assert_eq!(approve(&approvals, 7, 1), Ok(Counted::Approved));
    assert_eq!(approve(&approvals, 7, 3), Err(not_open(7)));
    assert!(approvals.list().is_empty());
    let resolution = held.await;
    assert!(resolution.approved);
    assert_eq!(resolution.by, "user1 (uid 1)");
}

#[test]
fn a_dropped_request_cannot_be_approved() {
    let approvals = Approvals::default();
    drop(approvals.open(by_anybody(7)).unwrap());
    assert!(approvals.list().is_empty());
    assert_eq!(approve(&approvals, 7, 1), Err(not_open(7)));
    // Nor by an answer that was given while it was there.
    let held = approvals.open(by_anybody(8)).unwrap();
    let casting = approvals.cast(8, answer(1, true)).unwrap();
    drop(held);
    assert_eq!(casting.count(), Err(NotOpen { number: 8 }));
}

#[test]
fn withdrawing_after_an_answer_yields_the_answer() {
    let approvals = Approvals::default();
    let held = approvals.open(by_anybody(1)).unwrap();
    assert_eq!(held.withdraw(), None);
    let held = approvals.open(by_anybody(2)).unwrap();
    approve(&approvals, 2, 1).unwrap();
    assert!(held.withdraw().unwrap().approved);
}

#[test]
fn a_number_is_open_once() {
    let approvals = Approvals::default();
    let held = approvals.open(by_anybody(7)).unwrap();
    assert_eq!(
        approvals.open(by_anybody(7)).err(),
        Some(OpenError::NumberTaken(7))
    );
    // The refused second request must not have withdrawn the first.
    approve(&approvals, 7, 1).unwrap();
    assert!(held.withdraw().is_some());
}

#[test]
fn the_number_of_requests_is_limited() {
    let approvals = Approvals::default();
    let held: Vec<Held> = (0..OPEN_MAX as u64)
        .map(|number| approvals.open(by_anybody(number)).unwrap())
        .collect();
    assert_eq!(
        approvals.open(by_anybody(u64::MAX)).err(),
        Some(OpenError::TooMany)
    );
    drop(held);
    assert!(approvals.open(by_anybody(u64::MAX)).is_ok());
}

#[test]
fn two_different_members_approve() {
    let approvals = Approvals::default();
    let plan = plan(vec![group("dba", &[1, 3, 4], 2)]);
    let held = approvals.open(request(7, plan)).unwrap();
    let by_one = Answer {
        reason: "change 4711".to_owned(),
        ..answer(1, true)
    };
    assert_eq!(resolve(&approvals, 7, by_one), Ok(missing(&["1 of dba"])));
    let waiting = approvals.show(7).unwrap();
    assert_eq!(waiting.votes[0].by.to_string(), "user1 (uid 1)");
    let twice = approve(&approvals, 7, 1).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "request 7 has the approval of user1 (uid 1) already, and nobody counts twice; \
         1 of dba missing"
    );
    let stranger = approve(&approvals, 7, 5).unwrap_err();
    assert_eq!(
        stranger.to_string(),
        "request 7 needs 2 of dba, and user5 (uid 5) is no member; `interceptor approvals show 7` \
         says who is"
    );
    assert_eq!(approve(&approvals, 7, 4), Ok(Counted::Approved));
    let resolution = held.withdraw().unwrap();
    assert_eq!(resolution.by, "user1 (uid 1); user4 (uid 4)");
    assert_eq!(resolution.reason, "change 4711");
}

#[test]
fn one_person_counts_once_whatever_the_user() {
    let approvals = Approvals::default();
    let dba = plan(vec![group("dba", &[0, 1, 2, 3], 2)]);
    let _held = approvals.open(request(7, dba)).unwrap();
    approve(&approvals, 7, 1).unwrap();
    // User 2 is ann, too, by its name alone; root is, when she became it by `sudo`.
    assert!(matches!(
        approve(&approvals, 7, 2),
        Err(Refusal::Twice { .. })
    ));
    let sudo = |login| Answer {
        by: Voter {
            user: HostUser { uid: 0, name: None },
            login: Some(user(login)),
        },
        ..answer(0, true)
    };
    for login in [1, 2] {
        let twice = resolve(&approvals, 7, sudo(login));
        assert!(matches!(twice, Err(Refusal::Twice { .. })), "{twice:?}");
    }
    assert_eq!(resolve(&approvals, 7, sudo(6)), Ok(Counted::Approved));
}

#[test]
fn a_login_makes_nobody_a_member() {
    let approvals = Approvals::default();
    let dba = plan(vec![group("dba", &[1], 1)]);
    let _held = approvals.open(request(7, dba)).unwrap();
    let mut as_root = answer(0, true);
    as_root.by.login = Some(user(1));
    let refused = resolve(&approvals, 7, as_root);
    assert!(
        matches!(refused, Err(Refusal::NotAsked { .. })),
        "{refused:?}"
    );
}

#[test]
fn one_vote_counts_for_each_group_of_the_voter() {
    let approvals = Approvals::default();
    let both = plan(vec![
        group("dba", &[1, 3], 1),
        group("security", &[3, 4], 2),
    ]);
    let held = approvals.open(request(7, both)).unwrap();
    assert_eq!(approve(&approvals, 7, 3), Ok(missing(&["1 of security"])));
    // What is met already takes further members; it changes nothing.
    assert_eq!(approve(&approvals, 7, 1), Ok(missing(&["1 of security"])));
    assert_eq!(approve(&approvals, 7, 4), Ok(Counted::Approved));
    assert!(held.withdraw().unwrap().approved);
}

#[test]
fn who_asked_may_not_approve() {
    let group = || vec![group("dba", &[1, 2, 3, 4], 1)];
    let from = |uid| Answer {
        requester: Some(HostUser { uid, name: None }),
        ..answer(3, true)
    };
    let approvals = Approvals::default();
    let mut held = Vec::new();
    let mut open = |number, plan, person: Option<&str>| {
        let mut request = request(number, plan);
        request.person = person.map(Into::into);
        request.subject.process = Some(Process::default());
        held.push(approvals.open(request).unwrap());
    };
    let is_refused = |answered: Result<Counted, Refusal>| {
        assert!(
            matches!(answered, Err(Refusal::Requester { .. })),
            "{answered:?}"
        );
    };
    // By the user of the process, also as root by `sudo`.
    open(1, plan(group()), None);
    is_refused(resolve(&approvals, 1, from(3)));
    let mut as_another = from(6);
    as_another.by.login = Some(user(6));
    is_refused(resolve(&approvals, 1, as_another));
    assert_eq!(resolve(&approvals, 1, from(4)), Ok(Counted::Approved));
    // By the person, under whatever user.
    open(2, plan(group()), Some("ann"));
    is_refused(approve(&approvals, 2, 1));
    is_refused(approve(&approvals, 2, 2));
    assert_eq!(approve(&approvals, 2, 3), Ok(Counted::Approved));
    // By the person behind the user of the process.
    open(3, plan(group()), None);
    let by_ann = Answer {
        requester: Some(user(2)),
        ..answer(1, true)
    };
    is_refused(resolve(&approvals, 3, by_ann));
    // Refusing one's own command harms nobody.
    let no = Answer {
        approve: false,
        ..from(3)
    };
    assert_eq!(resolve(&approvals, 3, no), Ok(Counted::Denied));
    // Without a group as well, where the plan says so.
    open(4, plan(Vec::new()), None);
    is_refused(resolve(&approvals, 4, from(3)));
    let allowed = HoldPlan {
        requester_may_approve: true,
        ..plan(group())
    };
    open(5, allowed, None);
    assert_eq!(resolve(&approvals, 5, from(3)), Ok(Counted::Approved));
}

#[test]
fn one_denial_is_enough() {
    let approvals = Approvals::default();
    let dba = || plan(vec![group("dba", &[1, 3, 4], 3)]);
    let held = approvals.open(request(7, dba())).unwrap();
    approve(&approvals, 7, 1).unwrap();
    assert!(matches!(
        resolve(&approvals, 7, answer(5, false)),
        Err(Refusal::NotAsked { .. })
    ));
    // Also of somebody who thought otherwise before.
    assert_eq!(
        resolve(&approvals, 7, answer(1, false)),
        Ok(Counted::Denied)
    );
    let resolution = held.withdraw().unwrap();
    assert!(!resolution.approved);
    assert_eq!(resolution.by, "user1 (uid 1)");
}

#[test]
fn an_answer_that_is_taken_back_does_not_count() {
    let approvals = Approvals::default();
    let _held = approvals.open(by_anybody(7)).unwrap();
    let casting = approvals.cast(7, answer(1, true)).unwrap();
    // While it is on its way to the record, the same person has no second one.
    assert!(matches!(
        approve(&approvals, 7, 1),
        Err(Refusal::Twice { .. })
    ));
    drop(casting);
    assert_eq!(approve(&approvals, 7, 1), Ok(Counted::Approved));
}

#[test]
fn names_and_reasons_of_an_approval_have_a_limit() {
    let vote = |uid| {
        Arc::new(Vote {
            by: answer(uid, true).by,
            reason: "x".repeat(4096),
            time_unix_ns: 0,
        })
    };
    let votes: Vec<_> = (0..10_000).map(vote).collect();
    let resolution = approval(&votes);
    assert!(resolution.by.len() <= NAMES_BYTES_MAX + 5);
    assert!(resolution.reason.len() <= REASONS_BYTES_MAX + 5);
    assert!(resolution.by.ends_with("; …") && resolution.reason.ends_with("; …"));
}

/// Members at once, a denial, and the session that gives up: exactly one end, every time.
#[test]
fn exactly_one_wins_a_race() {
    for number in 0..2_000 {
        let approvals = Approvals::default();
        let dba = plan(vec![group("dba", &[1, 3, 4, 5], 2)]);
        let held = approvals.open(request(number, dba)).unwrap();
        let start = Barrier::new(6);
        let (counted, resolution) = std::thread::scope(|scope| {
            let voters = [(1, true), (2, true), (3, true), (4, true), (5, false)];
            let voters = voters.map(|(uid, approve)| {
                let (approvals, start) = (&approvals, &start);
                scope.spawn(move || {
                    start.wait();
                    resolve(approvals, number, answer(uid, approve)).ok()
                })
            });
            start.wait();
            let resolution = held.withdraw();
            let counted = voters.map(|voter| voter.join().unwrap());
            (counted, resolution)
        });
        let ends = |counted: &&Option<Counted>| {
            matches!(counted, Some(Counted::Approved | Counted::Denied))
        };
        let winners = counted.iter().filter(ends).count();
        assert_eq!(winners, usize::from(resolution.is_some()), "{counted:?}");
        let approved = resolution.is_some_and(|resolution| resolution.approved);
        assert_eq!(
            counted.contains(&Some(Counted::Approved)),
            approved,
            "{counted:?}"
        );
        // User 2 is no member, and ann's other user.
        assert_eq!(counted[1], None);
    }
}

/// A step of a sequence of which the model below knows the outcome.
#[derive(Debug, Clone)]
enum Step {
    Cast {
        uid: u32,
        approve: bool,
    },
    /// One of those that were cast: counted, or taken back.
    Count(prop::sample::Index),
    TakeBack(prop::sample::Index),
    Withdraw,
}

fn step() -> impl Strategy<Value = Step> {
    let cast = |approve| UIDS.prop_map(move |uid| Step::Cast { uid, approve });
    prop_oneof![
        12 => cast(true),
        1 => cast(false),
        10 => any::<prop::sample::Index>().prop_map(Step::Count),
        2 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
        1 => Just(Step::Withdraw),
    ]
}

fn requirements() -> impl Strategy<Value = Vec<(Vec<u32>, u32)>> {
    let members = prop::sample::subsequence(UIDS.collect::<Vec<_>>(), 1..=6);
    prop::collection::vec((members, 1_u32..=3), 0..=2)
}

/// What should be, in the plainest words: users 1 and 2 are one person.
#[derive(Default)]
struct Model {
    requirements: Vec<(Vec<u32>, u32)>,
    requester: u32,
    counted: Vec<u32>,
    cast: Vec<(u32, bool)>,
    end: Option<bool>,
    withdrawn: bool,
}

impl Model {
    fn person(uid: u32) -> u32 {
        if uid == 2 { 1 } else { uid }
    }

    fn takes(&self, uid: u32, approve: bool) -> bool {
        let person = Self::person(uid);
        let member = self.requirements.is_empty()
            || self
                .requirements
                .iter()
                .any(|(uids, _)| uids.contains(&uid));
        let cast = self.cast.iter().filter(|(_, approve)| *approve);
        let mut earlier = self.counted.iter().chain(cast.map(|(uid, _)| uid));
        let fresh = !earlier.any(|uid| Self::person(*uid) == person);
        self.is_open() && member && (!approve || (fresh && person != Self::person(self.requester)))
    }

    fn is_open(&self) -> bool {
        self.end.is_none() && !self.withdrawn
    }

    fn is_met(&self) -> bool {
        let met = |(uids, quorum): &(Vec<u32>, u32)| {
            let members = self.counted.iter().filter(|uid| uids.contains(uid));
            members.count() >= *quorum as usize
        };
        !self.counted.is_empty() && self.requirements.iter().all(met)
    }
}

proptest! {
    /// Any sequence of answers, whole and half, ends as the model says, once.
    #[test]
    fn any_sequence_ends_as_the_model_says(
        requirements in requirements(),
        requester in UIDS,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let approvals = Approvals::default();
        let groups = requirements.iter().zip(["dba", "security"]);
        let groups = groups.map(|((uids, quorum), name)| group(name, uids, *quorum)).collect();
        let mut held = Some(approvals.open(request(1, plan(groups))).unwrap());
        let mut model = Model { requirements, requester, ..Model::default() };
        let mut castings: Vec<Casting> = Vec::new();
        let mut resolution = None;
        for step in steps {
            match step {
                Step::Cast { uid, approve } => {
                    let answer = Answer { requester: Some(user(requester)), ..answer(uid, approve) };
                    let cast = approvals.cast(1, answer);
                    prop_assert_eq!(cast.is_ok(), model.takes(uid, approve), "{} {}", uid, approve);
                    if let Ok(cast) = cast {
                        castings.push(cast);
                        model.cast.push((uid, approve));
                    }
                }
                Step::Count(index) if !castings.is_empty() => {
                    let index = index.index(castings.len());
                    let (uid, approve) = model.cast.remove(index);
                    let counted = castings.remove(index).count();
                    if !model.is_open() {
                        prop_assert_eq!(counted, Err(NotOpen { number: 1 }));
                        continue;
                    }
                    if approve {
                        model.counted.push(uid);
                    }
                    match counted.unwrap() {
                        Counted::Denied => model.end = Some(false),
                        Counted::Approved => model.end = Some(true),
                        Counted::Missing(_) => {}
                    }
                    let expected = if approve { model.is_met().then_some(true) } else { Some(false) };
                    prop_assert_eq!(model.end, expected);
                }
                Step::TakeBack(index) if !castings.is_empty() => {
                    let index = index.index(castings.len());
                    model.cast.remove(index);
                    drop(castings.remove(index));
                }
                Step::Count(_) | Step::TakeBack(_) => {}
                Step::Withdraw => if let Some(held) = held.take() {
                    resolution = held.withdraw();
                    model.withdrawn = true;
                },
            }
        }
        if let Some(held) = held {
            resolution = held.withdraw();
        }
        prop_assert_eq!(resolution.map(|resolution| resolution.approved), model.end);
        prop_assert!(approvals.list().is_empty());
    }
}
