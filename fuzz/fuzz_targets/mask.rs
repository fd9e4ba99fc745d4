//! Patterns in a text: nothing panics, and what is masked once holds nothing more to mask.
#![no_main]

use std::sync::LazyLock;

use interceptor_core::mask::{HashKey, Masks, TextMask};
use interceptor_core::policy::{self, Source};
use libfuzzer_sys::fuzz_target;

const POLICY: &str = "\
kind: Target
name: shop
spec: {protocol: postgres, endpoints: [\"10.0.0.5:5432\"], default: allow}
---
kind: Mask
name: patterns
spec: {patterns: [email, payment_card, us_ssn], with: full}
";

static MASKS: LazyLock<Masks> = LazyLock::new(|| {
    let sources = [Source {
        file: "policy.yaml",
        text: POLICY,
    }];
    let snapshot = policy::load(&sources, &HashKey::new([0; 32])).expect("a policy");
    let target = snapshot.target("shop").expect("a target");
    Masks::clone(&target.masks)
});

fuzz_target!(|text: &[u8]| {
    let mut once = Vec::new();
    match MASKS.mask_text(text, &mut once) {
        TextMask::Clean => {}
        TextMask::Rewritten { .. } | TextMask::Null { .. } => {
            let mut twice = Vec::new();
            let again = MASKS.mask_text(&once, &mut twice);
            assert!(matches!(again, TextMask::Clean), "{}", once.escape_ascii());
        }
    }
});
