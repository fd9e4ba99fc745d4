//! The words of the language, for tools that teach it.
//!
//! It owns the way to the tables that loading reads, and no table of its own: what is said here is what
//! a policy file may hold.

use alloc::vec::Vec;

use super::{
    Protocol, action_document, approver_document, detector_document, files, grant_document,
    identity_document, login_document, mask_document, match_document, obligation_document,
    rule_document, target_document, test_document, tls_document,
};
use crate::command::{KINDS, MASKED_USES};
use crate::mask::{Check, Method, Pattern};

/// Kinds of documents, with that of tests.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    files::kind_names()
}

/// Protocols of targets.
pub fn protocols() -> impl Iterator<Item = &'static str> {
    [Protocol::Postgres.name(), Protocol::Tcp.name()].into_iter()
}

/// Words for a client's encryption.
pub fn client_tls() -> impl Iterator<Item = &'static str> {
    tls_document::CLIENT_MODES.iter().map(|(name, _)| *name)
}

/// Words for encryption towards a server.
pub fn upstream_tls() -> impl Iterator<Item = &'static str> {
    tls_document::UPSTREAM_MODES.iter().map(|(name, _)| *name)
}

/// Kinds of statements.
pub const fn statement_kinds() -> &'static [&'static str] {
    KINDS
}

/// Kinds of statements, and the words that several of them begin with.
pub fn statements() -> Vec<&'static str> {
    let beginnings = KINDS.iter().flat_map(|kind| {
        let gaps = kind.match_indices(' ');
        gaps.filter_map(|(gap, _)| kind.get(..gap))
    });
    let mut words: Vec<&'static str> = KINDS.iter().copied().chain(beginnings).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// What masked columns are used for.
pub fn masked_uses() -> impl Iterator<Item = &'static str> {
    MASKED_USES.iter().map(|(name, _)| *name)
}

/// Methods of masks.
pub fn methods() -> impl Iterator<Item = &'static str> {
    Method::NAMES.iter().map(|(name, _)| *name)
}

/// Patterns of masks that need no Detector.
pub fn patterns() -> impl Iterator<Item = &'static str> {
    Pattern::NAMES.iter().map(|(name, _)| *name)
}

/// Checks of detectors.
pub fn checks() -> impl Iterator<Item = &'static str> {
    Check::NAMES.iter().map(|(name, _)| *name)
}

/// Every mapping of the language but the document itself, as errors name it, with its keys.
pub fn mappings() -> Vec<(&'static str, &'static [&'static str])> {
    [
        ("a Target's spec", &target_document::TARGET_KEYS[..]),
        ("`catalog`", &target_document::CATALOG_KEYS),
        ("`login`", &login_document::LOGIN_KEYS),
        ("`recover`", &login_document::RECOVER_KEYS),
        ("`gateway`", &login_document::GATEWAY_KEYS),
        (
            "an entry of `credentials`",
            &login_document::CREDENTIAL_KEYS,
        ),
        ("`tls`", &tls_document::TLS_KEYS),
        // What a target does takes the verbs as keys, and nothing else.
        ("an action", &TARGET_VERB_NAMES),
        ("a Rule's spec", &rule_document::RULE_KEYS),
        ("`match`", &match_document::MATCH_KEYS),
        ("`process`", &match_document::PROCESS_KEYS),
        ("`estimatedRows`", &match_document::ESTIMATED_ROWS_KEYS),
        ("an entry of `times`", &match_document::TIMES_KEYS),
        ("`then`", &rule_document::THEN_KEYS),
        ("`hold`", &action_document::HOLD_KEYS),
        ("`onTimeout`", &action_document::ON_TIMEOUT_KEYS),
        ("`escalate`", &action_document::ESCALATE_KEYS),
        ("`limit`", &obligation_document::LIMIT_KEYS),
        ("a Mask's spec", &mask_document::MASK_KEYS),
        ("`key`", &mask_document::KEY_KEYS),
        ("a Detector's spec", &detector_document::DETECTOR_KEYS),
        ("an Identity's spec", &identity_document::IDENTITY_KEYS),
        ("an entry of `is`", &identity_document::IS_KEYS),
        (
            "an ApproverGroup's spec",
            &approver_document::APPROVER_GROUP_KEYS,
        ),
        ("a Grant's spec", &grant_document::GRANT_KEYS),
        ("a Bypass's spec", &grant_document::BYPASS_KEYS),
        ("a Test's spec", &test_document::TEST_KEYS),
        ("`given`", &test_document::GIVEN_KEYS),
        ("a Test's `process`", &test_document::TEST_PROCESS_KEYS),
        ("`facts`", &test_document::FACTS_KEYS),
        ("`expect`", &test_document::EXPECT_KEYS),
        ("`limits`", &test_document::EXPECTED_LIMITS_KEYS),
    ]
    .into()
}

const TARGET_VERB_NAMES: [&str; 3] = ["allow", "hold", "deny"];
