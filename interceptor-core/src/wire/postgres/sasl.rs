//! Messages with which a server asks who a client is, and the client's answers.
//!
//! It owns how they look. What SCRAM says inside them is [`crate::wire::scram`]'s.

use alloc::vec::Vec;

use bytes::{BufMut as _, BytesMut};

use super::{backend, encode, frontend};
use crate::wire::{DecodeError, Reader};

/// SCRAM-SHA-256 (RFC 7677).
pub const SCRAM: &[u8] = b"SCRAM-SHA-256";
/// The same, bound to the encrypted channel.
pub const SCRAM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
/// Mechanisms that one message may name.
pub const MECHANISMS_MAX: usize = 32;

/// What a server asks for, or says, while it authenticates a client.
#[derive(Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// The client is in.
    Ok,
    /// The password in clear.
    Cleartext,
    /// The password hashed with MD5 and this salt.
    Md5([u8; 4]),
    /// One of these mechanisms, by name.
    Sasl(Vec<&'a [u8]>),
    /// The mechanism's next message.
    SaslContinue(&'a [u8]),
    /// The mechanism's last message: no answer, Ok follows.
    SaslFinal(&'a [u8]),
    /// A ticket of GSSAPI or SSPI.
    Gss,
}

/// Decodes Authentication.
pub fn request(body: &[u8]) -> Result<Request<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let request = match reader.u32()? {
        0 => Request::Ok,
        3 => Request::Cleartext,
        5 => {
            let salt = reader.bytes(4)?.first_chunk();
            Request::Md5(*salt.ok_or(DecodeError::Short)?)
        }
        // The rest of these is the mechanism's.
        7..=9 => return Ok(Request::Gss),
        10 => Request::Sasl(mechanisms(&mut reader)?),
        11 => return Ok(Request::SaslContinue(reader.rest())),
        12 => return Ok(Request::SaslFinal(reader.rest())),
        _ => return Err(DecodeError::Unknown("authentication")),
    };
    reader.finish()?;
    Ok(request)
}

fn mechanisms<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, DecodeError> {
    let mut names = Vec::new();
    loop {
        match reader.cstr()? {
            b"" => return Ok(names),
            _ if names.len() == MECHANISMS_MAX => {
                return Err(DecodeError::Unknown("mechanisms"));
            }
            name => names.push(name),
        }
    }
}

/// The client's choice, with its first message.
pub struct InitialResponse<'a> {
    /// The mechanism.
    pub mechanism: &'a [u8],
    /// The mechanism's first message; the client may leave it for later.
    pub message: Option<&'a [u8]>,
}

/// Decodes SASLInitialResponse.
pub fn initial_response(body: &[u8]) -> Result<InitialResponse<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let response = InitialResponse {
        mechanism: reader.cstr()?,
        message: reader.value()?,
    };
    reader.finish()?;
    Ok(response)
}

/// Decodes PasswordMessage: the password, or its hash.
pub fn password(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(body);
    let password = reader.cstr()?;
    reader.finish()?;
    Ok(password)
}

fn authentication(out: &mut BytesMut, code: u32, rest: impl FnOnce(&mut BytesMut)) {
    encode::message(out, backend::kind::AUTHENTICATION, |out| {
        out.put_u32(code);
        rest(out);
    });
}

/// AuthenticationOk.
pub fn encode_ok(out: &mut BytesMut) {
    authentication(out, 0, |_| {});
}

/// AuthenticationCleartextPassword.
pub fn encode_cleartext(out: &mut BytesMut) {
    authentication(out, 3, |_| {});
}

/// AuthenticationSASL: the mechanisms to choose from.
pub fn encode_mechanisms<'a>(out: &mut BytesMut, names: impl IntoIterator<Item = &'a [u8]>) {
    authentication(out, 10, |out| {
        for name in names {
            encode::cstr(out, name);
        }
        out.put_u8(0);
    });
}

/// AuthenticationSASLContinue.
pub fn encode_continue(out: &mut BytesMut, message: &[u8]) {
    authentication(out, 11, |out| out.put_slice(message));
}

/// AuthenticationSASLFinal.
pub fn encode_final(out: &mut BytesMut, message: &[u8]) {
    authentication(out, 12, |out| out.put_slice(message));
}

/// SASLInitialResponse.
pub fn encode_initial_response(out: &mut BytesMut, mechanism: &[u8], message: &[u8]) {
    encode::message(out, frontend::kind::PASSWORD, |out| {
        encode::cstr(out, mechanism);
        out.put_i32(i32::try_from(message.len()).unwrap_or(i32::MAX));
        out.put_slice(message);
    });
}

/// SASLResponse.
pub fn encode_response(out: &mut BytesMut, message: &[u8]) {
    encode::message(out, frontend::kind::PASSWORD, |out| out.put_slice(message));
}

/// PasswordMessage.
pub fn encode_password(out: &mut BytesMut, password: &[u8]) {
    encode::message(out, frontend::kind::PASSWORD, |out| {
        encode::cstr(out, password);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(out: &BytesMut) -> Vec<u8> {
        let header = super::super::frame::header(out).unwrap().unwrap();
        assert_eq!(header.size, out.len());
        out[super::super::frame::HEADER_BYTES..].to_vec()
    }

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        body(&out)
    }

    #[test]
    fn requests_come_back() {
        let names = [SCRAM_PLUS, SCRAM];
        let cases = [
            (encoded(encode_ok), Request::Ok),
            (encoded(encode_cleartext), Request::Cleartext),
            (
                encoded(|out| encode_mechanisms(out, names)),
                Request::Sasl(names.to_vec()),
            ),
            (
                encoded(|out| encode_continue(out, b"r=1")),
                Request::SaslContinue(b"r=1"),
            ),
            (
                encoded(|out| encode_final(out, b"v=1")),
                Request::SaslFinal(b"v=1"),
            ),
        ];
        for (body, expected) in &cases {
            assert!(request(body).is_ok_and(|found| found == *expected));
        }
        let md5 = [&5_u32.to_be_bytes()[..], b"salt"].concat();
        assert!(request(&md5).is_ok_and(|found| found == Request::Md5(*b"salt")));
        for code in [7_u32, 8, 9] {
            let body = [&code.to_be_bytes()[..], b"ticket"].concat();
            assert!(request(&body).is_ok_and(|found| found == Request::Gss));
        }
        for code in [1_u32, 2, 4, 6, 13, u32::MAX] {
            assert!(request(&code.to_be_bytes()).is_err(), "{code}");
        }
    }

    #[test]
    fn what_is_cut_or_longer_is_an_error() {
        let md5 = [&5_u32.to_be_bytes()[..], b"salt"].concat();
        let exact = [
            encoded(encode_ok),
            encoded(encode_cleartext),
            md5,
            encoded(|out| encode_mechanisms(out, [SCRAM])),
        ];
        for body in exact {
            for cut in 0..body.len() {
                assert!(request(&body[..cut]).is_err(), "{cut} of {body:?}");
            }
            assert!(request(&[&body[..], b"x"].concat()).is_err(), "{body:?}");
        }
        type Answer = (Vec<u8>, fn(&[u8]) -> bool);
        let answers: [Answer; 2] = [
            (
                encoded(|out| encode_initial_response(out, SCRAM, b"n,,n=,r=a")),
                |body| initial_response(body).is_ok(),
            ),
            (encoded(|out| encode_password(out, b"secret")), |body| {
                password(body).is_ok()
            }),
        ];
        for (body, decodes) in answers {
            assert!(decodes(&body));
            for cut in 0..body.len() {
                assert!(!decodes(&body[..cut]), "{cut} of {body:?}");
            }
            assert!(!decodes(&[&body[..], b"x"].concat()), "{body:?}");
        }
    }

    #[test]
    fn mechanisms_have_a_limit() {
        let many =
            |count| encoded(|out| encode_mechanisms(out, core::iter::repeat_n(SCRAM, count)));
        assert!(request(&many(MECHANISMS_MAX)).is_ok());
        assert!(request(&many(MECHANISMS_MAX + 1)).is_err());
    }

    #[test]
    fn answers_come_back() {
        let first = encoded(|out| encode_initial_response(out, SCRAM, b"n,,n=,r=a"));
        let first = initial_response(&first).unwrap();
        assert_eq!(first.mechanism, SCRAM);
        assert_eq!(first.message, Some(&b"n,,n=,r=a"[..]));
        assert_eq!(encoded(|out| encode_response(out, b"c=biws")), b"c=biws");
    }
}
