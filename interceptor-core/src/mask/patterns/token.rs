//! Keys and tokens of services, by what their issuers begin them with, and JSON Web Tokens.
//!
//! It owns prefixes and lengths. A body of few different characters is a placeholder.

use core::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memmem;

use super::bytes::{self, ends_word};
use super::{Pattern, context};

/// What a token is made of behind its prefix.
#[derive(Clone, Copy)]
enum Body {
    /// Capitals and digits.
    Capitals,
    Hex,
    Alphanumeric,
    /// Letters, digits, `_`.
    Word,
    /// Letters, digits, `_`, `-`.
    Url,
    /// The same and dots.
    Dotted,
    /// The same as alphanumeric and slashes.
    Path,
}

impl Body {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Capitals => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Path => byte.is_ascii_alphanumeric() || byte == b'/',
        }
    }
}

struct Issued {
    prefix: &'static [u8],
    pattern: Pattern,
    body: Body,
    /// How long the body is.
    least: usize,
    most: usize,
}

const fn issued(
    prefix: &'static [u8],
    pattern: Pattern,
    body: Body,
    least: usize,
    most: usize,
) -> Issued {
    Issued {
        prefix,
        pattern,
        body,
        least,
        most,
    }
}

/// A token without a longest form is told by so much of it.
const MANY: usize = 512;
/// Different characters in a body, at least.
const VARIETY_MIN: u32 = 6;

/// What is issued, the longer prefix first.
#[rustfmt::skip]
const ISSUED: &[Issued] = &[
    issued(b"AKIA", Pattern::AwsKey, Body::Capitals, 16, 16),
    issued(b"ASIA", Pattern::AwsKey, Body::Capitals, 16, 16),
    issued(b"ABIA", Pattern::AwsKey, Body::Capitals, 16, 16),
    issued(b"ACCA", Pattern::AwsKey, Body::Capitals, 16, 16),
    issued(b"AIza", Pattern::GcpKey, Body::Url, 35, 35),
    issued(b"GOCSPX-", Pattern::GcpKey, Body::Url, 28, 28),
    issued(b"ya29.", Pattern::GcpKey, Body::Dotted, 20, MANY),
    issued(b"1//0", Pattern::GcpKey, Body::Url, 40, MANY),
    issued(b"xoxb-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxp-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxa-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxr-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxs-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxo-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxe-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxe.", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxc-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xoxd-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"xapp-", Pattern::SlackToken, Body::Url, 20, MANY),
    issued(b"hooks.slack.com/services/", Pattern::SlackToken, Body::Path, 40, MANY),
    issued(b"hooks.slack.com/workflows/", Pattern::SlackToken, Body::Path, 40, MANY),
    issued(b"github_pat_", Pattern::GithubToken, Body::Word, 40, 255),
    issued(b"ghp_", Pattern::GithubToken, Body::Alphanumeric, 36, 255),
    issued(b"gho_", Pattern::GithubToken, Body::Alphanumeric, 36, 255),
    issued(b"ghu_", Pattern::GithubToken, Body::Alphanumeric, 36, 255),
    issued(b"ghs_", Pattern::GithubToken, Body::Alphanumeric, 36, 255),
    issued(b"ghr_", Pattern::GithubToken, Body::Alphanumeric, 36, 255),
    issued(b"glpat-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"gldt-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glrt-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glptt-", Pattern::GitlabToken, Body::Dotted, 40, MANY),
    issued(b"glcbt-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glft-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glsoat-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glimt-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"glagent-", Pattern::GitlabToken, Body::Dotted, 20, MANY),
    issued(b"sk_live_", Pattern::StripeKey, Body::Alphanumeric, 16, 255),
    issued(b"sk_test_", Pattern::StripeKey, Body::Alphanumeric, 16, 255),
    issued(b"rk_live_", Pattern::StripeKey, Body::Alphanumeric, 16, 255),
    issued(b"rk_test_", Pattern::StripeKey, Body::Alphanumeric, 16, 255),
    issued(b"whsec_", Pattern::StripeKey, Body::Alphanumeric, 24, 255),
    issued(b"SG.", Pattern::ApiToken, Body::Dotted, 66, 66),
    issued(b"npm_", Pattern::ApiToken, Body::Alphanumeric, 36, 36),
    issued(b"pypi-", Pattern::ApiToken, Body::Url, 50, MANY),
    issued(b"hf_", Pattern::ApiToken, Body::Alphanumeric, 30, 64),
    issued(b"sk-ant-", Pattern::ApiToken, Body::Url, 32, MANY),
    issued(b"sk-proj-", Pattern::ApiToken, Body::Url, 40, MANY),
    issued(b"sk-svcacct-", Pattern::ApiToken, Body::Url, 40, MANY),
    issued(b"sk-", Pattern::ApiToken, Body::Alphanumeric, 48, 48),
    issued(b"dop_v1_", Pattern::ApiToken, Body::Hex, 64, 64),
    issued(b"shpat_", Pattern::ApiToken, Body::Hex, 32, 32),
    issued(b"shpca_", Pattern::ApiToken, Body::Hex, 32, 32),
    issued(b"shppa_", Pattern::ApiToken, Body::Hex, 32, 32),
    issued(b"shpss_", Pattern::ApiToken, Body::Hex, 32, 32),
    issued(b"dckr_pat_", Pattern::ApiToken, Body::Url, 27, 64),
    issued(b"hvs.", Pattern::ApiToken, Body::Url, 24, MANY),
    issued(b"glsa_", Pattern::ApiToken, Body::Word, 40, 64),
    issued(b"lin_api_", Pattern::ApiToken, Body::Alphanumeric, 40, 64),
    issued(b"rubygems_", Pattern::ApiToken, Body::Hex, 48, 48),
    issued(b"xkeysib-", Pattern::ApiToken, Body::Url, 64, 128),
    issued(b"NRAK-", Pattern::ApiToken, Body::Capitals, 27, 27),
    issued(b"SK", Pattern::ApiToken, Body::Hex, 32, 32),
    issued(b"AGE-SECRET-KEY-1", Pattern::ApiToken, Body::Capitals, 58, 58),
];

/// Whether a token may begin with a byte.
static BEGINS: [bool; 256] = begins();

const fn begins() -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < ISSUED.len() {
        #[expect(
            clippy::indexing_slicing,
            reason = "computed when compiling, where an index out of bounds is an error"
        )]
        if let [first, ..] = ISSUED[index].prefix {
            table[*first as usize] = true;
        }
        index += 1;
    }
    table
}

/// Whether a token may begin with this byte.
pub(super) fn may_begin(byte: u8) -> bool {
    BEGINS.get(usize::from(byte)).copied().unwrap_or(false)
}

/// A token that begins here.
pub(super) fn at(text: &[u8], start: usize) -> Option<(Pattern, Range<usize>)> {
    let rest = bytes::from(text, start);
    let first = rest.first();
    ISSUED.iter().find_map(|issued| {
        if issued.prefix.first() != first || !rest.starts_with(issued.prefix) {
            return None;
        }
        let body = start + issued.prefix.len();
        let belongs = |byte| issued.body.has(byte);
        let mut end = bytes::run_end_within(text, body, issued.most + 1, belongs);
        let is_open = issued.most == MANY;
        let length = end.checked_sub(body)?;
        let varied = bytes::is_varied(text.get(body..end)?, VARIETY_MIN);
        if length < issued.least || !varied {
            return None;
        }
        if is_open {
            // The rest is read only where the token counts, so that no byte is read twice.
            end = bytes::run_end(text, end, belongs);
        }
        // A full stop behind it is the sentence's.
        if matches!(issued.body, Body::Dotted) && bytes::last(text, end) == Some(b'.') {
            end -= 1;
        }
        let length = end.checked_sub(body)?;
        let fits = is_open || (length <= issued.most && ends_word(text, end));
        fits.then_some((issued.pattern, start..end))
    })
}

/// A longer header of a JSON Web Token is none.
const HEADER_BYTES_MAX: usize = 1024;

/// A signed or encrypted JSON Web Token that begins here.
pub(super) fn jwt(text: &[u8], start: usize) -> Option<Range<usize>> {
    let part_end = |from| bytes::run_end(text, from, |byte| Body::Url.has(byte));
    let header_end =
        bytes::run_end_within(text, start, HEADER_BYTES_MAX, |byte| Body::Url.has(byte));
    let header = text.get(start..header_end)?;
    if text.get(header_end) != Some(&b'.') {
        return None;
    }
    let decoded = URL_SAFE_NO_PAD.decode(header).ok()?;
    let names = |name: &[u8]| memmem::find(&decoded, name).is_some();
    if !decoded.starts_with(b"{") || !(names(b"\"alg\"") || names(b"\"enc\"")) {
        return None;
    }
    // Three parts if signed, of which the last may be empty; five if encrypted.
    let mut end = header_end;
    for part in 1..5 {
        if text.get(end) != Some(&b'.') {
            break;
        }
        let next = part_end(end + 1);
        if next == end + 1 && part == 1 {
            return None;
        }
        // A full stop behind the whole is the sentence's.
        if next == end + 1 && part > 2 {
            break;
        }
        end = next;
    }
    let parts = text
        .get(header_end..end)?
        .iter()
        .filter(|byte| **byte == b'.')
        .count();
    (parts >= 2).then_some(start..end)
}

const SECRET_CHARS: usize = 40;
const SECRET_WORDS: &[&str] = &["aws", "secret", "secretaccesskey"];

/// The secret half of an AWS key: 40 characters beside a word that says so.
pub(super) fn aws_secret(text: &[u8], run: &Range<usize>) -> Option<Range<usize>> {
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+');
    // The run's separators are wider than the secret's alphabet: `key=…` is one run.
    let mut start = run.start;
    while start < run.end {
        let end = bytes::run_end(text, start, belongs);
        let value = text.get(start..end).unwrap_or_default();
        let has = |of: fn(&u8) -> bool| value.iter().any(of);
        if value.len() == SECRET_CHARS
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_digit)
            && text.get(end) != Some(&b'=')
            && context::is_near(text, &(start..end), SECRET_WORDS)
        {
            return Some(start..end);
        }
        start = end + 1;
    }
    None
}
