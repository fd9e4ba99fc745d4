//! Decoders of PostgreSQL's messages: what was encoded comes back; a message that is cut short, has
//! bytes left over or is no message at all is an error, and never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use interceptor_core::wire::postgres::backend::{self, TransactionStatus};
use interceptor_core::wire::postgres::encode::{self, ErrorText, Severity};
use interceptor_core::wire::postgres::frame;
use interceptor_core::wire::postgres::frontend::{self, Object};
use interceptor_core::wire::postgres::sasl;
use interceptor_core::wire::postgres::startup::{self, CancelKey, FirstPacket};
use proptest::prelude::*;

/// A decoder as far as most tests see it: the body is understood or not.
type Decoder = (&'static str, fn(&[u8]) -> bool);

/// Decoders whose messages end where their fields end: each rejects every shorter and every longer
/// form of what it accepts.
const EXACT: &[Decoder] = &[
    ("query", |body| frontend::query(body).is_ok()),
    ("parse", |body| frontend::parse(body).is_ok()),
    ("bind", |body| frontend::bind(body).is_ok()),
    ("object", |body| frontend::object(body).is_ok()),
    ("execute", |body| frontend::execute(body).is_ok()),
    ("empty", |body| frontend::empty(body).is_ok()),
    ("copy fail", |body| frontend::copy_fail(body).is_ok()),
    ("parameter status", |body| {
        backend::parameter_status(body).is_ok()
    }),
    ("ready for query", |body| {
        backend::ready_for_query(body).is_ok()
    }),
    ("row description", |body| {
        backend::row_description(body).is_ok()
    }),
    ("data row", |body| row(body).is_some()),
    ("command complete", |body| {
        backend::command_complete(body).is_ok()
    }),
    ("copy response", |body| backend::copy_response(body).is_ok()),
    ("error fields", |body| backend::error_fields(body).is_ok()),
];

/// The others: the rest of the message is a field of its own.
const OPEN: &[Decoder] = &[
    ("authentication", |body| sasl::request(body).is_ok()),
    ("backend key data", |body| {
        backend::backend_key_data(body).is_ok()
    }),
    ("first packet", |body| startup::decode(body).is_ok()),
    ("packet size", |body| startup::packet_size(body).is_ok()),
    ("header", |body| frame::header(body).is_ok()),
];

/// All cells of a DataRow.
fn row(body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let (count, mut cells) = backend::data_row(body).ok()?;
    let mut result = Vec::new();
    while let Some(cell) = cells.next_cell().ok()? {
        result.push(cell.map(<[u8]>::to_vec));
    }
    assert_eq!(result.len(), count);
    Some(result)
}

fn strings(texts: &[&[u8]]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| [text, &b"\0"[..]].concat())
        .collect()
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap().to_be_bytes()
}

fn value(value: &Option<Vec<u8>>) -> Vec<u8> {
    match value {
        None => (-1i32).to_be_bytes().to_vec(),
        Some(bytes) => [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat(),
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1u8.., 0..20)
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    prop::collection::vec(
        prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
        0..8,
    )
}

/// Bodies that are right for the exact decoders, with the decoder's place in [`EXACT`].
fn bodies() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let formats = |formats: &[bool]| {
        let list: Vec<u8> = formats
            .iter()
            .flat_map(|binary| [0, u8::from(*binary)])
            .collect();
        [&count(formats.len())[..], &list].concat()
    };
    prop_oneof![
        name().prop_map(|text| (0, strings(&[&text]))),
        (name(), name(), prop::collection::vec(any::<u32>(), 0..5)).prop_map(|(a, b, types)| {
            let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
            (
                1,
                [strings(&[&a, &b]), count(types.len() / 4).to_vec(), types].concat(),
            )
        }),
        (
            name(),
            name(),
            any::<bool>(),
            values(),
            prop::collection::vec(any::<bool>(), 0..4)
        )
            .prop_map(move |(a, b, binary, values, results)| {
                let cells: Vec<u8> = values.iter().flat_map(value).collect();
                let each = formats(&vec![binary; values.len()]);
                let parts = [
                    strings(&[&a, &b]),
                    each,
                    count(values.len()).to_vec(),
                    cells,
                ];
                (2, [parts.concat(), formats(&results)].concat())
            }),
        (any::<bool>(), name()).prop_map(|(portal, name)| {
            (
                3,
                [&[if portal { b'P' } else { b'S' }][..], &strings(&[&name])].concat(),
            )
        }),
        (name(), any::<[u8; 4]>())
            .prop_map(|(name, rows)| (4, [strings(&[&name]), rows.to_vec()].concat())),
        Just((5, Vec::new())),
        name().prop_map(|text| (6, strings(&[&text]))),
        (name(), name()).prop_map(|(a, b)| (7, strings(&[&a, &b]))),
        prop::sample::select(vec![b'I', b'T', b'E']).prop_map(|status| (8, vec![status])),
        prop::collection::vec((name(), any::<[u8; 16]>(), any::<bool>()), 0..5).prop_map(
            |columns| {
                let mut body = count(columns.len()).to_vec();
                for (name, rest, binary) in columns {
                    body.extend(strings(&[&name]));
                    body.extend_from_slice(&rest);
                    body.extend_from_slice(&[0, u8::from(binary)]);
                }
                (9, body)
            }
        ),
        values().prop_map(|values| {
            let cells: Vec<u8> = values.iter().flat_map(value).collect();
            (10, [count(values.len()).to_vec(), cells].concat())
        }),
        name().prop_map(|text| (11, strings(&[&text]))),
        (any::<bool>(), 0usize..6).prop_map(|(binary, columns)| {
            (
                12,
                [
                    &[u8::from(binary)][..],
                    &count(columns),
                    &vec![0; columns * 2],
                ]
                .concat(),
            )
        }),
        prop::collection::vec((1u8.., name()), 0..5).prop_map(|fields| {
            let fields = fields
                .iter()
                .flat_map(|(code, text)| [&[*code][..], &strings(&[text])].concat());
            (13, fields.chain([0]).collect())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, decode) in EXACT.iter().chain(OPEN) {
            decode(&bytes);
        }
    }

    #[test]
    fn exact_messages_are_understood_whole_only((decoder, body) in bodies(), extra in any::<u8>()) {
        let (name, decode) = EXACT[decoder];
        prop_assert!(decode(&body), "{} of {:?}", name, body);
        for size in 0..body.len() {
            prop_assert!(!decode(&body[..size]), "{} cut at {}: {:?}", name, size, body);
        }
        let longer = [&body[..], &[extra]].concat();
        prop_assert!(!decode(&longer), "{} with a byte more", name);
    }

    #[test]
    fn bind_comes_back(
        portal in name(),
        statement in name(),
        values in values(),
        binary in prop::collection::vec(any::<bool>(), 8),
        mode in 0usize..3,
    ) {
        // No format is text for all, one is for all, otherwise there is one for each.
        let formats = match mode {
            0 => &[][..],
            1 => &binary[..1],
            _ => &binary[..values.len()],
        };
        let list: Vec<u8> = formats.iter().flat_map(|binary| [0, u8::from(*binary)]).collect();
        let cells: Vec<u8> = values.iter().flat_map(value).collect();
        let body = [
            strings(&[&portal, &statement]),
            count(formats.len()).to_vec(),
            list,
            count(values.len()).to_vec(),
            cells,
            vec![0, 0],
        ]
        .concat();
        let bind = frontend::bind(&body).unwrap();
        prop_assert_eq!(bind.portal, &portal[..]);
        prop_assert_eq!(bind.statement, &statement[..]);
        prop_assert_eq!(bind.parameters.len(), values.len());
        for (index, parameter) in bind.parameters.iter().enumerate() {
            prop_assert_eq!(parameter.value, values[index].as_deref());
            let expected = match mode {
                0 => false,
                1 => binary[0],
                _ => binary[index],
            };
            prop_assert_eq!(parameter.binary, expected || (mode == 2 && formats.is_empty()));
        }
    }

    #[test]
    fn rows_come_back(values in values()) {
        let cells: Vec<u8> = values.iter().flat_map(value).collect();
        let body = [count(values.len()).to_vec(), cells].concat();
        prop_assert_eq!(row(&body), Some(values));
    }

    #[test]
    fn parameters_and_names_come_back(a in name(), b in name()) {
        let pair = strings(&[&a, &b]);
        prop_assert_eq!(backend::parameter_status(&pair).unwrap(), (&a[..], &b[..]));
        let body = [&b"P"[..], &strings(&[&a])].concat();
        prop_assert_eq!(frontend::object(&body).unwrap(), (Object::Portal, &a[..]));
        let parse = [pair, vec![0, 0]].concat();
        let parse = frontend::parse(&parse).unwrap();
        prop_assert_eq!((parse.statement, parse.text), (&a[..], &b[..]));
    }

    #[test]
    fn errors_of_the_gateway_come_back(
        text in "\\PC{0,40}",
        hint in "\\PC{0,40}",
        position in 0usize..1_000,
        fatal in any::<bool>(),
    ) {
        let mut out = bytes::BytesMut::new();
        let severity = if fatal { Severity::Fatal } else { Severity::Error };
        let mut error = ErrorText::new("42501", &text);
        error.hint = hint.clone();
        error.position = position;
        encode::error(&mut out, severity, &error);
        let header = frame::header(&out).unwrap().unwrap();
        prop_assert_eq!(header.size, out.len());
        let fields = backend::error_fields(&out[5..]).unwrap();
        let field = |wanted| {
            fields
                .iter()
                .find(|(code, _)| *code == wanted)
                .map(|(_, text)| String::from_utf8(text.to_vec()).unwrap())
        };
        prop_assert_eq!(field(b'C').unwrap(), "42501");
        prop_assert_eq!(field(b'M').unwrap_or_default(), text);
        prop_assert_eq!(field(b'H').unwrap_or_default(), hint);
        prop_assert_eq!(field(b'P').unwrap_or_default(), if position > 0 { position.to_string() } else { String::new() });
    }

    #[test]
    fn cancel_keys_come_back(process_id in any::<u32>(), secret in prop::collection::vec(any::<u8>(), 4..256)) {
        let key = CancelKey { process_id, secret };
        let packet = startup::encode_cancel(&key);
        prop_assert_eq!(startup::packet_size(&packet), Ok(Some(packet.len())));
        match startup::decode(&packet) {
            Ok(FirstPacket::CancelRequest(back)) => prop_assert!(back.is(&key)),
            _ => prop_assert!(false),
        }
    }

    #[test]
    fn a_header_needs_five_bytes_and_a_length_that_can_be(kind in any::<u8>(), length in any::<i32>()) {
        let bytes = [&[kind][..], &length.to_be_bytes()].concat();
        for size in 0..5 {
            prop_assert_eq!(frame::header(&bytes[..size]), Ok(None));
        }
        match frame::header(&bytes) {
            Ok(Some(header)) => {
                prop_assert!(length >= 4);
                prop_assert_eq!((header.kind, header.size), (kind, length as usize + 1));
            }
            Ok(None) => prop_assert!(false),
            Err(_) => prop_assert!(length < 4),
        }
    }

    #[test]
    fn a_first_packet_has_a_size_within_limits(length in any::<i32>()) {
        let size = startup::packet_size(&length.to_be_bytes());
        prop_assert_eq!(size.is_ok(), (8..=10_000).contains(&length));
    }
}

fn startup_packet(parameters: &[&[u8]]) -> Vec<u8> {
    let body = [strings(parameters), vec![0]].concat();
    let size = (body.len() as u32 + 8).to_be_bytes();
    [&size[..], &(3u32 << 16).to_be_bytes(), &body].concat()
}

#[test]
fn a_startup_packet_is_understood_whole_only() {
    let whole = startup_packet(&[b"user", b"app", b"database", b"shop"]);
    match startup::decode(&whole) {
        Ok(FirstPacket::Startup(startup)) => {
            assert_eq!((&startup.user[..], &startup.database[..]), ("app", "shop"));
        }
        _ => panic!("not understood"),
    }
    for size in 0..whole.len() {
        assert!(startup::decode(&whole[..size]).is_err(), "cut at {size}");
    }
    assert!(startup::decode(&[&whole[..], b"x"].concat()).is_err());
    for parameters in [
        &[&b"database"[..], b"shop"][..],
        &[b"user", b""],
        &[b"user", b"a", b"user", b"b"],
        &[b"user", b"\xff"],
    ] {
        assert!(
            startup::decode(&startup_packet(parameters)).is_err(),
            "{parameters:?}"
        );
    }
}

#[test]
fn requests_for_encryption_carry_nothing_else() {
    for code in [80_877_103u32, 80_877_104] {
        let packet = [&8u32.to_be_bytes()[..], &code.to_be_bytes()].concat();
        assert!(startup::decode(&packet).is_ok());
        assert!(startup::decode(&[&packet[..], b"x"].concat()).is_err());
    }
    for version in [2u32 << 16, 4 << 16, 0] {
        let packet = [&8u32.to_be_bytes()[..], &version.to_be_bytes()].concat();
        assert!(startup::decode(&packet).is_err());
    }
}

/// A count is no promise: it neither allocates nor reads beyond what is there.
#[test]
fn counts_without_their_values() {
    let most = [0xff, 0xff];
    let names = strings(&[b"", b""]);
    for body in [
        [&names[..], &most].concat(),
        [&names[..], &[0, 0], &most].concat(),
        [&names[..], &[0, 0], &[0, 0], &most].concat(),
        [
            &names[..],
            &[0, 2, 0, 1, 0, 1],
            &[0, 3],
            &[0xff; 12],
            &[0, 0],
        ]
        .concat(),
        [&names[..], &[0, 1, 0, 2], &[0, 0], &[0, 0]].concat(),
        [
            &names[..],
            &[0, 0],
            &[0, 1],
            &[0xff, 0xff, 0xff, 0xfe],
            &[0, 0],
        ]
        .concat(),
    ] {
        assert!(frontend::bind(&body).is_err(), "{body:?}");
    }
    assert!(backend::row_description(&most).is_err());
    assert!(row(&most).is_none());
    assert!(backend::copy_response(&[&[0][..], &most].concat()).is_err());
}

#[test]
fn values_that_the_protocol_does_not_know() {
    assert_eq!(backend::ready_for_query(b"T"), Ok(TransactionStatus::Open));
    assert!(backend::ready_for_query(b"X").is_err());
    assert!(frontend::object(b"X\0").is_err());
    assert!(backend::copy_response(&[2, 0, 0]).is_err());
    for size in [0usize, 3, 257] {
        let body = [&[0; 4][..], &vec![1; size]].concat();
        assert!(backend::backend_key_data(&body).is_err(), "{size}");
    }
}
