//! Messages of both sides, written by hand.

/// A message with its type byte.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn strings(texts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// A first packet: no type byte.
pub(crate) fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn ssl_request() -> Vec<u8> {
    packet(80_877_103, &[])
}

pub(crate) fn startup() -> Vec<u8> {
    startup_with(&["application_name", "test"])
}

/// A startup packet with further parameters: name, value, name, value.
pub(crate) fn startup_with(parameters: &[&str]) -> Vec<u8> {
    startup_of(0, parameters)
}

/// The same, of a minor version of protocol 3.
pub(crate) fn startup_of(minor: u16, parameters: &[&str]) -> Vec<u8> {
    let mut body = strings(&["user", "app", "database", "shop"]);
    body.extend(strings(parameters));
    body.push(0);
    packet(3 << 16 | u32::from(minor), &body)
}

pub(crate) fn password(data: &[u8]) -> Vec<u8> {
    message(b'p', data)
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &strings(&[sql]))
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = strings(&[name, sql]);
    body.extend_from_slice(&[0, 0]);
    message(b'P', &body)
}

pub(crate) fn bind(portal: &str, statement: &str) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    message(b'B', &body)
}

/// Bind with one text parameter and binary results.
pub(crate) fn bind_one(portal: &str, statement: &str, value: &str) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend_from_slice(&[0, 0, 0, 1]);
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(value.as_bytes());
    body.extend_from_slice(&[0, 1, 0, 1]);
    message(b'B', &body)
}

pub(crate) fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[b"P", &strings(&[name])[..]].concat())
}

pub(crate) fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[b"S", &strings(&[name])[..]].concat())
}

pub(crate) fn close_statement(name: &str) -> Vec<u8> {
    message(b'C', &[b"S", &strings(&[name])[..]].concat())
}

pub(crate) fn execute(portal: &str) -> Vec<u8> {
    execute_some(portal, 0)
}

pub(crate) fn execute_some(portal: &str, rows: u32) -> Vec<u8> {
    message(
        b'E',
        &[&strings(&[portal])[..], &rows.to_be_bytes()].concat(),
    )
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub(crate) fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// FunctionCall without arguments.
pub(crate) fn function_call(oid: u32) -> Vec<u8> {
    message(
        b'F',
        &[&oid.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat(),
    )
}

// The server's.

pub(crate) fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], data].concat())
}

pub(crate) fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &strings(&[name, value]))
}

pub(crate) fn backend_key() -> Vec<u8> {
    message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4])
}

pub(crate) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// NegotiateProtocolVersion.
pub(crate) fn negotiate(minor: u16, extensions: &[&str]) -> Vec<u8> {
    let mut body = (3 << 16 | u32::from(minor)).to_be_bytes().to_vec();
    body.extend((extensions.len() as u32).to_be_bytes());
    body.extend(strings(extensions));
    message(b'v', &body)
}

pub(crate) fn parse_complete() -> Vec<u8> {
    message(b'1', &[])
}

pub(crate) fn bind_complete() -> Vec<u8> {
    message(b'2', &[])
}

pub(crate) fn close_complete() -> Vec<u8> {
    message(b'3', &[])
}

pub(crate) fn no_data() -> Vec<u8> {
    message(b'n', &[])
}

pub(crate) fn parameter_description() -> Vec<u8> {
    message(b't', &[0, 0])
}

pub(crate) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &strings(&[tag]))
}

pub(crate) fn suspended() -> Vec<u8> {
    message(b's', &[])
}

/// RowDescription of text columns (type `text`), each from (table, attribute).
pub(crate) fn rows(columns: &[(u32, i16)]) -> Vec<u8> {
    rows_of(columns, 25, false)
}

pub(crate) fn rows_of(columns: &[(u32, i16)], type_oid: u32, binary: bool) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for (table, attribute) in columns {
        body.extend_from_slice(b"a name\0");
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&attribute.to_be_bytes());
        body.extend_from_slice(&type_oid.to_be_bytes());
        body.extend_from_slice(&[0xff; 2]);
        body.extend_from_slice(&[0xff; 4]);
        body.extend_from_slice(&[0, u8::from(binary)]);
    }
    message(b'T', &body)
}

pub(crate) fn row(cells: &[Option<&str>]) -> Vec<u8> {
    let mut body = (cells.len() as u16).to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            Some(text) => {
                body.extend_from_slice(&(text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
            None => body.extend_from_slice(&[0xff; 4]),
        }
    }
    message(b'D', &body)
}

pub(crate) fn error(code: &str, text: &str) -> Vec<u8> {
    report(b'E', &[(b'S', "ERROR"), (b'C', code), (b'M', text)])
}

/// ErrorResponse or NoticeResponse with these fields.
pub(crate) fn report(kind: u8, fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (code, text) in fields {
        body.push(*code);
        body.extend_from_slice(&strings(&[text]));
    }
    body.push(0);
    message(kind, &body)
}

/// CopyInResponse or CopyOutResponse of text columns.
pub(crate) fn copy_response(kind: u8, columns: u16) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&columns.to_be_bytes());
    body.extend(std::iter::repeat_n(0, usize::from(columns) * 2));
    message(kind, &body)
}

pub(crate) fn notification(payload: &str) -> Vec<u8> {
    message(
        b'A',
        &[&[0, 0, 0, 7][..], &strings(&["channel", payload])].concat(),
    )
}

/// The messages in a stream: type and body.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut result = Vec::new();
    while bytes.len() >= 5 {
        let size = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize + 1;
        if bytes[0] == b'd' && bytes.len() < size {
            // COPY data passes as it comes.
            return result;
        }
        result.push((bytes[0], bytes[5..size].to_vec()));
        bytes = &bytes[size..];
    }
    assert!(bytes.is_empty(), "a message is not whole: {bytes:?}");
    result
}

/// The types of the messages in a stream, as one string.
pub(crate) fn kinds(bytes: &[u8]) -> String {
    messages(bytes)
        .iter()
        .map(|(kind, _)| char::from(*kind))
        .collect()
}

/// Whether `text` stands anywhere in `bytes`.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
