//! What values look like: the patterns that every gateway knows.
//!
//! It owns their names and the one pass that finds them all. It must not know what is shown instead.
//!
//! [`scan`] goes over a text eight bytes at a time and stops at what a pattern cannot do without: a digit
//! that begins a number, `@`, `:`, and a long run without separators. A module for each kind of value then
//! looks at what is around that place, once: the time is linear in the text, whatever is in it.

mod address;
mod bytes;
mod card;
pub(super) mod check;
pub(super) mod context;
pub(super) mod email;
mod groups;
pub(super) mod iban;
mod key;
mod passport;
mod phone;
mod scan;
#[cfg(test)]
mod tests;
mod token;
mod url;
mod us;
mod wallet;

pub(super) use scan::find;

/// What a value can look like. Where two patterns find the same bytes, the first in this order names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// A private key in a file of its own form.
    PrivateKey,
    /// User and password in a URL.
    UrlCredentials,
    /// A JSON Web Token.
    Jwt,
    /// An access key of AWS, or its secret.
    AwsKey,
    /// An API key, client secret or token of Google.
    GcpKey,
    /// A token or webhook of Slack.
    SlackToken,
    /// A token of GitHub.
    GithubToken,
    /// A token of GitLab.
    GitlabToken,
    /// A secret or restricted key of Stripe.
    StripeKey,
    /// A token of another service.
    ApiToken,
    /// An address of a crypto-currency.
    CryptoWallet,
    /// An email address.
    Email,
    /// An international bank account number.
    Iban,
    /// A payment card's number: issuer prefix, length and check digit fit.
    PaymentCard,
    /// A US social security number.
    UsSsn,
    /// A US individual taxpayer identification number.
    UsItin,
    /// A routing number of a US bank.
    UsAba,
    /// The number of a US provider of health care.
    UsNpi,
    /// The number of a passport.
    Passport,
    /// The address of a network interface.
    MacAddress,
    /// An IPv4 or IPv6 address.
    IpAddress,
    /// A telephone number.
    Phone,
}

impl Pattern {
    /// Every pattern with its name in policy files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("email", Self::Email),
        ("phone", Self::Phone),
        ("payment_card", Self::PaymentCard),
        ("iban", Self::Iban),
        ("us_ssn", Self::UsSsn),
        ("us_itin", Self::UsItin),
        ("us_aba", Self::UsAba),
        ("us_npi", Self::UsNpi),
        ("passport", Self::Passport),
        ("ip_address", Self::IpAddress),
        ("mac_address", Self::MacAddress),
        ("crypto_wallet", Self::CryptoWallet),
        ("url_credentials", Self::UrlCredentials),
        ("private_key", Self::PrivateKey),
        ("jwt", Self::Jwt),
        ("aws_key", Self::AwsKey),
        ("gcp_key", Self::GcpKey),
        ("slack_token", Self::SlackToken),
        ("github_token", Self::GithubToken),
        ("gitlab_token", Self::GitlabToken),
        ("stripe_key", Self::StripeKey),
        ("api_token", Self::ApiToken),
    ];

    /// Its name in policy files.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, pattern)| *pattern == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Some of the patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Patterns(u32);

impl Patterns {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn with(self, pattern: Pattern) -> Self {
        Self(self.0 | 1 << pattern as u32)
    }

    pub(super) const fn has(self, pattern: Pattern) -> bool {
        self.0 & 1 << pattern as u32 != 0
    }

    const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}
