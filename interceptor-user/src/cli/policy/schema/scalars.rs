//! Texts and numbers of the language.
//!
//! It owns their patterns. A pattern here may be wider than what loading takes, never narrower: an
//! editor must not underline what is right.

use interceptor_core::policy::{NAME_CHARS_MAX, TEXT_CHARS_MAX, vocabulary};
use serde_json::{Map, Value, json};

/// Whatever YAML makes of a scalar, the language takes it as it is written.
fn any_scalar() -> Value {
    json!(["string", "number", "boolean"])
}

/// A text that no number or truth value looks like.
fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

pub(super) fn definitions() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| {
        all.insert(name.to_owned(), schema);
    };
    add(
        "name",
        json!({"type": any_scalar(), "pattern": "^[A-Za-z0-9._-]+$", "maxLength": NAME_CHARS_MAX}),
    );
    add(
        "text",
        json!({"type": any_scalar(), "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", "maxLength": TEXT_CHARS_MAX}),
    );
    add(
        "regex",
        json!({"description": "A regular expression, in the syntax of Rust's crate regex. It stands in single quotes, so that `\\` stays itself.", "type": any_scalar(), "minLength": 1, "maxLength": TEXT_CHARS_MAX}),
    );
    add(
        "expression",
        json!({"description": "A CEL expression that says true or false. In doubt it counts as a match for what restricts.", "type": any_scalar(), "minLength": 1, "maxLength": 2000}),
    );
    add(
        "uid",
        json!({"type": ["integer", "string"], "minimum": 0, "maximum": u32::MAX, "pattern": "^[0-9]+$"}),
    );
    add(
        "quorum",
        json!({"type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+$"}),
    );
    add(
        "count",
        json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$"}),
    );
    add("duration", text("^[0-9]+(s|m|h)$"));
    add("size", text("^[0-9]+(B|KiB|MiB|GiB)$"));
    add("rate", text("^[0-9]+/(s|m|h)$"));
    add("timestamp", text("^[0-9]{4}-[0-9]{2}-[0-9]{2}.+$"));
    add("timeOfDay", text("^[0-9]{2}:[0-9]{2}$"));
    let day = "(mon|tue|wed|thu|fri|sat|sun)";
    add("days", text(&format!("^{day}(-{day})?$")));
    add("endpoint", text("^(unix:.+|.+:[0-9]+(-[0-9]+)?)$"));
    add("network", text("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"));
    add("address", text("^[0-9A-Fa-f:.]+$"));
    add("path", text("^/"));
    add(
        "relation",
        json!({"type": any_scalar(), "pattern": "^[^. (]+(\\.[^. (]+)?$"}),
    );
    add("column", text("^[^. ]+\\.[^. ]+(\\.[^. ]+)?$"));
    add(
        "statement",
        json!({
            "description": "A statement kind, or a word that several begin with, in any case.",
            "anyOf": [
                {"enum": vocabulary::statements()},
                {"type": "string", "pattern": "^[A-Za-z ]*[a-z][A-Za-z ]*$"},
            ],
        }),
    );
    add(
        "maskedUse",
        json!({"enum": vocabulary::masked_uses().collect::<Vec<_>>()}),
    );
    add("kind", json!({"enum": vocabulary::statement_kinds()}));
    add(
        "pattern",
        json!({"description": "A built-in pattern, or the name of a Detector.", "anyOf": [{"enum": vocabulary::patterns().collect::<Vec<_>>()}, {"$ref": "#/$defs/name"}]}),
    );
    add(
        "word",
        json!({"description": "Letters alone.", "type": "string", "pattern": "^\\p{L}+$"}),
    );
    let mut methods: Vec<Value> = vocabulary::methods().map(Value::from).collect();
    // YAML reads the bare word as its own null, and the language as the method.
    methods.push(Value::Null);
    add("method", json!({"enum": methods}));
    all
}
