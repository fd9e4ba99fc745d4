//! Messages of PostgreSQL's extended protocol with all that they can carry, for scripts of
//! [`crate::wire::Wire`].

use crate::wire::message;

/// Parse of a named statement; `types` are object ids, 0 for one that the server shall find out.
pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = c_string(name);
    body.extend(c_string(sql));
    body.extend(count(types.len()));
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    message(b'P', &body)
}

/// Bind of a statement to a portal. Formats are 0 for text, 1 for binary: none, one for all, or one
/// each.
pub fn bind(
    portal: &str,
    statement: &str,
    parameter_formats: &[i16],
    parameters: &[Option<&[u8]>],
    result_formats: &[i16],
) -> Vec<u8> {
    let mut body = c_string(portal);
    body.extend(c_string(statement));
    body.extend(formats(parameter_formats));
    body.extend(values(parameters));
    body.extend(formats(result_formats));
    message(b'B', &body)
}

/// Describe of a statement (`S`) or a portal (`P`).
pub fn describe(object: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![object], c_string(name)].concat())
}

/// Close of a statement (`S`) or a portal (`P`).
pub fn close(object: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![object], c_string(name)].concat())
}

/// Execute of a portal, at most so many rows; 0 for all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = c_string(portal);
    body.extend(rows.to_be_bytes());
    message(b'E', &body)
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// CopyData.
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// CopyFail.
pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &c_string(why))
}

/// FunctionCall with all arguments and the result in binary.
pub fn function_call(oid: u32, arguments: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(formats(&[1]));
    body.extend(values(arguments));
    body.extend(1_i16.to_be_bytes());
    message(b'F', &body)
}

/// A StartupMessage of any minor version of protocol 3, with these parameters.
pub fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = (0x0003_0000 | u32::from(minor)).to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(c_string(name));
        body.extend(c_string(value));
    }
    body.push(0);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut packet = length.saturating_add(4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

fn formats(formats: &[i16]) -> Vec<u8> {
    let mut bytes = count(formats.len()).to_vec();
    for format in formats {
        bytes.extend(format.to_be_bytes());
    }
    bytes
}

fn values(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = count(values.len()).to_vec();
    for value in values {
        match value {
            Some(value) => {
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                bytes.extend(length.to_be_bytes());
                bytes.extend(*value);
            }
            None => bytes.extend((-1_i32).to_be_bytes()),
        }
    }
    bytes
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
