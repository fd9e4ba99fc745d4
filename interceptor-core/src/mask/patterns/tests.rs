//! What each pattern finds and what it leaves, with all the others looked for at the same time.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn everything() -> Patterns {
    let all = Pattern::NAMES.iter();
    all.fold(Patterns::NONE, |all, (_, pattern)| all.with(*pattern))
}

fn found(text: &str) -> Vec<(Pattern, String)> {
    let mut all = Vec::new();
    find(text.as_bytes(), everything(), &mut |pattern, range| {
        all.push((
            pattern,
            String::from_utf8_lossy(&text.as_bytes()[range]).into(),
        ));
    });
    all
}

/// Each value is found as it is: alone, in a sentence, in JSON, behind an escape, at any offset.
fn finds(pattern: Pattern, values: &[&str]) {
    for value in values {
        let sentences = [
            String::from(*value),
            alloc::format!("on file: {value}, as they said"),
            alloc::format!("{{\"value\":\"{value}\"}}"),
            alloc::format!("({value}) {value}."),
            alloc::format!("first\\n{value}\\nlast"),
            alloc::format!("first\n{value}\nlast"),
        ];
        for (index, sentence) in sentences.iter().enumerate() {
            for offset in 0..8 {
                let text = alloc::format!("{}{sentence}", &"  , ; - "[..offset]);
                let times = if index == 3 { 2 } else { 1 };
                assert_eq!(
                    found(&text),
                    vec![(pattern, String::from(*value)); times],
                    "{text}"
                );
            }
        }
    }
}

/// Each value is found between these words.
fn finds_beside(pattern: Pattern, texts: &[(&str, &str)]) {
    for (text, value) in texts {
        assert_eq!(found(text), [(pattern, String::from(*value))], "{text}");
    }
}

fn leaves(texts: &[&str]) {
    for text in texts {
        assert_eq!(found(text), [], "{text}");
        let sentence = alloc::format!("it says {text} there");
        assert_eq!(found(&sentence), [], "{sentence}");
    }
}

#[test]
fn cards() {
    finds(
        Pattern::PaymentCard,
        &[
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "3056 930902 5904",
            "6200000000000005",
            "4222222222222",
            "4000056655665556007",
        ],
    );
    finds_beside(
        Pattern::PaymentCard,
        &[
            ("ref 42 4111 1111 1111 1111", "4111 1111 1111 1111"),
            ("VISA4111111111111111", "4111111111111111"),
            ("0.5 4111111111111111", "4111111111111111"),
            ("+49 4111111111111111", "4111111111111111"),
            ("2024-01-15 4111111111111111 12.50", "4111111111111111"),
        ],
    );
    leaves(&[
        "4111111111111112",                 // the check digit is wrong
        "1111111111111117",                 // no issuer
        "41111111111111111111",             // twenty digits
        "0.4929716091480213",               // a float
        "709b211725dc8b2a37f5621692655002", // a digest
    ]);
}

#[test]
fn bank_accounts() {
    finds(
        Pattern::Iban,
        &[
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "GB29 NWBK 6016 1331 9268 19",
            "GB29-NWBK-6016-1331-9268-19",
            "FR1420041010050500013M02606",
            "FR14 2004 1010 0505 0001 3M02 606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "de89370400440532013000",
        ],
    );
    leaves(&[
        "DE88370400440532013000",  // check digits
        "DE8937040044053201300",   // too short
        "XX44370400440532013000",  // no such country
        "XDE89370400440532013000", // within a word
        "DE89 3704-0044 0532 0130 00",
    ]);
}

#[test]
fn numbers_of_us_authorities() {
    finds(Pattern::UsSsn, &["078-05-1120", "219 09 9999"]);
    finds(Pattern::UsItin, &["912-70-1234", "900 88 0000"]);
    finds_beside(
        Pattern::UsSsn,
        &[
            ("SSN:078051120.", "078051120"),
            ("{\"ssn\": \"078051120\"}", "078051120"),
            ("his social security number is 078051120", "078051120"),
            ("7 078-05-1120", "078-05-1120"),
        ],
    );
    finds_beside(Pattern::UsItin, &[("ITIN 912701234", "912701234")]);
    finds_beside(
        Pattern::UsAba,
        &[
            ("routing number 021000021", "021000021"),
            ("ABA: 322271627", "322271627"),
            ("{\"routingNumber\":\"011401533\"}", "011401533"),
            ("wire to 021000021 (ABA)", "021000021"),
        ],
    );
    finds_beside(
        Pattern::UsNpi,
        &[
            ("NPI 1234567893", "1234567893"),
            ("the provider's number is 1245319599", "1245319599"),
        ],
    );
    leaves(&[
        "078051120",
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "078-00-1120",
        "078-05-0000",
        "078-05 1120",
        "1-078-05-1120",
        "078-05-1120-33",
        "0078-05-1120",
        "078-05-11201",
        "078--05-1120",
        "078-5-1120",
        "021000021",
        "order 021000021",
        "routing 021000022",
        "1234567893",
        "npi 1234567890",
        "ssn 000051120",
    ]);
}

#[test]
fn telephones() {
    finds(
        Pattern::Phone,
        &[
            "+49 30 901820",
            "+49 (0)30 901820",
            "+4930901820",
            "+1-212-555-0123",
            "+1 (212) 555-0123",
            "+1.212.555.0123",
            "+33 6 12 34 56 78",
            "+44 20 7946 0958",
            "+44 7700 900123",
            "+351 21 123 4567",
            "+91-98765-43210",
            "+8613812345678",
            "(212) 555-0123",
            "(212)555-0123",
            "212-555-0123",
            "212.555.0123",
            "1-212-555-0123",
            "212-555-0123x456",
            "212-555-0123 ext. 456",
            "0049 30 901820",
            "001-212-555-0123",
            "01 23 45 67 89",
            "06.12.34.56.78",
            "020 7946 0958",
            "07700 900123",
            "(030) 901820",
            "030/901820",
            "(0151) 12345678",
            "(02) 6038 1502",
            "(08)-1396-3267",
        ],
    );
    finds_beside(
        Pattern::Phone,
        &[
            ("Phone: 2125550123", "2125550123"),
            ("call me at 555-0123", "555-0123"),
            ("{\"phone_number\":\"612345678\"}", "612345678"),
            ("{\"mobilePhone\": \"612 34 56 78\"}", "612 34 56 78"),
            ("Tel.: 12 34 56 78", "12 34 56 78"),
        ],
    );
    leaves(&[
        "2024-01-15",
        "2024-01-15 10:30:00.123456+00",
        "2024-01-15T10:30:00+0100",
        "15.01.2024 10:30",
        "01/02/2024 03/04/2025",
        "2125550123",
        "1700000000000",
        "1700000000000000000",
        "00000000-0000-4000-8000-000000000000",
        "978-3-16-148410-0",
        "ORD-2024-000123456",
        "02134-1234",
        "12.345.678,90",
        "1 234 567 890",
        "52.520008, 13.404954",
        "+1.5",
        "+100000000000",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
        "212-555-0123-7",
        "phone released 2024-01-15",
    ]);
}

#[test]
fn addresses_of_networks() {
    finds(
        Pattern::IpAddress,
        &[
            "10.0.0.1",
            "192.168.100.200",
            "255.255.255.255",
            "2001:db8::1",
            "fe80::1",
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
            "::ffff:10.0.0.1",
        ],
    );
    finds(
        Pattern::MacAddress,
        &[
            "00:1a:2b:3c:4d:5e",
            "00-1A-2B-3C-4D-5E",
            "aa-bb-cc-dd-ee-ff",
            "001a.2b3c.4d5e",
        ],
    );
    finds_beside(
        Pattern::IpAddress,
        &[
            ("http://10.0.0.1:8080/x", "10.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0"),
            ("listen on [::1]:5432", "::1"),
            ("addr:fe80::1%eth0", "fe80::1"),
            ("ip=10.0.0.1;", "10.0.0.1"),
        ],
    );
    leaves(&[
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "v1.2.3.4",
        "version 1.2.3.4",
        "1.2.3.4567",
        "10:30:00",
        "10:30",
        "std::vec",
        "a::b",
        "1::int",
        "now()::date",
        "de:ad",
        "SHA256:ab:cd:ef:01:23:45:67:89",
        "00:1a:2b:3c:4d",
        "00-1a-2b-3c-4d-5e-6f",
        "{\"a\":1,\"b\":2}",
    ]);
}

#[test]
fn secrets() {
    finds(
        Pattern::AwsKey,
        &["AKIAIOSFODNN7EXAMPLE", "ASIAY34FZKBOKMUTVV7A"],
    );
    finds_beside(
        Pattern::AwsKey,
        &[(
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        )],
    );
    finds(
        Pattern::GcpKey,
        &["AIzaSyA1bC2dE3fG4hI5jK6lM7nO8pQ9rS0tU1v"],
    );
    finds(
        Pattern::SlackToken,
        &[
            concat!(
                "xoxb-",
                "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx"
            ),
            concat!(
                "hooks.slack.com/services/",
                "T00000000/B11111111/XyZ123abcDEF456ghiJKL789"
            ),
        ],
    );
    finds(
        Pattern::GithubToken,
        &[concat!("ghp_", "0123456789abcdefghijABCDEFGHIJ012345")],
    );
    finds(
        Pattern::GitlabToken,
        &[concat!("glpat-", "x1Y2z3A4b5C6d7E8f9G0")],
    );
    finds(
        Pattern::StripeKey,
        &[concat!("sk_live_", "4eC39HqLyjWDarjtT1zdp7dc")],
    );
    finds(
        Pattern::ApiToken,
        &[
            concat!("npm_", "0123456789abcdefghijABCDEFGHIJ012345"),
            concat!(
                "SG.",
                "ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"
            ),
        ],
    );
    finds(
        Pattern::Jwt,
        &[
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.c2ln",
        ],
    );
    leaves(&[
        concat!("ghp_", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        "ghp_short",
        "AKIA1234",
        "sk_live_",
        "xoxb-your-token-here",
        "eyJ.eyJ.eyJ",
        "eyJmb28iOiJiYXIifQ.eyJzdWIiOiIxMjM0In0.abc",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "550e8400-e29b-41d4-a716-446655440000",
    ]);
}

#[test]
fn keys() {
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA04up8hoqzS1XCvIEKXwIDAQAB\n-----END RSA PRIVATE KEY-----";
    let escaped = pem.replace('\n', "\\n");
    finds(Pattern::PrivateKey, &[pem, &escaped]);
    let cut = "key: -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIB";
    finds_beside(Pattern::PrivateKey, &[(cut, &cut[5..])]);
    finds(
        Pattern::PrivateKey,
        &[
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAAIA==\nPrivate-MAC: 0a1b2c",
        ],
    );
    leaves(&[
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUF\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----",
    ]);
}

#[test]
fn wallets() {
    finds(
        Pattern::CryptoWallet,
        &[
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
            "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
        ],
    );
    leaves(&[
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdr",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", // EIP-55
        "0x0000000000000000000000000000000000000000",
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed00",
    ]);
}

#[test]
fn passports_and_urls() {
    finds_beside(
        Pattern::Passport,
        &[
            ("passport no. C01X00T47", "C01X00T47"),
            ("{\"passport_number\":\"X1234567\"}", "X1234567"),
            ("Reisepass: C01X00T47", "C01X00T47"),
            ("123456789 (US passport)", "123456789"),
            (
                "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
                "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
            ),
        ],
    );
    finds_beside(
        Pattern::UrlCredentials,
        &[
            ("postgres://app:s3cret@db/orders", "app:s3cret"),
            ("\"https://u:p%40ss@host:8443/\" ok", "u:p%40ss"),
            ("redis://:hunter2@cache:6379", ":hunter2"),
        ],
    );
    leaves(&[
        "C01X00T47",
        "passport expires 2031-04-15",
        "L898902C36UTO7408122F1204159ZE184226B<<<<<11",
        "https://example.com/a:b@c",
        "https://example.com:8443/",
        "ssh://git@github",
    ]);
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,5}",
        "[a-fA-F0-9]{1,4}",
        "[-:. @/()+_<=,]{1,2}",
        Just("://".into()),
        Just("eyJ".into()),
        Just("ghp_".into()),
        Just("-----BEGIN PRIVATE KEY-----".into()),
        Just("-----END PRIVATE KEY-----".into()),
        Just("PuTTY-User-Key-File-".into()),
        Just("ssn ".into()),
        Just("\\n".into()),
        Just("ü".into()),
        "[a-zA-Z0-9]{20,45}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a pattern finds does not depend on which others are looked for, and lies within the text.
    #[test]
    fn patterns_are_independent(pieces in proptest::collection::vec(piece(), 0..20)) {
        let text = pieces.concat();
        let together = found(&text);
        for (_, pattern) in Pattern::NAMES {
            let mut alone = Vec::new();
            find(text.as_bytes(), Patterns::NONE.with(*pattern), &mut |found, range| {
                alone.push((found, String::from_utf8_lossy(&text.as_bytes()[range]).into()));
            });
            let among: Vec<_> = together.iter().filter(|(found, _)| found == pattern).cloned().collect();
            prop_assert_eq!(alone, among, "{:?}", text);
        }
    }
}

const TEXT_BYTES: usize = 256 * 1024;
/// Looking at each byte once takes less than a tenth of it where nothing is optimised; looking at a tenth of the text for
/// each byte would take minutes.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Texts that make a pattern look at much for each byte.
#[test]
fn hostile_texts_take_linear_time() {
    let pieces = [
        "1",
        "1 ",
        "1.",
        "1-",
        "12 34 ",
        "a:",
        "1:",
        "::",
        "@",
        "a@",
        "a.",
        "://",
        "a://b:",
        "a://b:c@",
        "xoxb-",
        "ya29.",
        "github_pat_",
        "eyJ",
        "eyJ.",
        "eyJ-",
        "AKIA",
        "bc1q",
        "1A",
        "0x",
        "+1",
        "+49 ",
        "(030",
        "DE89",
        "phone ",
        "ssn 078051120 ",
        "passport 1A",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----=====-----END ----------",
        "PuTTY-User-Key-File-",
        "P<",
        "00-",
        "0000.",
        "ffff:",
        "\\n",
        "k=",
        "aws ",
        "Ab1",
        "a",
        "-",
        "ü",
    ];
    for piece in pieces {
        let text = piece.repeat(TEXT_BYTES / piece.len());
        let once = |_: &i32| {
            let start = Instant::now();
            let mut count = 0;
            find(text.as_bytes(), everything(), &mut |_, _| count += 1);
            start.elapsed() < TIME_MAX
        };
        // Once is enough: other work on the machine only adds.
        assert!((0..3).any(|round| once(&round)), "{piece:?}");
    }
}
