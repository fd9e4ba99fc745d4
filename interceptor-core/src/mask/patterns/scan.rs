//! The one pass over a text.
//!
//! It owns which places are looked at, and that none is looked at twice for the same pattern. What stands
//! there is the other modules' to tell. Patterns do not know of each other: what one of them finds does not
//! depend on which others are looked for.

use core::ops::Range;

use super::address::{self, Colon};
use super::card::{self, Card};
use super::{Pattern, Patterns, bytes, email, iban, key, passport, phone, token, url, us, wallet};

/// What an eight-byte word has in each of its bytes.
const EACH: u64 = u64::MAX / 255;
/// The highest bit of each byte.
const HIGH: u64 = EACH * 0x80;
/// A run that holds a token has no separators for so long, and hence a whole word of the text.
const RUN_BYTES_MIN: usize = 16;
/// The shortest value of a pattern: `1.2.3.4`, `x@y.zz`, `::1` is shorter but for the run around it.
const TEXT_BYTES_MIN: usize = 3;

const BY_AT: Patterns = Patterns::NONE.with(Pattern::Email);
const BY_COLON: Patterns = Patterns::NONE
    .with(Pattern::UrlCredentials)
    .with(Pattern::IpAddress)
    .with(Pattern::MacAddress);
const BY_DIGIT: Patterns = Patterns::NONE
    .with(Pattern::Iban)
    .with(Pattern::PaymentCard)
    .with(Pattern::UsSsn)
    .with(Pattern::UsItin)
    .with(Pattern::UsAba)
    .with(Pattern::UsNpi)
    .with(Pattern::Passport)
    .with(Pattern::MacAddress)
    .with(Pattern::IpAddress)
    .with(Pattern::Phone);
const TOKENS: Patterns = Patterns::NONE
    .with(Pattern::AwsKey)
    .with(Pattern::GcpKey)
    .with(Pattern::SlackToken)
    .with(Pattern::GithubToken)
    .with(Pattern::GitlabToken)
    .with(Pattern::StripeKey)
    .with(Pattern::ApiToken);
const BY_RUN: Patterns = TOKENS
    .with(Pattern::PrivateKey)
    .with(Pattern::Jwt)
    .with(Pattern::CryptoWallet)
    .with(Pattern::MacAddress)
    .with(Pattern::Passport);

/// Finds what is wanted, of each pattern without overlap.
pub(in crate::mask) fn find(
    text: &[u8],
    wanted: Patterns,
    found: &mut dyn FnMut(Pattern, Range<usize>),
) {
    if text.len() < TEXT_BYTES_MIN {
        return;
    }
    let mut scan = Scan {
        text,
        wanted,
        found,
        from: [0; Pattern::NAMES.len()],
        colon_from: 0,
        number_from: 0,
        run_from: 0,
        keys_sought: false,
    };
    let all_or_none = |patterns| {
        if wanted.has_any(patterns) {
            u64::MAX
        } else {
            0
        }
    };
    let (digits, at, colon) = (
        all_or_none(BY_DIGIT),
        all_or_none(BY_AT),
        all_or_none(BY_COLON),
    );
    let runs = wanted.has_any(BY_RUN);
    // Whether the byte before the word is a digit, in the place that shifting gives it.
    let mut carried = 0;
    let mut look = |scan: &mut Scan<'_>, base: usize, word: u64| {
        let is_digit = below(word ^ (EACH * 0x30), 10);
        let starts = is_digit & !(is_digit << 8 | carried);
        carried = is_digit >> 56;
        let mut marks = (starts & digits) | (equal(word, b'@') & at) | (equal(word, b':') & colon);
        while marks != 0 {
            scan.mark(base + (marks.trailing_zeros() / 8) as usize);
            marks &= marks - 1;
        }
        if runs && base >= scan.run_from && is_unbroken(word) {
            scan.run(base);
        }
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut base = 0;
    for word in words {
        look(&mut scan, base, u64::from_le_bytes(*word));
        base += 8;
    }
    let mut last = [0; 8];
    if let Some(place) = last.get_mut(..rest.len()) {
        place.copy_from_slice(rest);
        look(&mut scan, base, u64::from_le_bytes(last));
    }
}

/// The high bit of each byte that is less than `limit`, of at most 0x80.
const fn below(word: u64, limit: u64) -> u64 {
    !(((word & !HIGH) + EACH * (0x80 - limit)) | word) & HIGH
}

const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (EACH * byte as u64), 1)
}

/// No byte of the word separates words as a blank, a quote or a comma does, and none is beyond ASCII.
const fn is_unbroken(word: u64) -> bool {
    // Bytes from `-` on; where a byte has the high bit itself, the sum of its rest still says nothing.
    word & HIGH == 0 && (word + EACH * (0x80 - b'-' as u64)) & HIGH == HIGH
}

/// `2024-01-15`
const DATE_CHARS: usize = 10;

/// A date begins here: no value does, nor in the middle of it, and texts of databases are full of them.
fn is_date(text: &[u8], start: usize) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    match text.get(start..start + DATE_CHARS) {
        Some([b'1', b'9', _, _, b'-', month @ .., b'-', d, e])
        | Some([b'2', b'0', _, _, b'-', month @ .., b'-', d, e]) => {
            digits(month)
                && digits(&[*d, *e])
                && !bytes::is_digit(text, start + DATE_CHARS)
                && !matches!(bytes::last(text, start), Some(b'-' | b'+'))
                && !matches!(text.get(start + DATE_CHARS), Some(b'-'))
        }
        _ => false,
    }
}

struct Scan<'a> {
    text: &'a [u8],
    wanted: Patterns,
    found: &'a mut dyn FnMut(Pattern, Range<usize>),
    /// For each pattern, where the last finding ended.
    from: [usize; Pattern::NAMES.len()],
    /// Up to where colons have been looked at.
    colon_from: usize,
    /// Up to where digits have been looked at.
    number_from: usize,
    /// Up to where runs have been looked at.
    run_from: usize,
    keys_sought: bool,
}

impl Scan<'_> {
    /// Whether a finding of the pattern may begin here.
    fn is_open(&self, pattern: Pattern, start: usize) -> bool {
        self.wanted.has(pattern)
            && self
                .from
                .get(pattern as usize)
                .is_some_and(|from| start >= *from)
    }

    /// Nothing of the pattern begins before `end` any more.
    fn close(&mut self, pattern: Pattern, end: usize) {
        if let Some(from) = self.from.get_mut(pattern as usize) {
            *from = end.max(*from);
        }
    }

    fn report(&mut self, pattern: Pattern, range: Range<usize>) {
        if self.is_open(pattern, range.start) {
            self.close(pattern, range.end);
            (self.found)(pattern, range);
        }
    }

    fn mark(&mut self, position: usize) {
        match self.text.get(position) {
            Some(b'@') => self.at(position),
            Some(b':') => self.colon(position),
            _ if position >= self.number_from => self.number(position),
            _ => {}
        }
    }

    fn at(&mut self, position: usize) {
        let from = self.from.get(Pattern::Email as usize).copied().unwrap_or(0);
        if position >= from
            && let Some(range) = email::around(self.text, from, position)
        {
            self.report(Pattern::Email, range);
        }
    }

    fn colon(&mut self, position: usize) {
        if self.wanted.has(Pattern::UrlCredentials)
            && let Some(range) = url::credentials(self.text, position)
        {
            self.report(Pattern::UrlCredentials, range);
        }
        let addresses = self.wanted.has(Pattern::IpAddress) || self.wanted.has(Pattern::MacAddress);
        if addresses && position >= self.colon_from {
            let (what, end) = address::around_colon(self.text, position, self.colon_from);
            self.colon_from = end;
            match what {
                Colon::Ip(range) => self.report(Pattern::IpAddress, range),
                Colon::Mac(range) => self.report(Pattern::MacAddress, range),
                Colon::Neither => {}
            }
        }
    }

    /// At the first of a run of digits.
    fn number(&mut self, start: usize) {
        let text = self.text;
        let run = start..bytes::digits_end(text, start);
        let next = text.get(run.end).copied().unwrap_or(0);
        let lead = bytes::last(text, start).unwrap_or(0);
        if run.len() == 4 && next == b'-' && is_date(text, start) {
            self.number_from = start + DATE_CHARS;
            return;
        }
        if lead.is_ascii_alphabetic()
            && self.is_open(Pattern::Iban, start)
            && let Some(range) = iban::at(text, start)
        {
            self.report(Pattern::Iban, range);
        }
        if next == b'.'
            && run.len() <= 3
            && self.is_open(Pattern::IpAddress, start)
            && let Some(range) = address::ipv4(text, start)
        {
            self.report(Pattern::IpAddress, range);
        }
        if run.len() <= 4
            && self.is_open(Pattern::MacAddress, start)
            && let Some(range) = address::mac_with_dots(text, start)
        {
            self.report(Pattern::MacAddress, range);
        }
        if self.is_open(Pattern::Passport, start)
            && let Some(range) = passport::around_digit(text, start)
        {
            self.report(Pattern::Passport, range);
        }
        self.digits(&run, next);
    }

    /// What is made of digits alone, in groups or not.
    fn digits(&mut self, run: &Range<usize>, next: u8) {
        let (text, start) = (self.text, run.start);
        if self.is_open(Pattern::PaymentCard, start) && !card::is_out_of_question(text, run) {
            match card::at(text, start) {
                Card::Found(range) => self.report(Pattern::PaymentCard, range),
                Card::Other(end) => self.close(Pattern::PaymentCard, end),
                Card::Nothing => {}
            }
        }
        if run.len() == 3
            && matches!(next, b' ' | b'-')
            && let Some((pattern, range)) = us::in_groups(text, start)
        {
            self.report(pattern, range);
        }
        if matches!(run.len(), 9 | 10) {
            let is_wanted = |pattern| self.wanted.has(pattern);
            let mut fits = Patterns::NONE;
            us::in_context(text, run, is_wanted, |pattern| fits = fits.with(pattern));
            for pattern in [
                Pattern::UsSsn,
                Pattern::UsItin,
                Pattern::UsAba,
                Pattern::UsNpi,
            ] {
                if fits.has(pattern) {
                    self.report(pattern, run.clone());
                }
            }
        }
        let continued = matches!(next, b' ' | b'-' | b'.' | b'/' | b')' | b'(');
        if (continued || run.len() >= 7)
            && self.is_open(Pattern::Phone, start)
            && let Some(range) = phone::at(text, start)
        {
            self.report(Pattern::Phone, range);
        }
    }

    /// The word at `base` has no separator: tokens may be in the run around it.
    fn run(&mut self, base: usize) {
        let text = self.text;
        let belongs = |byte: u8| (b'-'..0x80).contains(&byte);
        let start = bytes::run_start(text, base, base - self.run_from, belongs);
        let end = bytes::run_end(text, base, belongs);
        self.run_from = end;
        if end - start < RUN_BYTES_MIN {
            return;
        }
        if self.wanted.has(Pattern::PrivateKey) && !self.keys_sought {
            self.keys_sought = true;
            let found = &mut *self.found;
            key::find(text, |range| found(Pattern::PrivateKey, range));
        }
        if self.wanted.has(Pattern::AwsKey)
            && let Some(range) = token::aws_secret(text, &(start..end))
        {
            self.report(Pattern::AwsKey, range);
        }
        let mut follows_word = !bytes::begins_word(text, start);
        let mut escaped = false;
        for (offset, byte) in text.get(start..end).unwrap_or_default().iter().enumerate() {
            if !follows_word {
                self.word(start + offset, *byte);
            }
            // The letter of an escape is no part of the word behind it.
            let escape = escaped && matches!(byte, b'n' | b'r' | b't');
            follows_word = byte.is_ascii_alphanumeric() && !escape;
            escaped = *byte == b'\\';
        }
    }

    /// At the beginning of a word within a long run.
    fn word(&mut self, start: usize, first: u8) {
        let text = self.text;
        if token::may_begin(first)
            && self.wanted.has_any(TOKENS)
            && let Some((pattern, range)) = token::at(text, start)
        {
            self.report(pattern, range);
        }
        if first == b'e'
            && self.is_open(Pattern::Jwt, start)
            && bytes::from(text, start).starts_with(b"eyJ")
            && let Some(range) = token::jwt(text, start)
        {
            self.report(Pattern::Jwt, range);
        }
        if wallet::may_begin(first)
            && self.is_open(Pattern::CryptoWallet, start)
            && let Some(range) = wallet::at(text, start)
        {
            self.report(Pattern::CryptoWallet, range);
        }
        if first.is_ascii_hexdigit()
            && self.is_open(Pattern::MacAddress, start)
            && let Some(range) = address::mac_with_dashes(text, start)
        {
            self.report(Pattern::MacAddress, range);
        }
        if first.is_ascii_uppercase()
            && self.is_open(Pattern::Passport, start)
            && let Some(range) = passport::machine_line(text, start)
        {
            self.report(Pattern::Passport, range);
        }
    }
}
