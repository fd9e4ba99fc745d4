use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn file(directory: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn password_in(path: &Path) -> Result<String, CredentialError> {
    let bytes = of_file(path)?;
    let bytes = checked(path.display().to_string(), bytes)?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn passwords_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let long = "x".repeat(PASSWORD_BYTES_MAX);
    for (text, expected) in [
        ("secret", Some("secret")),
        ("secret\n", Some("secret")),
        ("secret\r\n", Some("secret")),
        (" with spaces ", Some(" with spaces ")),
        ("two\nlines\n", None),
        ("", None),
        ("\n", None),
        ("ze\0ro", None),
        (long.as_str(), Some(long.as_str())),
        (&format!("{long}\n"), Some(long.as_str())),
        (&format!("{long}x"), None),
    ] {
        let path = file(directory.path(), "password", text.as_bytes(), 0o600);
        assert_eq!(password_in(&path).ok().as_deref(), expected);
    }
}

#[test]
fn files_that_others_can_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, refused) in [(0o400, false), (0o640, false), (0o644, true), (0o660, true)] {
        let path = file(directory.path(), "password", b"secret", mode);
        let read = password_in(&path);
        let exposed = matches!(read, Err(CredentialError::Exposed { .. }));
        assert_eq!(exposed, refused, "{mode:o}");
        assert_eq!(read.is_ok(), !refused, "{mode:o}");
    }
    assert!(matches!(
        password_in(directory.path()),
        Err(CredentialError::File { .. })
    ));
    assert!(password_in(&directory.path().join("absent")).is_err());
}

const VERIFIER: &str = "SCRAM-SHA-256$4096:rFgDR7xZNFpPn1B6/2k6Kw==$abnM0AYNzIjq4c6dq/3LQWNAVXDQQZhKi4OVrnv8YQw=:NWi8hK1bFDfgnMViepkM6bn4k3hFzgjLs2a61bpTC1A=";

#[test]
fn verifiers_of_files() {
    use interceptor_core::session::postgres::login::Verifier;
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "# users\n\nold md5aabb\nalice {VERIFIER}\n\"bob smith\" \"{VERIFIER}\"\ntwice {VERIFIER}\ntwice {VERIFIER}\nmore {VERIFIER} more\n"
    );
    let path = file(directory.path(), "verifiers", text.as_bytes(), 0o600);
    let path = path.to_str().unwrap();
    let find = |user| verifiers::find(path, user, &[1; 32]);
    let known = Verifier::parse(VERIFIER).unwrap();
    for user in ["alice", "bob smith"] {
        assert!(find(user).is_ok_and(|found| found == known), "{user}");
    }
    let stranger = find("eve").unwrap_or_else(|error| panic!("{error}"));
    assert!(stranger == Verifier::mock(&[1; 32], "eve", Some(&known)));
    for (user, line) in [("old", 3), ("twice", 7), ("more", 8)] {
        let error = find(user).err().unwrap().to_string();
        assert!(error.contains(&format!(":{line}: ")), "{error}");
        assert!(!error.contains("SCRAM-SHA-256$"), "{error}");
    }
}
