//! The analysis of a text: an answer or an error, the same each time, and of known kinds.
#![no_main]

use interceptor_core::command::KINDS;
use interceptor_core::sql;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(analysis) = sql::analyze(text) else {
        return;
    };
    for kind in &analysis.facts.kinds {
        assert!(KINDS.contains(kind), "{kind}");
    }
    let again = sql::analyze(text).expect("the same text");
    assert_eq!(again.facts, analysis.facts);
});
