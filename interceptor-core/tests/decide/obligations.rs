//! What rules ask for beside an outcome: it adds up, whatever their priority.

use interceptor_core::mask::Method;

use super::*;

const MASKS: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432'], catalog: {user: reader}}
---
kind: Target
name: billing
spec: {protocol: postgres, endpoints: ['10.0.0.6:5432'], catalog: {user: reader}}
---
{kind: Mask, name: always, spec: {columns: [customers.card], with: partial}}
---
{kind: Mask, name: more, spec: {columns: [customers.card], with: full, when: named}}
---
{kind: Mask, name: mail, spec: {columns: [customers.mail], patterns: [email], with: hash, when: named}}
---
{kind: Mask, name: there, spec: {targets: [billing], columns: [customers.iban], when: named}}
";

fn masked(rules: &[(&str, &str)]) -> Arc<Snapshot> {
    let rules = rules
        .iter()
        .map(|(name, spec)| format!("---\nkind: Rule\nname: {name}\nspec: {spec}\n"));
    load(&(MASKS.to_owned() + &rules.collect::<String>()))
}

fn select() -> Facts {
    facts(&["SELECT"], &["customers"], &[])
}

#[test]
fn limits_are_the_lowest_of_all_rules() {
    let snapshot = rules(&[
        (
            "b",
            "{priority: 9, match: {}, then: {allow: fine, limit: {rows: 100, rate: 5/s}}}",
        ),
        (
            "a",
            "{match: {}, then: {limit: {rows: 100, bytes: 1KiB, duration: 2m}}}",
        ),
        (
            "c",
            "{priority: -9, match: {}, then: {limit: {rows: 1000, bytes: 1000B, duration: 90s, rate: 2/h}}}",
        ),
        (
            "no",
            "{match: {statements: [DROP]}, then: {limit: {rows: 1}}}",
        ),
    ]);
    let decision = decide(&snapshot, &subject(), &select());
    assert_eq!(decision.rule.unwrap().name, "b");
    let bound = decision.obligations.unwrap();
    let rules: Vec<&str> = bound.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(rules, ["b", "a", "c"]);
    let rows = bound.limits.rows.as_ref().unwrap();
    assert_eq!((rows.at, rows.rule.name.as_str()), (100, "b"));
    let bytes = bound.limits.bytes.as_ref().unwrap();
    assert_eq!((bytes.at, bytes.rule.name.as_str()), (1000, "c"));
    let duration = bound.limits.duration.as_ref().unwrap();
    assert_eq!(
        (duration.at.as_secs(), duration.rule.name.as_str()),
        (90, "c")
    );
    let rates = bound.limits.rates.iter();
    let rates: Vec<(u32, u64)> = rates
        .map(|rate| (rate.at.count, rate.at.per.as_secs()))
        .collect();
    assert_eq!(rates, [(5, 1), (2, 3600)]);
    assert!(bound.masks.is_none() && !bound.read_only);
    // Nobody asks for anything.
    let snapshot = self::rules(&[("b", "{match: {}, then: allow}")]);
    assert!(
        decide(&snapshot, &subject(), &select())
            .obligations
            .is_none()
    );
}

#[test]
fn masks_add_to_those_of_the_target() {
    let snapshot = masked(&[
        ("mail", "{match: {users: [app]}, then: {mask: [mail]}}"),
        (
            "more",
            "{match: {databases: [shop]}, then: {mask: [more, always]}}",
        ),
        ("there", "{match: {}, then: {mask: [there]}}"),
    ]);
    let method =
        |masks: &interceptor_core::mask::Masks, column| masks.column("public", "customers", column);
    let target = &snapshot.target("orders").unwrap();
    assert_eq!(method(&target.masks, "card"), Some(Method::Partial));
    assert_eq!(method(&target.masks, "mail"), None);
    assert!(target.masks_possible().has_patterns() && !target.masks.has_patterns());
    let with = |user: &str, database: &str| {
        let subject = Subject {
            user: user.into(),
            database: database.into(),
            ..subject()
        };
        decide(&snapshot, &subject, &select())
            .obligations
            .unwrap()
            .masks
            .clone()
    };
    // A mask of another target is none here.
    assert!(with("etl", "x").is_none());
    for (user, database, card, mail) in [
        ("app", "x", Some(Method::Partial), Some(Method::Hash)),
        ("etl", "shop", Some(Method::Full), None),
        ("app", "shop", Some(Method::Full), Some(Method::Hash)),
    ] {
        let masks = with(user, database).unwrap();
        assert_eq!(method(&masks, "card"), card, "{user} {database}");
        assert_eq!(method(&masks, "mail"), mail, "{user} {database}");
        assert_eq!(masks.has_patterns(), mail.is_some(), "{user} {database}");
        let again = with(user, database).unwrap();
        assert!(Arc::ptr_eq(&masks, &again), "a combination is made once");
    }
    assert!(
        View::new(snapshot, "orders", subject())
            .unwrap()
            .may_mask_columns()
    );
    let none = rules(&[]);
    assert!(
        !View::new(none, "orders", subject())
            .unwrap()
            .may_mask_columns()
    );
}

#[test]
fn lists_of_masks_have_a_limit() {
    let mut text = String::from(MASKS);
    for number in 0..=policy::MASK_LISTS_MAX {
        text += &format!(
            "---\n{{kind: Mask, name: m{number}, spec: {{targets: [orders], patterns: [email], when: named}}}}\n---\n{{kind: Rule, name: r{number}, spec: {{match: {{}}, then: {{mask: [m{number}]}}}}}}\n"
        );
        let sources = [Source {
            file: "p.yaml",
            text: &text,
        }];
        let loaded = policy::load(&sources, &HashKey::new([0; 32]));
        match number < policy::MASK_LISTS_MAX {
            true => assert!(loaded.is_ok(), "{number}"),
            false => {
                let errors = loaded.unwrap_err().to_string();
                assert!(
                    errors.contains("different lists of masks on the target `orders`"),
                    "{errors}"
                );
            }
        }
    }
}

#[test]
fn read_only_denies_whatever_may_write() {
    let rules = [
        ("quiet", "{priority: -5, match: {}, then: {readOnly: true}}"),
        ("fine", "{match: {incomplete: false}, then: allow}"),
        (
            "end",
            "{priority: 1, match: {statements: [TRUNCATE]}, then: terminate}",
        ),
    ];
    let rules =
        rules.map(|(name, spec)| format!("---\n{{kind: Rule, name: {name}, spec: {spec}}}\n"));
    let snapshot = load(&format!("{TARGET}  incomplete: allow\n{}", rules.concat()));
    let incomplete = Facts {
        incomplete: Some("a view"),
        ..select()
    };
    for (facts, outcome, rule) in [
        (select(), "allow", "fine"),
        (facts(&["BEGIN", "SHOW"], &[], &[]), "allow", "fine"),
        (
            facts(&["SELECT", "INSERT"], &[], &["orders"]),
            "deny",
            "quiet",
        ),
        (
            facts(&["EXPLAIN ANALYZE", "DELETE"], &[], &["orders"]),
            "deny",
            "quiet",
        ),
        (facts(&["VACUUM"], &[], &[]), "deny", "quiet"),
        (facts(&["CALL"], &[], &[]), "deny", "quiet"),
        (facts(&["COPY TO"], &["orders"], &[]), "allow", "fine"),
        (facts(&["COPY FROM"], &[], &["orders"]), "deny", "quiet"),
        (
            facts(&["CREATE TABLE AS"], &["orders"], &["copy"]),
            "deny",
            "quiet",
        ),
        (incomplete, "deny", "quiet"),
        // Something stricter came.
        (facts(&["TRUNCATE"], &[], &["orders"]), "terminate", "end"),
    ] {
        let decision = decide(&snapshot, &subject(), &facts);
        let found = (
            decision.outcome.word(),
            decision.rule.map(|rule| rule.name.clone()),
        );
        assert_eq!(found, (outcome, Some(rule.into())), "{facts:?}");
    }
    let denied = decide(&snapshot, &subject(), &facts(&["VACUUM"], &[], &[]));
    assert_eq!(&*denied.reason, "the rule quiet lets nothing be written");
}

#[test]
fn what_restricts_does_so_in_doubt_even_beside_an_allowance() {
    // The process is not known: the allowance does not speak, and what it asks for does.
    let spec = "{match: {process: {uids: [7]}}, then: {allow: fine, limit: {rows: 5}}}";
    let snapshot = rules(&[("r", spec)]);
    let decision = decide(&snapshot, &subject(), &select());
    assert!(decision.rule.is_none());
    assert_eq!(
        decision
            .obligations
            .unwrap()
            .limits
            .rows
            .as_ref()
            .unwrap()
            .at,
        5
    );
}

#[test]
fn a_grant_lifts_what_is_asked_for_and_a_bypass_does_not() {
    let until = "until: 2099-01-01T00:00:00Z, reason: why";
    let groups = "---\n{kind: ApproverGroup, name: dba, spec: {uids: [1]}}\n";
    let rule = "---\n{kind: Rule, name: r, spec: {match: {}, then: {hold: please, readOnly: true, notify: [dba]}}}\n";
    let write = facts(&["INSERT"], &[], &["orders"]);
    let with = |lifter: &str| {
        let snapshot = load(&format!("{TARGET}{groups}{rule}---\n{lifter}\n"));
        decide(&snapshot, &subject(), &write)
    };
    let network = "{clientNetworks: [10.9.0.0/16]}";
    let bypassed = with(&format!(
        "{{kind: Bypass, name: b, spec: {{match: {network}}}}}"
    ));
    assert_eq!(bypassed.outcome.word(), "deny", "it is read-only still");
    let bound = bypassed.obligations.unwrap();
    assert_eq!(bound.notify.len(), 1);
    assert_eq!(
        (bound.notify[0].0.name.as_str(), &*bound.notify[0].1[0]),
        ("r", "dba")
    );

    let granted = with(&format!(
        "{{kind: Grant, name: g, spec: {{match: {network}, lifts: [r], notify: [dba], {until}}}}}"
    ));
    assert_eq!(granted.outcome.word(), "allow");
    let bound = granted.obligations.unwrap();
    assert!(!bound.read_only && bound.rules.is_empty());
    assert_eq!(bound.notify[0].0.name, "g", "the grant's own");
}

#[test]
fn a_grant_that_lifts_no_outcome_is_on_record_as_well() {
    let snapshot = load(&format!(
        "{TARGET}---\n{{kind: ApproverGroup, name: dba, spec: {{uids: [1]}}}}\n\
         ---\n{{kind: Rule, name: r, spec: {{match: {{}}, then: {{readOnly: true}}}}}}\n\
         ---\n{{kind: Grant, name: g, spec: {{match: {{users: [app]}}, lifts: [r], notify: [dba], until: 2099-01-01T00:00:00Z, reason: why}}}}\n"
    ));
    let decision = decide(&snapshot, &subject(), &facts(&["INSERT"], &[], &["orders"]));
    assert_eq!(decision.outcome.word(), "allow");
    let lift = decision.lift.unwrap();
    assert_eq!((lift.by.name.as_str(), &*lift.rule), ("g", "r"));
    assert_eq!(decision.obligations.unwrap().notify[0].0.name, "g");
}

#[test]
fn a_session_knows_what_holds_for_all_of_it() {
    let session = |spec: &str, more: &str| {
        let snapshot = load(&format!(
            "{TARGET}---\n{{kind: Rule, name: r, spec: {spec}}}\n{more}"
        ));
        let view = View::new(snapshot, "orders", subject()).unwrap();
        (view.read_only_session().is_some(), view.needs_estimates())
    };
    let grant = "---\n{kind: Grant, name: g, spec: {match: {users: [x]}, lifts: [r], until: 2099-01-01T00:00:00Z, reason: why}}\n";
    for (spec, more, expected) in [
        ("{match: {}, then: {readOnly: true}}", "", (true, false)),
        (
            "{match: {users: [app]}, then: {readOnly: true}}",
            "",
            (true, false),
        ),
        (
            "{match: {users: [etl]}, then: {readOnly: true}}",
            "",
            (false, false),
        ),
        (
            "{match: {process: {uids: [1]}}, then: {readOnly: true}}",
            "",
            (true, false),
        ),
        (
            "{match: {reads: [orders]}, then: {readOnly: true}}",
            "",
            (false, false),
        ),
        (
            "{match: {times: [{zone: UTC}]}, then: {readOnly: true}}",
            "",
            (false, false),
        ),
        ("{match: {}, then: {readOnly: true}}", grant, (false, false)),
        (
            "{match: {estimatedRows: {over: 5}}, then: deny}",
            "",
            (false, true),
        ),
        (
            "{match: {when: 'statement.estimated_rows > 5'}, then: deny}",
            "",
            (false, true),
        ),
        (
            "{match: {}, then: {hold: {onTimeout: {automatic: 'statement.estimated_rows < 5'}}}}",
            "",
            (false, true),
        ),
        ("{match: {}, then: deny}", "", (false, false)),
    ] {
        assert_eq!(session(spec, more), expected, "{spec}");
    }
}
