//! A process's command line without its secrets, as one line of bounded length.
//!
//! It is what the process shows: a process can write anything there. Rather too much is hidden than too
//! little: whatever follows an option with a secret's name, and whatever looks like a token.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Bytes of a command line on record.
pub(super) const COMMAND_LINE_BYTES_MAX: usize = 4096;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Options whose next argument, or the rest of whose own, is a secret in some program: `mysql -p…`,
/// `sshpass -p`, `sqlcmd -P`, `ldapsearch -w`. In others it is a port; that is hidden too.
const SHORT_OPTIONS: [&str; 4] = ["-p", "-P", "-w", "-W"];

/// Programs whose option `-a` is a password; in others it is nothing of the kind.
const REDIS_CLIENTS: [&str; 3] = ["redis-cli", "valkey-cli", "keydb-cli"];

/// Options whose argument is a name and, after a colon or percent sign, a secret: `curl -u`,
/// `smbclient -U`.
const LOGIN_OPTIONS: [&str; 5] = ["-u", "-U", "--user", "--proxy-user", "--login"];

/// A name that means a secret, as part of an option, a variable, a header or a JSON key.
const SECRET: &str = "(?:pass|pwd|secret|token|key|credential|auth|cookie|signature)";

/// What stays of a finding.
#[derive(Clone, Copy)]
enum Kept {
    /// The first group, before the secret.
    Prefix,
    /// Scheme and user of a URL.
    Login,
    Nothing,
}

struct Patterns {
    /// An option that wants a secret as its next argument.
    option: Regex,
    /// What is replaced within an argument, in this order.
    within: [(Regex, Kept); 5],
}

/// `None` only if a pattern is wrong, which a test would show; then no command line is told.
static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| patterns().ok());

fn patterns() -> Result<Patterns, regex::Error> {
    let header = r"(?is)(\b(?:proxy-)?authorization\b\W{0,3})\S.*";
    let scheme = r"(?i)(\b(?:bearer|basic|digest)\s+)\S+";
    let url = r#"([\w+.-]+://)(?:([^\s:/?#@'"]*):)?[^\s'"]*@"#;
    // PGPASSWORD=secret, --token=secret, "password": "secret", ?key=secret
    let assignment =
        format!(r#"(?is)([\w.-]*{SECRET}[\w.-]*["']?\s*[=:]\s*)("[^"]*"?|'[^']*'?|[^\s&]+)"#);
    // What well-known services give out, and what is long and random.
    let token = r"(?x) \b (?: eyJ[\w-]{8,}(?:\.[\w-]+)* | (?:AKIA|ASIA)[A-Z0-9]{12,}
        | (?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|sk_|rk_|npm_|hvs\.)[\w-]{12,}
        | [A-Za-z0-9]{32,} )";
    Ok(Patterns {
        option: Regex::new(&format!(r"(?i)^--?[\w.-]*{SECRET}[\w.-]*$"))?,
        within: [
            (Regex::new(header)?, Kept::Prefix),
            (Regex::new(scheme)?, Kept::Prefix),
            (Regex::new(url)?, Kept::Login),
            (Regex::new(&assignment)?, Kept::Prefix),
            (Regex::new(token)?, Kept::Nothing),
        ],
    })
}

/// The command line from `/proc/<pid>/cmdline`, whose arguments end in zero bytes.
pub(super) fn readable(raw: &[u8]) -> Option<String> {
    let patterns = PATTERNS.as_ref()?;
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    let mut arguments = raw
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned());
    let mut previous = arguments.next().filter(|program| !program.is_empty())?;
    let is_redis_client = REDIS_CLIENTS
        .iter()
        .any(|program| previous.rsplit('/').next() == Some(program));
    let mut line = escaped(&replaced(patterns, &previous));
    for argument in arguments {
        line.push(' ');
        let is_secret = patterns.option.is_match(&previous)
            || SHORT_OPTIONS.contains(&previous.as_str())
            || (is_redis_client && previous == "-a");
        if is_secret {
            line.push_str(HIDDEN);
        } else {
            line.push_str(&escaped(&without_secrets(patterns, &previous, &argument)));
        }
        previous = argument;
    }
    Some(cut(line))
}

fn without_secrets(patterns: &Patterns, previous: &str, argument: &str) -> String {
    if LOGIN_OPTIONS.contains(&previous)
        && let Some((name, _)) = argument.split_once([':', '%'])
    {
        return format!("{name}:{HIDDEN}");
    }
    let attached = SHORT_OPTIONS
        .iter()
        .find(|option| argument.starts_with(**option) && argument.len() > option.len());
    if let Some(option) = attached {
        return format!("{option}{HIDDEN}");
    }
    replaced(patterns, argument)
}

fn replaced(patterns: &Patterns, argument: &str) -> String {
    let mut text = argument.to_owned();
    for (pattern, kept) in &patterns.within {
        let replacement = |found: &Captures<'_>| {
            let group = |index| found.get(index).map_or("", |group| group.as_str());
            match kept {
                Kept::Prefix => format!("{}{HIDDEN}", group(1)),
                Kept::Login if found.get(2).is_some() => {
                    format!("{}{}:{HIDDEN}@", group(1), group(2))
                }
                Kept::Login => format!("{}{HIDDEN}@", group(1)),
                Kept::Nothing => HIDDEN.to_owned(),
            }
        };
        text = pattern.replace_all(&text, replacement).into_owned();
    }
    text
}

/// Control characters would move the cursor of whoever reads the line.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

fn cut(mut line: String) -> String {
    if line.len() > COMMAND_LINE_BYTES_MAX {
        let mut end = COMMAND_LINE_BYTES_MAX - '…'.len_utf8();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        readable((arguments.join("\0") + "\0").as_bytes()).unwrap()
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.HIDEMEHIDEMEHIDEME";
        for arguments in [
            &["mysql", "-uapp", "-pHIDEME"][..],
            &["sshpass", "-p", "HIDEME", "ssh", "host"],
            &["tool", "--password", "HIDEME"],
            &["tool", "--db-password=HIDEME"],
            &["tool", "--Token", "HIDEME"],
            &["psql", "host=db password='my HIDEME' user=app"],
            &["psql", "host=db password=HIDEME user=app"],
            &["psql", "postgres://app:HIDEME@db/orders"],
            &["psql", "postgres://app:HI@DE:ME@db/orders"],
            &["psql", "postgresql://db/orders?user=app&password=HIDEME"],
            &["git", "clone", "https://HIDEME@host/x"],
            &["sh", "-c", "PGPASSWORD=HIDEME psql -h db"],
            &["sh", "-c", "export AWS_SECRET_ACCESS_KEY=\"HIDEME\""],
            &["env", "API_KEY=HIDEME", "tool"],
            &["curl", "-u", "app:HIDEME", "https://host"],
            &["curl", "-H", "Authorization: Basic U0VDUkVU HIDEME"],
            &["curl", "-H", "X-Api-Key: HIDEME"],
            &["curl", "-d", "{\"password\": \"a HIDEME\"}"],
            &["curl", "-H", "bearer HIDEME"],
            &["redis-cli", "-a", "HIDEME", "get", "x"],
            &["/usr/bin/redis-cli", "-a", "HIDEME"],
            &["sqlcmd", "-PHIDEME"],
            &["tool", jwt],
            &["tool", "ghp_HIDEMEHIDEMEHIDEME1234567890"],
            &["tool", "HIDEME0123456789HIDEME0123456789"],
        ] {
            let shown = line(arguments);
            assert!(!shown.contains("HIDEME"), "{shown}");
            assert!(!shown.contains("ME@"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
    }

    #[test]
    fn the_rest_stays() {
        assert_eq!(
            line(&["psql", "-h", "db", "-c", "select 1"]),
            "psql -h db -c select 1"
        );
        assert_eq!(
            line(&["psql", "postgres://app:x@db:5432/orders"]),
            "psql postgres://app:***@db:5432/orders"
        );
        assert_eq!(
            line(&["sh", "-c", "PGPASSWORD=x psql -h db"]),
            "sh -c PGPASSWORD=*** psql -h db"
        );
        assert_eq!(
            line(&["/usr/bin/grep", "-a", "word", ""]),
            "/usr/bin/grep -a word "
        );
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(line(&["a\nb\u{1b}[2J"]), "a\\nb\\u{1b}[2J");
        assert_eq!(readable(b""), None);
        assert_eq!(readable(b"\0"), None);
        assert_eq!(readable(b"\xff\xfe\0").unwrap(), "\u{fffd}\u{fffd}");
        let long = line(&["ä b ".repeat(COMMAND_LINE_BYTES_MAX).as_str()]);
        assert!(long.len() <= COMMAND_LINE_BYTES_MAX && long.ends_with('…'));
    }
}
