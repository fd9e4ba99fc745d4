//! Who was faster: the person who answers a hold, or what would end it without an answer.
//!
//! It owns that an answer which was given before the end counts, even if the session has not seen it
//! yet: who approved was told that the command goes. It must not know what an answer does.

use interceptor_core::session::Now;
use interceptor_core::session::postgres::Session;

use crate::approval::Held;

/// Lets the session work at this time. If that ends the hold, nobody can answer it from here on.
pub(super) fn advance(session: &mut Session, held: &mut Option<Held>, now: Now) {
    if session
        .hold_deadline_ns()
        .is_some_and(|deadline| now.monotonic_ns >= deadline)
    {
        settle(session, held);
    }
    session.advance(now);
}

/// The client takes its command back, if nobody has answered; then the cancel is the target's.
pub(super) fn cancel(session: &mut Session, held: &mut Option<Held>) {
    settle(session, held);
    session.handle_cancel();
}

fn settle(session: &mut Session, held: &mut Option<Held>) {
    if let Some(resolution) = held.take().and_then(Held::withdraw) {
        session.handle_resolution(&resolution);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use interceptor_core::audit::event::Kind;
    use interceptor_core::command::Subject;
    use interceptor_core::mask::HashKey;
    use interceptor_core::policy::{self, Source};
    use interceptor_core::session::postgres::Action;
    use uuid::Uuid;

    use super::*;
    use crate::approval::{Answer, Approvals, Counted, HostUser, Request, Voter};
    use crate::gateway::rates::CountedRates;

    const POLICY: &str = "
kind: Target
name: shop
spec:
  protocol: postgres
  endpoints: [\"10.0.0.5:5432\"]
  default: {hold: {timeout: 10s}}
";
    const SECOND_NS: u64 = 1_000_000_000;
    const SQL: &[u8] = b"Q\0\0\0\x17DELETE FROM orders\0";

    /// A session whose command waits until the tenth second, its request, and all that wait.
    struct World {
        session: Session,
        held: Option<Held>,
        approvals: Approvals,
        words: Vec<String>,
    }

    fn at(seconds: u64) -> Now {
        Now {
            monotonic_ns: seconds * SECOND_NS,
            unix_ns: seconds * SECOND_NS,
        }
    }

    impl World {
        fn new() -> Self {
            let sources = [Source {
                file: "policy.yaml",
                text: POLICY,
            }];
            let policy = Arc::new(policy::load(&sources, &HashKey::new([0; 32])).unwrap());
            let target = Arc::clone(policy.target("shop").unwrap());
            let subject = Subject {
                client: "192.0.2.1:5000".parse().unwrap(),
                process: None,
                user: String::new(),
                database: String::new(),
            };
            let rates = Arc::new(CountedRates::default());
            let mut world = Self {
                session: Session::new(subject, policy, target, rates, at(0)),
                held: None,
                approvals: Approvals::default(),
                words: Vec::new(),
            };
            world.client(b"\0\0\0\x12\0\x03\0\0user\0eve\0\0");
            world.server(b"R\0\0\0\x08\0\0\0\0");
            world.server(b"S\0\0\0\x19client_encoding\0UTF8\0");
            world.server(b"S\0\0\0\x23standard_conforming_strings\0on\0");
            world.server(b"Z\0\0\0\x05I");
            world.client(SQL);
            assert_eq!(world.session.state(), "held");
            world
        }

        fn client(&mut self, bytes: &[u8]) {
            self.session.client_in().extend_from_slice(bytes);
            self.work(at(0));
        }

        fn server(&mut self, bytes: &[u8]) {
            self.session.server_in().extend_from_slice(bytes);
            self.work(at(0));
        }

        /// As the driver does, with a record that is durable at once.
        fn work(&mut self, now: Now) {
            advance(&mut self.session, &mut self.held, now);
            while let Some(action) = self.session.poll_action() {
                match action {
                    Action::Connect => self.session.handle_connected(None),
                    Action::Record(kind, ticket) => {
                        if let Kind::Approval(approval) = *kind {
                            self.words.push(approval.resolution);
                        }
                        if let Some(ticket) = ticket {
                            self.session.handle_recorded(ticket);
                        }
                    }
                    Action::Hold(request) => {
                        self.session.handle_hold_numbered(7);
                        let request = Request {
                            number: 7,
                            session: Uuid::nil(),
                            command: request.command,
                            plan: request.plan,
                            person: None,
                            people: request.people,
                            opened_unix_ns: 0,
                            expires_unix_ns: 0,
                            subject: self.session.subject().clone(),
                            target: "shop".to_owned(),
                            rule: String::new(),
                            reason: String::new(),
                            text: String::new(),
                            parameters: Vec::new(),
                            kinds: Vec::new(),
                            reads: Vec::new(),
                            writes: Vec::new(),
                        };
                        self.held = Some(self.approvals.open(request).unwrap());
                        self.session.handle_hold_opened();
                    }
                    Action::Withdraw => self.held = None,
                    Action::ForwardCancel(_) => self.words.push("forwarded".to_owned()),
                    _ => {}
                }
            }
        }

        fn answer(&self, approve: bool) -> Result<Counted, ()> {
            let user = HostUser { uid: 1, name: None };
            let answer = Answer {
                by: Voter { user, login: None },
                requester: None,
                approve,
                reason: String::new(),
                time_unix_ns: 0,
            };
            let casting = self.approvals.cast(7, answer).map_err(|_| ())?;
            casting.count().map_err(|_| ())
        }

        fn went(&self) -> bool {
            self.session.to_server().ends_with(SQL)
        }
    }

    #[test]
    fn a_person_who_was_faster_than_the_clock_counts() {
        let mut world = World::new();
        assert_eq!(world.answer(true), Ok(Counted::Approved));
        world.work(at(10));
        assert_eq!(world.words, ["approved"]);
        assert!(world.went());

        let mut world = World::new();
        assert_eq!(world.answer(false), Ok(Counted::Denied));
        world.work(at(10));
        assert_eq!(world.words, ["denied"]);
        assert!(!world.went());
    }

    #[test]
    fn nobody_is_faster_once_the_time_is_over() {
        let mut world = World::new();
        world.work(at(9));
        assert!(world.words.is_empty());
        // The clock has spoken, and what it asks of the driver is not done yet.
        advance(&mut world.session, &mut world.held, at(10));
        assert_eq!(world.answer(true), Err(()));
        world.work(at(10));
        assert_eq!(world.words, ["timed_out"]);
        assert!(!world.went());
    }

    #[test]
    fn a_person_who_was_faster_than_a_cancel_counts() {
        let mut world = World::new();
        assert_eq!(world.answer(true), Ok(Counted::Approved));
        cancel(&mut world.session, &mut world.held);
        world.work(at(1));
        assert_eq!(world.words, ["approved"]);
        assert!(world.went());

        let mut world = World::new();
        cancel(&mut world.session, &mut world.held);
        assert_eq!(world.answer(true), Err(()));
        world.work(at(1));
        assert_eq!(world.words, ["cancelled"]);
        assert!(!world.went());
    }
}
