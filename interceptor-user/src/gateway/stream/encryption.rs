//! TLS between two buffers: what came in is decrypted, what goes out is encrypted.
//!
//! It owns one connection's state of TLS, and no socket. Its buffers hold something only while
//! something is under way: an idle connection keeps none.

use std::io;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{CommonState, Error, ProtocolVersion};

/// Bytes that are encrypted at a time: four full records.
const CHUNK_BYTES: usize = 64 << 10;
/// The most plain bytes in one record.
const RECORD_BYTES: usize = 16 << 10;
/// What a record adds to its bytes, at most, and one for a new key.
const RECORD_EXTRA_BYTES: usize = 64;
/// Bytes of a handshake that did not lead to anything yet. A chain of certificates is the most that
/// a peer has to say.
const INCOMPLETE_BYTES_MAX: usize = 128 << 10;

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// One connection's encryption.
pub(super) struct Encryption {
    side: Side,
    /// What came and is not decrypted yet: at most a part of a record, once it was looked at.
    incoming: BytesMut,
    /// What is encrypted and did not go out yet.
    outgoing: BytesMut,
    /// The peer said that nothing more comes.
    pub(super) is_over: bool,
    /// It failed: what is still to go out says why, and nothing else follows.
    failed: bool,
}

/// What to do with a connection that can take bytes.
enum Outbound<'a> {
    Nothing,
    Data(&'a [u8]),
    Farewell,
}

impl Encryption {
    /// The side that dials.
    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(connection))
    }

    /// The side that was dialled.
    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(connection))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            is_over: false,
            failed: false,
        }
    }

    fn state(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// The version that was agreed on.
    pub(super) fn version(&self) -> &'static str {
        match self.state().protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        }
    }

    /// The protocol that was agreed on.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// What the peer showed.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.state().peer_certificates()?.first()
    }

    /// Where what comes is put; [`Self::decrypt`] looks at it.
    pub(super) const fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// What is to go out, from the front.
    pub(super) const fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Gives back the room of buffers that are empty.
    pub(super) fn release(&mut self) {
        for buffer in [&mut self.incoming, &mut self.outgoing] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Decrypts all that came, and says in the handshake what there is to say.
    pub(super) fn decrypt(&mut self, plain: &mut BytesMut) -> io::Result<()> {
        let done = self.step(&Outbound::Nothing, plain);
        if self.incoming.len() > INCOMPLETE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too much came before the handshake was over",
            ));
        }
        done.map(drop)
    }

    /// Encrypts some of these bytes, and tells how many.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..CHUNK_BYTES).unwrap_or(bytes);
        if self.is_handshaking() || bytes.is_empty() {
            return Ok(0);
        }
        // All that came was decrypted when it came.
        let mut none = BytesMut::new();
        let taken = self.step(&Outbound::Data(bytes), &mut none)?;
        debug_assert!(none.is_empty());
        Ok(taken)
    }

    /// Says that nothing more goes out.
    pub(super) fn say_farewell(&mut self) -> io::Result<()> {
        if !self.is_handshaking() {
            self.step(&Outbound::Farewell, &mut BytesMut::new())?;
        }
        Ok(())
    }

    /// Goes on until something has to come from the peer. Returns how much of the data was taken.
    fn step(&mut self, outbound: &Outbound<'_>, plain: &mut BytesMut) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let flow = Flow {
            incoming,
            outgoing,
            plain,
            is_over: &mut self.is_over,
        };
        let done = match &mut self.side {
            Side::Client(connection) => flow.run(connection, outbound),
            Side::Server(connection) => flow.run(connection, outbound),
        };
        done.map_err(|error| {
            self.failed = true;
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }
}

/// Both sides' connections do the same.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Something of TLS's own is to be encoded.
    fn has_to_say(&self) -> bool;
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn has_to_say(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn has_to_say(&self) -> bool {
        CommonState::wants_write(self)
    }
}

/// The buffers of one step.
struct Flow<'a> {
    incoming: &'a mut BytesMut,
    outgoing: &'a mut BytesMut,
    plain: &'a mut BytesMut,
    is_over: &'a mut bool,
}

impl Flow<'_> {
    fn run(self, connection: &mut impl Process, outbound: &Outbound<'_>) -> Result<usize, Error> {
        let mut failed = None;
        loop {
            let UnbufferedStatus { mut discard, state } = connection.process(self.incoming);
            let mut done = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    put(self.outgoing, 0, |out| match data.encode(out) {
                        Ok(count) => Ok(Ok(count)),
                        Err(EncodeError::InsufficientSize(size)) => Ok(Err(size)),
                        Err(EncodeError::AlreadyEncoded) => Ok(Ok(0)),
                    })?;
                }
                // It is behind what is to go out already, and goes in that order.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => *self.is_over = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    done = Some(send(&mut traffic, self.outgoing, outbound)?);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => done = Some(0),
                // Early data is not offered; what rustls may have besides is unknown here.
                Ok(_) => return Err(Error::General("an unknown state of TLS".to_owned())),
                Err(error) => failed = Some(error),
            }
            self.incoming.advance(discard.min(self.incoming.len()));
            // The alert that tells the peer why is left to say. Nothing more may be read after that.
            match (failed.take(), done) {
                (Some(error), _) if !connection.has_to_say() => return Err(error),
                (Some(error), _) => failed = Some(error),
                (None, Some(taken)) => return Ok(taken),
                (None, None) => {}
            }
        }
    }
}

fn send<D>(
    traffic: &mut WriteTraffic<'_, D>,
    outgoing: &mut BytesMut,
    outbound: &Outbound<'_>,
) -> Result<usize, Error> {
    let as_size = |error| match error {
        EncryptError::InsufficientSize(size) => Ok(Err(size)),
        EncryptError::EncryptExhausted => Err(Error::EncryptError),
    };
    match outbound {
        Outbound::Nothing => Ok(0),
        Outbound::Data(bytes) => {
            let records = bytes.len() / RECORD_BYTES + 2;
            let room = bytes.len() + records * RECORD_EXTRA_BYTES;
            put(outgoing, room, |out| {
                traffic
                    .encrypt(bytes, out)
                    .map_or_else(as_size, |count| Ok(Ok(count)))
            })?;
            Ok(bytes.len())
        }
        Outbound::Farewell => {
            put(outgoing, RECORD_EXTRA_BYTES, |out| {
                traffic
                    .queue_close_notify(out)
                    .map_or_else(as_size, |count| Ok(Ok(count)))
            })?;
            Ok(0)
        }
    }
}

/// Makes room at the end of a buffer, and more if that is too little.
fn put(
    out: &mut BytesMut,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, InsufficientSizeError>, Error>,
) -> Result<(), Error> {
    let begin = out.len();
    loop {
        out.resize(begin + room, 0);
        let written = write(out.get_mut(begin..).unwrap_or_default());
        match written {
            Ok(Ok(count)) => {
                out.truncate(begin + count);
                return Ok(());
            }
            Ok(Err(size)) if size.required_size > room => room = size.required_size,
            Ok(Err(_)) => return Err(Error::General("a record has no size".to_owned())),
            Err(error) => {
                out.truncate(begin);
                return Err(error);
            }
        }
    }
}
