//! Files of verifiers: what PostgreSQL keeps of its users' passwords, a line each.
//!
//! ```text
//! # as `SELECT rolname || ' ' || rolpassword FROM pg_authid` prints it
//! alice SCRAM-SHA-256$4096:…$…:…
//! "bob smith" "SCRAM-SHA-256$4096:…$…:…"
//! ```

use std::path::Path;

use interceptor_core::session::postgres::login::Verifier;

use super::{CredentialError, private};

/// Bytes of a file.
const FILE_BYTES_MAX: usize = 8 << 20;

/// The verifier of a user. Of one that the file does not have, one that no password fits.
pub(super) fn find(path: &str, user: &str, secret: &[u8; 32]) -> Result<Verifier, CredentialError> {
    let bytes = private::read(Path::new(path), FILE_BYTES_MAX + 1)?;
    let problem = |line, problem| CredentialError::Verifiers {
        path: path.to_owned(),
        line,
        problem,
    };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(problem(1, "the file is larger than 8 MiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| problem(1, "it is not UTF-8"))?;
    let (mut found, mut first) = (None, None);
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (name, rest) = word(line).ok_or_else(|| problem(number, "there is no user"))?;
        let is_asked_for = name == user;
        if is_asked_for && found.is_some() {
            return Err(problem(number, "the user has a verifier already"));
        }
        // The others' are looked at only for one to imitate.
        if !is_asked_for && first.is_some() {
            continue;
        }
        let kept = word(rest.trim_start()).filter(|(_, rest)| rest.trim().is_empty());
        let verifier = kept.and_then(|(verifier, _)| Verifier::parse(&verifier));
        if is_asked_for && verifier.is_none() {
            let what = "this is no verifier of SCRAM-SHA-256 with 4,096 to 1,000,000 iterations";
            return Err(problem(number, what));
        }
        if is_asked_for {
            found = verifier.clone();
        }
        first = first.or(verifier);
    }
    Ok(found.unwrap_or_else(|| Verifier::mock(secret, user, first.as_ref())))
}

/// The first word of a line, in quotes if it begins with one (`""` is a quote in it), and the rest.
fn word(line: &str) -> Option<(String, &str)> {
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at_checked(end)?;
        return (!word.is_empty()).then(|| (word.to_owned(), rest));
    };
    let mut word = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('"')?;
        word.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                word.push('"');
                rest = more;
            }
            None => return Some((word, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_in_quotes() {
        for (line, expected) in [
            ("alice SCRAM", Some(("alice", " SCRAM"))),
            ("alice", Some(("alice", ""))),
            (r#""bob smith" "x""#, Some(("bob smith", r#" "x""#))),
            (r#""a""b""#, Some((r#"a"b"#, ""))),
            (r#""open"#, None),
            ("", None),
        ] {
            let found = word(line);
            let found = found.as_ref().map(|(word, rest)| (word.as_str(), *rest));
            assert_eq!(found, expected, "{line}");
        }
    }
}
