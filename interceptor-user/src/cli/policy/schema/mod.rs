//! `interceptor policy schema`: the language as JSON Schema, for editors.
//!
//! It owns how the language looks in JSON Schema, and its descriptions. Words that can stand
//! somewhere come from the tables that loading reads ([`policy::vocabulary`]); that no key is missing
//! and none too many is tested. A schema sees one document at a time: what documents have to do with
//! each other, and whether a text is a regular expression or CEL, `interceptor policy check` tells.

mod documents;
mod matching;
mod scalars;
mod testing;
mod then;

use std::io::Write;

use interceptor_core::policy::vocabulary;
use serde_json::{Map, Value, json};

use super::super::CliError;

/// Where the schema is published.
const ID: &str = "https://github.com/interceptor-gateway/interceptor/raw/main/policies/schema.json";

/// A mapping of the language: how errors name it, and its keys.
pub(super) struct Mapping {
    /// Its name among the schema's definitions.
    pub(super) name: &'static str,
    /// Its name in the loader's tables and errors.
    pub(super) within: &'static str,
    about: &'static str,
    required: &'static [&'static str],
    keys: Vec<(&'static str, Value)>,
    /// What else it must fulfil.
    also: Value,
}

impl Mapping {
    fn new(
        name: &'static str,
        within: &'static str,
        about: &'static str,
        required: &'static [&'static str],
        keys: Vec<(&'static str, Value)>,
    ) -> Self {
        Self {
            name,
            within,
            about,
            required,
            keys,
            also: json!({}),
        }
    }

    fn also(mut self, also: Value) -> Self {
        self.also = also;
        self
    }

    fn schema(&self) -> Value {
        let mut known = vocabulary::mappings().into_iter();
        let read = known.find(|(within, _)| *within == self.within);
        // The keys are those that loading reads; here they have their meaning. A test asks for all.
        let properties: Map<String, Value> = self
            .keys
            .iter()
            .filter(|(key, _)| read.is_some_and(|(_, keys)| keys.contains(key)))
            .map(|(key, schema)| ((*key).to_owned(), schema.clone()))
            .collect();
        let mut schema = json!({
            "description": self.about,
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if let Some(schema) = schema.as_object_mut() {
            if !self.required.is_empty() {
                schema.insert("required".to_owned(), json!(self.required));
            }
            schema.extend(self.also.as_object().cloned().unwrap_or_default());
        }
        schema
    }
}

pub(super) fn run(out: &mut impl Write) -> Result<(), CliError> {
    Ok(out.write_all(text().as_bytes())?)
}

/// The schema as it is published.
pub(super) fn text() -> String {
    format!("{:#}\n", schema())
}

/// The schema of one document.
pub(super) fn schema() -> Value {
    let kinds: Vec<&str> = vocabulary::kinds().collect();
    let cases = kinds.iter().map(|kind| {
        json!({
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"properties": {"spec": reference(kind)}},
        })
    });
    let mut definitions: Map<String, Value> = scalars::definitions();
    for (name, form) in then::forms() {
        definitions.insert(name.to_owned(), form);
    }
    for mapping in mappings() {
        definitions.insert(mapping.name.to_owned(), mapping.schema());
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "A policy document of interceptor",
        "description": "One document of a policy file. `interceptor policy check` sees more: references between documents, expressions, overlaps.",
        "type": "object",
        "required": ["kind", "name", "spec"],
        "properties": {
            "kind": {"description": "What the document is about.", "enum": kinds},
            "name": describe("Unique among documents of its kind; it appears in messages and on record.", "name"),
            "spec": {"description": "What it says."},
        },
        "additionalProperties": false,
        "allOf": cases.collect::<Vec<_>>(),
        "$defs": definitions,
    })
}

/// Every mapping of the language but the document itself.
pub(super) fn mappings() -> Vec<Mapping> {
    let mut all = documents::mappings();
    all.extend(matching::mappings());
    all.extend(then::mappings());
    all.extend(testing::mappings());
    all
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// A key's meaning beside a definition's form.
fn describe(about: &str, name: &str) -> Value {
    json!({"description": about, "$ref": format!("#/$defs/{name}")})
}

/// A list of what a definition says.
fn list(about: &str, name: &str) -> Value {
    json!({
        "description": about,
        "type": "array",
        "minItems": 1,
        "maxItems": interceptor_core::policy::LIST_ENTRIES_MAX,
        "items": reference(name),
    })
}

fn truth(about: &str) -> Value {
    json!({"description": about, "type": "boolean"})
}

#[cfg(test)]
mod tests;
