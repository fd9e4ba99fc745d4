//! PostgreSQL's own types, by their object ids in `pg_type.dat`.
//!
//! It owns what is known of each: how its cells can be rewritten, and a value of it that says nothing.
//! It must not know masks.

use alloc::vec::Vec;

/// How the cells of a type can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Any text will do: text, varchar, char(n), name, unknown.
    Text,
    /// A text without the spaces at its end.
    Padded,
    /// One byte.
    Byte,
    /// A text in which `<` and `&` mean something.
    Xml,
    /// A JSON text: the replacement is a JSON string.
    Json,
    /// JSON behind a version byte, in binary format.
    Jsonb,
    /// A whole number of four bytes.
    Int4,
    /// A whole number of eight bytes: a payment card number may hide in it.
    Int8,
    /// A decimal number.
    Numeric,
    /// Sixteen bytes.
    Uuid,
    /// Bytes.
    Bytes,
    /// The address of a host or network.
    Inet,
    /// The address of a device.
    Mac,
    /// Nothing that a pattern looks for fits in: booleans, dates, floats, small integers.
    Safe,
    /// An array of this type.
    Array(u32),
    /// A row whose columns are told in binary format.
    Record,
    /// Anything else: composites, enums, ranges, extension types.
    Other,
}

/// The family of a type.
pub(super) fn family(type_oid: u32) -> Family {
    match type_oid {
        18 => Family::Byte,
        19 | 25 | 705 | 1043 => Family::Text,
        1042 => Family::Padded,
        142 => Family::Xml,
        114 => Family::Json,
        3802 => Family::Jsonb,
        20 => Family::Int8,
        1700 => Family::Numeric,
        23 => Family::Int4,
        2950 => Family::Uuid,
        17 => Family::Bytes,
        650 | 869 => Family::Inet,
        774 | 829 => Family::Mac,
        16 | 21 | 26 | 700 | 701 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 => Family::Safe,
        2249 => Family::Record,
        other => ARRAYS
            .iter()
            .find(|(array, _)| *array == other)
            .map_or(Family::Other, |(_, element)| Family::Array(*element)),
    }
}

/// Types of arrays, and of their elements.
#[rustfmt::skip]
pub(super) const ARRAYS: &[(u32, u32)] = &[
    (1000, 16), (1001, 17), (1002, 18), (1003, 19), (1005, 21), (1006, 22), (1007, 23), (1008, 24), (1009, 25),
    (1010, 27), (1011, 28), (1012, 29), (1013, 30), (1014, 1042), (1015, 1043), (1016, 20), (1017, 600), (1018, 601),
    (1019, 602), (1020, 603), (1021, 700), (1022, 701), (1027, 604), (1028, 26), (1034, 1033), (1040, 829),
    (1041, 869), (651, 650), (629, 628), (719, 718), (775, 774), (791, 790), (1115, 1114), (1182, 1082), (1183, 1083),
    (1185, 1184), (1187, 1186), (1231, 1700), (1263, 2275), (1270, 1266), (1561, 1560), (1563, 1562), (2201, 1790),
    (2207, 2202), (2208, 2203), (2209, 2204), (2210, 2205), (2211, 2206), (2287, 2249), (2949, 2970), (2951, 2950),
    (199, 114), (143, 142), (271, 5069), (3221, 3220), (3643, 3614), (3644, 3642), (3645, 3615), (3735, 3734),
    (3770, 3769), (3807, 3802), (3905, 3904), (3907, 3906), (3909, 3908), (3911, 3910), (3913, 3912), (3927, 3926),
    (4073, 4072), (4090, 4089), (4097, 4096), (4192, 4191), (5039, 5038), (6150, 4451), (6151, 4532), (6152, 4533),
    (6153, 4534), (6155, 4535), (6157, 4536),
];

/// Types whose value that says nothing has these bytes in text, and so many zero bytes in binary.
#[rustfmt::skip]
const ZEROS: &[(u32, &str, usize)] = &[
    (16, "f", 1), (17, "\\x", 0), (20, "0", 8), (21, "0", 2), (23, "0", 4), (26, "0", 4),
    (24, "-", 4), (2202, "-", 4), (2203, "0", 4), (2204, "0", 4), (2205, "-", 4), (2206, "-", 4), (3734, "-", 4),
    (3769, "-", 4), (4089, "-", 4), (4096, "-", 4), (4191, "-", 4),
    (27, "(0,0)", 6), (28, "0", 4), (29, "0", 4), (5069, "0", 8), (3220, "0/0", 8),
    (700, "0", 4), (701, "0", 8), (790, "0", 8), (1700, "0", 8),
    (1082, "2000-01-01", 4), (1083, "00:00:00", 8), (1114, "2000-01-01 00:00:00", 8),
    (1184, "2000-01-01 00:00:00+00", 8), (1186, "00:00:00", 16), (1266, "00:00:00+00", 12),
    (2950, "00000000-0000-0000-0000-000000000000", 16), (829, "00:00:00:00:00:00", 6),
    (774, "00:00:00:00:00:00:00:00", 8), (1562, "", 4), (3614, "", 4), (3615, "", 4),
    (600, "(0,0)", 16), (601, "[(0,0),(0,0)]", 32), (603, "(0,0),(0,0)", 32), (718, "<(0,0),0>", 24),
    (2249, "()", 4),
    (4451, "{}", 4), (4532, "{}", 4), (4533, "{}", 4), (4534, "{}", 4), (4535, "{}", 4), (4536, "{}", 4),
];

/// Range types.
const RANGES: [u32; 6] = [3904, 3906, 3908, 3910, 3912, 3926];

/// Appends a value of the type that says nothing of `value`. `false`: none is known, and nothing was
/// appended.
pub(super) fn neutral(type_oid: u32, binary: bool, value: &[u8], out: &mut Vec<u8>) -> bool {
    if let Some((_, text, zeros)) = ZEROS.iter().find(|(known, ..)| *known == type_oid) {
        if binary {
            out.resize(out.len() + zeros, 0);
        } else {
            out.extend_from_slice(text.as_bytes());
        }
        return true;
    }
    let (text, bytes): (&str, &[u8]) = match type_oid {
        // Family, bits, whether it is a network, bytes.
        869 => ("0.0.0.0", &[2, 32, 0, 4, 0, 0, 0, 0]),
        650 => ("0.0.0.0/0", &[2, 0, 1, 4, 0, 0, 0, 0]),
        // 1.0 in binary, as a line's first two numbers are not both zero.
        628 => ("{1,0,0}", &LINE),
        602 => ("[(0,0)]", &PATH),
        604 => ("((0,0))", &POLYGON),
        4072 => ("$", b"\x01$"),
        range if RANGES.contains(&range) => ("empty", &[1]),
        // As many bits as the column has.
        1560 => {
            let (start, bits) = value.split_at_checked(4).unwrap_or((value, &[]));
            match binary {
                true => {
                    out.extend_from_slice(start);
                    out.resize(out.len() + bits.len(), 0);
                }
                false => out.resize(out.len() + value.len(), b'0'),
            }
            return true;
        }
        array => {
            let Family::Array(element) = family(array) else {
                return false;
            };
            if binary {
                out.extend_from_slice(&[0; 8]);
                out.extend_from_slice(&element.to_be_bytes());
            } else {
                out.extend_from_slice(b"{}");
            }
            return true;
        }
    };
    out.extend_from_slice(if binary { bytes } else { text.as_bytes() });
    true
}

const LINE: [u8; 24] = {
    let mut bytes = [0; 24];
    bytes[0] = 0x3f;
    bytes[1] = 0xf0;
    bytes
};
/// Open, one point.
const PATH: [u8; 21] = {
    let mut bytes = [0; 21];
    bytes[4] = 1;
    bytes
};
/// One point.
const POLYGON: [u8; 20] = {
    let mut bytes = [0; 20];
    bytes[3] = 1;
    bytes
};
