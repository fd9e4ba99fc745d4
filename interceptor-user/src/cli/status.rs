//! `interceptor status`: what the kernel does, and how the gateway is.

use std::io::{self, Write};
use std::path::Path;

use interceptor_core::audit::render::Escaped;
use serde_json::{Value, json};

use super::approvals::ask;
use super::arguments::StatusArgs;
use super::{CliError, output};
use crate::admin::{AdminRequest, ClientError};

/// The kernel's part does not need the gateway: it tells whether the guard is up while that is dead.
pub(super) fn show(
    arguments: &StatusArgs,
    kernel_status: fn(&Path) -> anyhow::Result<Value>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let gateway = match ask(&arguments.common, &AdminRequest::Status) {
        Ok(status) => json!({ "running": true, "status": status }),
        Err(CliError::Client(ClientError::NotRunning(_))) => json!({ "running": false }),
        Err(error) => return Err(error),
    };
    let kernel = kernel_status(&arguments.bpffs)?;
    let status = json!({ "kernel": kernel, "gateway": gateway });
    if arguments.common.json {
        return Ok(output::json(out, &status)?);
    }
    Ok(print_fields(&status, 0, out)?)
}

/// Prints an object as indented `name: value` lines.
fn print_fields(value: &Value, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let Value::Object(fields) = value else {
        return Ok(());
    };
    let indent = depth.saturating_mul(2);
    for (name, value) in fields {
        let name = Escaped(name);
        match value {
            Value::Object(_) => {
                writeln!(out, "{:indent$}{name}", "")?;
                print_fields(value, depth.saturating_add(1), out)?;
            }
            Value::Array(items) => {
                writeln!(out, "{:indent$}{name}", "")?;
                for item in items {
                    writeln!(out, "{:indent$}  - {}", "", Escaped(&plain(item)))?;
                }
            }
            _ => writeln!(out, "{:indent$}{name}: {}", "", Escaped(&plain(value)))?,
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name} {}", plain(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_fields_are_indented() {
        let status = json!({ "kernel": { "links": ["connect4", { "id": 7, "place": null }], "denied": 3 }, "up": true });
        let mut out = Vec::new();
        print_fields(&status, 0, &mut out).unwrap();
        let expected =
            "kernel\n  denied: 3\n  links\n    - connect4\n    - id 7, place none\nup: true\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
