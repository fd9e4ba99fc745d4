//! Two scripted peers around one session. Every action of the machine is answered at once, except
//! where a test withholds the answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use interceptor_core::audit::event::Kind;
use interceptor_core::command::{Process, Resolution, Subject};
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Rate, Snapshot, Source};
use interceptor_core::session::postgres::catalog::{
    Catalog, CatalogColumn, CatalogFunction, CatalogRelation, Contents, FunctionKind, Language,
    RelationKind, Volatility,
};
use interceptor_core::session::postgres::login::{Answer, NONCE_BYTES, Question, Verifier};
use interceptor_core::session::postgres::{Action, Session, Ticket, Tls};
use interceptor_core::session::{Now, Rates};

use crate::text::*;

/// The masked table: `id`, `name`, `email`, `ssn`, of which the last two are masked.
pub(crate) const CUSTOMERS: u32 = 20_000;
/// A table that no mask touches: `id`, `total`.
pub(crate) const ORDERS: u32 = 20_001;
/// A view over the emails: `e`.
pub(crate) const CONTACTS: u32 = 20_002;

/// One target, a rule of each outcome, no masks.
pub(crate) const RULES: &str = r#"
kind: Target
name: shop
spec:
  protocol: postgres
  endpoints: ["10.0.0.5:5432"]
  default: allow
  catalog: {user: reader}
---
kind: Rule
name: no-drop
spec:
  match: {statements: [DROP]}
  then: {deny: "tables stay"}
---
kind: Rule
name: ask
spec:
  match: {statements: [DELETE]}
  then: {hold: {timeout: 60s, message: "somebody looks"}}
"#;

/// The masks that go with [`RULES`].
pub(crate) const MASKS: &str = r#"
---
kind: Mask
name: personal
spec:
  columns: [public.customers.email, public.customers.ssn]
  with: full
"#;

pub(crate) fn masked() -> String {
    format!("{RULES}{MASKS}")
}

/// As [`masked`], with commands allowed that the gateway cannot see through.
pub(crate) fn masked_and_lax() -> String {
    masked().replace("default: allow", "default: allow\n  incomplete: allow")
}

fn snapshot(policy: &str) -> Arc<Snapshot> {
    let sources = [Source {
        file: "policy.yaml",
        text: policy,
    }];
    Arc::new(
        policy::load(&sources, &HashKey::new([0; 32]))
            .unwrap_or_else(|errors| panic!("\n{errors}")),
    )
}

pub(crate) fn relation(oid: u32, schema: &str, name: &str, columns: &[&str]) -> CatalogRelation {
    let columns = columns
        .iter()
        .zip(1..)
        .map(|(name, attribute)| CatalogColumn {
            attribute,
            name: (*name).into(),
            type_oid: 25,
            generated: false,
        });
    CatalogRelation {
        oid,
        schema: schema.into(),
        name: name.into(),
        kind: RelationKind::Table,
        columns: columns.collect(),
        view: None,
        parents: Vec::new(),
        rows: None,
    }
}

pub(crate) fn built_in(name: &str) -> CatalogFunction {
    CatalogFunction {
        schema: "pg_catalog".into(),
        name: name.into(),
        kind: FunctionKind::Function,
        volatility: Volatility::Immutable,
        language: Language::Internal,
        definer: false,
    }
}

/// The relations of the sample database.
pub(crate) fn relations() -> Vec<CatalogRelation> {
    let mut contacts = relation(CONTACTS, "public", "contacts", &["e"]);
    contacts.view = Some("SELECT customers.email AS e FROM public.customers".into());
    vec![
        relation(
            CUSTOMERS,
            "public",
            "customers",
            &["id", "name", "email", "ssn"],
        ),
        relation(ORDERS, "public", "orders", &["id", "total"]),
        contacts,
    ]
}

/// Functions that are built in and nothing else.
const FUNCTIONS: &[&str] = &[
    "count",
    "lower",
    "upper",
    "reverse",
    "substr",
    "now",
    "to_jsonb",
    "row_to_json",
    "set_config",
    "current_setting",
    "max",
    "array_agg",
    "string_agg",
];

/// When every test begins: 2026-11-20 at midnight, UTC.
pub(crate) const MIDNIGHT_UNIX_NS: u64 = 1_795_132_800_000_000_000;

/// Counts as the limit says, over the whole test.
#[derive(Default)]
struct Counting(Mutex<BTreeMap<(String, String), u32>>);

impl Rates for Counting {
    fn admit(&self, rule: &str, who: &str, rate: Rate, _: u64) -> bool {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry((rule.into(), who.into())).or_default();
        *count += 1;
        *count <= rate.count
    }
}

/// A session between two scripts.
pub(crate) struct Pair {
    pub(crate) session: Session,
    pub(crate) now_ns: u64,
    /// Everything that reached the client.
    pub(crate) to_client: Vec<u8>,
    /// Everything that reached the server.
    pub(crate) to_server: Vec<u8>,
    /// What was asked of the driver, one line each.
    pub(crate) log: Vec<String>,
    /// Tickets that are not confirmed, while [`Self::withhold`].
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) withhold: bool,
    /// Nobody says that the target was told to stop.
    pub(crate) withhold_interrupt: bool,
    pub(crate) relations: Vec<CatalogRelation>,
    /// Functions that are not built in.
    pub(crate) functions: Vec<CatalogFunction>,
    generation: u64,
    requests: u64,
    /// What a login finds.
    pub(crate) login: Found,
    pub(crate) client_tls: Option<Tls>,
    pub(crate) server_tls: Option<Tls>,
}

/// What the world outside has for a login.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) verifier: Option<Verifier>,
    pub(crate) password: String,
    pub(crate) fails: bool,
}

impl Pair {
    /// Before the first byte.
    pub(crate) fn new(policy: &str) -> Self {
        Self::of(policy, None)
    }

    /// The same for a process of the gateway's host.
    pub(crate) fn of(policy: &str, process: Option<Process>) -> Self {
        let policy = snapshot(policy);
        let target = Arc::clone(policy.target("shop").unwrap());
        let subject = Subject {
            client: SocketAddr::from(([10, 9, 0, 1], 50_000)),
            process,
            user: String::new(),
            database: String::new(),
        };
        Self {
            session: Session::new(
                subject,
                policy,
                target,
                Arc::new(Counting::default()),
                Now::default(),
            ),
            now_ns: 0,
            to_client: Vec::new(),
            to_server: Vec::new(),
            log: Vec::new(),
            tickets: Vec::new(),
            withhold: false,
            withhold_interrupt: false,
            relations: relations(),
            functions: Vec::new(),
            generation: 0,
            requests: 0,
            login: Found::default(),
            client_tls: None,
            server_tls: None,
        }
    }

    /// With a client that was let in; what was said until then is forgotten.
    pub(crate) fn running(policy: &str) -> Self {
        let mut pair = Self::new(policy);
        pair.client(&startup());
        pair.server(&authentication(0, &[]));
        pair.server(&settings());
        pair.forget();
        assert_eq!(pair.session.state(), "idle");
        pair
    }

    pub(crate) fn forget(&mut self) {
        self.to_client.clear();
        self.to_server.clear();
        self.log.clear();
    }

    /// The client sends.
    pub(crate) fn client(&mut self, bytes: &[u8]) {
        self.session.client_in().extend_from_slice(bytes);
        self.pump();
    }

    /// The server sends.
    pub(crate) fn server(&mut self, bytes: &[u8]) {
        self.session.server_in().extend_from_slice(bytes);
        self.pump();
    }

    /// The client sends a Query, the server answers it.
    pub(crate) fn exchange(&mut self, sql: &str, replies: &[Vec<u8>]) {
        self.client(&query(sql));
        self.server(&replies.concat());
    }

    /// The time of both clocks.
    pub(crate) fn now(&self) -> Now {
        Now {
            monotonic_ns: self.now_ns,
            unix_ns: MIDNIGHT_UNIX_NS + self.now_ns,
        }
    }

    /// Lets the machine work until nothing moves.
    pub(crate) fn pump(&mut self) {
        loop {
            self.session.advance(self.now());
            let mut moved = false;
            while let Some(action) = self.session.poll_action() {
                moved = true;
                self.act(action);
            }
            let (up, down) = (
                self.session.to_server().to_vec(),
                self.session.to_client().to_vec(),
            );
            self.session.sent_to_server(up.len());
            self.session.sent_to_client(down.len());
            moved |= !up.is_empty() || !down.is_empty();
            self.to_server.extend(up);
            self.to_client.extend(down);
            if !moved {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.log.push("connect".into());
                self.session.handle_connected(self.server_tls.clone());
            }
            Action::EncryptClient => {
                self.log.push("encrypt the client".into());
                if let Some(tls) = self.client_tls.clone() {
                    self.session.handle_client_encrypted(tls);
                }
            }
            Action::Record(kind, ticket) => {
                self.log.push(describe(&kind));
                match ticket {
                    Some(ticket) if self.withhold => self.tickets.push(ticket),
                    Some(ticket) => self.session.handle_recorded(ticket),
                    None => {}
                }
            }
            Action::Register(_) => self.log.push("register".into()),
            Action::Cancel(_) => self.log.push("cancel another".into()),
            Action::ForwardCancel(_) => self.log.push("forward the cancel".into()),
            Action::Interrupt(_) => {
                self.log.push("interrupt".into());
                if !self.withhold_interrupt {
                    self.session.handle_interrupted();
                }
            }
            Action::Login(question) => self.log_in(question),
            Action::ReadCatalog { .. } => {
                let catalog = Catalog::new(Contents {
                    relations: self.relations.clone(),
                    functions: FUNCTIONS
                        .iter()
                        .map(|name| built_in(name))
                        .chain(self.functions.iter().cloned())
                        .collect(),
                    search_paths: Vec::new(),
                });
                self.session
                    .handle_catalog(Arc::new(catalog), self.generation);
            }
            Action::CatalogChanged => {
                self.generation += 1;
                self.log.push("catalog changed".into());
            }
            Action::Hold(request) => {
                self.requests += 1;
                self.log
                    .push(format!("hold {} {:?}", request.text, request.parameters));
                self.session.handle_hold_numbered(self.requests);
                self.session.handle_hold_opened();
            }
            Action::Withdraw => self.log.push("withdraw".into()),
        }
    }

    fn log_in(&mut self, question: Question) {
        if self.login.fails {
            return self.session.handle_no_login("no such thing");
        }
        self.session.handle_login(match question {
            Question::Begin { verifier_file, .. } => Answer::Begun {
                random: [[7; NONCE_BYTES], [8; NONCE_BYTES]],
                verifier: verifier_file.and_then(|_| self.login.verifier.clone()),
            },
            Question::Password { .. } => {
                Answer::Password(self.login.password.clone().into_bytes().into())
            }
            Question::Derive(derivation) => Answer::Derived(derivation.run()),
        });
    }

    /// Every event withheld so far is durable now.
    pub(crate) fn confirm(&mut self) {
        for ticket in std::mem::take(&mut self.tickets) {
            self.session.handle_recorded(ticket);
        }
        self.pump();
    }

    /// Somebody else changed the catalogue, and the session is told.
    pub(crate) fn change_catalogue(&mut self, relations: Vec<CatalogRelation>) {
        self.relations = relations;
        self.generation += 1;
        self.session.set_catalog_generation(self.generation);
        self.pump();
    }

    /// Another policy is in force.
    pub(crate) fn reload(&mut self, policy: &str) {
        self.session.set_policy(snapshot(policy));
        self.pump();
    }

    pub(crate) fn resolve(&mut self, approved: bool) {
        self.session.handle_resolution(&Resolution {
            approved,
            by: "eve".into(),
            reason: "because".into(),
        });
        self.pump();
    }

    pub(crate) fn cancel(&mut self) {
        self.session.handle_cancel();
        self.pump();
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now_ns += seconds * 1_000_000_000;
        self.pump();
    }

    /// Whether a line of the log holds every one of `parts`.
    pub(crate) fn logged(&self, parts: &[&str]) -> bool {
        self.log
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// What the client read since the last [`Self::forget`] holds no secret.
    #[track_caller]
    pub(crate) fn shows_nothing(&self) {
        assert!(
            !holds(&self.to_client, SECRET),
            "{}",
            String::from_utf8_lossy(&self.to_client)
        );
    }

    /// The client did read something with the secret's place in it.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        assert!(
            holds(&self.to_client, text),
            "{}",
            String::from_utf8_lossy(&self.to_client)
        );
    }
}

/// A value of a masked column.
pub(crate) const SECRET: &str = "ada@example.com";

/// What a server says between AuthenticationOk and the first command.
pub(crate) fn settings() -> Vec<u8> {
    [
        parameter_status("client_encoding", "UTF8"),
        parameter_status("standard_conforming_strings", "on"),
        backend_key(),
        ready(b'I'),
    ]
    .concat()
}

/// An event in one line.
fn describe(kind: &Kind) -> String {
    format!("{kind:?}")
}
