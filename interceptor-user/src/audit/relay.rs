//! The record of a gateway that was replaced: its events go to the successor, which has the log.
//!
//! It owns the stream between the two: a batch of events one way, an answer back once they are
//! durable, in turn. So the rule that an event is on the disk before its command goes holds across
//! two processes; if the stream breaks, nothing more is acknowledged.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use interceptor_core::audit::chain::EVENT_BYTES_MAX;
use interceptor_core::audit::event::Event;
use prost::Message;

use super::recorder::{AuditError, Pending, Recorder};
use super::writer::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// The longest frame: a batch of events, and what protobuf puts around each.
const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + EVENT_BYTES_MAX + BATCH_EVENTS_MAX * 16;

/// How long the successor may take for a batch, its disk included.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a batch waits for room in the successor's own queue before it is tried again.
const BACKLOG_WAIT: Duration = Duration::from_millis(5);

#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(bytes = "vec", repeated, tag = "1")]
    events: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Written {
    /// How many: all of the batch, unless it failed.
    #[prost(uint64, tag = "1")]
    count: u64,
    /// Why nothing more is taken; empty if all is well.
    #[prost(string, tag = "2")]
    error: String,
}

/// The replaced gateway's end: takes the place of its log.
pub struct Relay {
    stream: UnixStream,
}

impl Relay {
    /// Uses the stream whose other end the successor [serves](serve).
    ///
    /// # Errors
    /// If the socket is none.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        Ok(Self { stream })
    }

    /// Gives encoded events to the successor and returns when they are durable.
    pub(super) fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), String> {
        let events: Vec<Vec<u8>> = events.map(<[u8]>::to_vec).collect();
        let count = events.len() as u64;
        let gone = |error: io::Error| {
            format!("the gateway that replaced this one does not take it: {error}")
        };
        send(&mut self.stream, &Batch { events }).map_err(gone)?;
        let written: Written = receive(&mut self.stream)
            .and_then(|frame| frame.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .map_err(gone)?;
        if !written.error.is_empty() {
            return Err(written.error);
        }
        if written.count != count {
            return Err("the gateway that replaced this one acknowledged other events".to_owned());
        }
        Ok(())
    }
}

/// The successor's end: records what the replaced gateway sends until it hangs up. Blocks.
///
/// # Errors
/// If the stream breaks or carries what is no batch.
pub fn serve(mut stream: UnixStream, recorder: &Recorder) -> io::Result<()> {
    while let Some(batch) = receive::<Batch>(&mut stream)? {
        let written = match record(batch, recorder) {
            Ok(count) => Written {
                count,
                error: String::new(),
            },
            Err(error) => Written {
                count: 0,
                error: error.to_string(),
            },
        };
        send(&mut stream, &written)?;
        if !written.error.is_empty() {
            return Err(io::Error::other(written.error));
        }
    }
    Ok(())
}

fn record(batch: Batch, recorder: &Recorder) -> Result<u64, AuditError> {
    let pending: Vec<Pending> = batch
        .events
        .iter()
        .map(|event| queue(event, recorder))
        .collect();
    let mut count = 0;
    // The last first: with it all are durable, and the others do not wait.
    for pending in pending.into_iter().rev() {
        pending.wait()?;
        count += 1;
    }
    Ok(count)
}

/// A backlog here makes the replaced gateway wait, until its own queue is full and it says so.
fn queue(event: &[u8], recorder: &Recorder) -> Pending {
    loop {
        let pending = recorder.append_encoded(event);
        if !matches!(pending.refusal(), Some(AuditError::Backlog { .. })) {
            return pending;
        }
        std::thread::sleep(BACKLOG_WAIT);
    }
}

fn send(stream: &mut UnixStream, message: &impl Message) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&bytes)
}

/// A frame; `None` at the end of the stream.
fn receive<M: Message + Default + Checked>(stream: &mut UnixStream) -> io::Result<Option<M>> {
    let mut first = [0; 1];
    if stream.read(&mut first)? == 0 {
        return Ok(None);
    }
    let mut rest = [0; 3];
    stream.read_exact(&mut rest)?;
    let ([a], [b, c, d]) = (first, rest);
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes is above the limit of {FRAME_BYTES_MAX}"
        )));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    let message = M::decode(bytes.as_slice()).map_err(io::Error::other)?;
    message.check()?;
    Ok(Some(message))
}

/// What a frame has to be beside readable.
trait Checked {
    fn check(&self) -> io::Result<()>;
}

impl Checked for Batch {
    fn check(&self) -> io::Result<()> {
        if self.events.len() > BATCH_EVENTS_MAX {
            return Err(io::Error::other("a batch holds too many events"));
        }
        for event in &self.events {
            Event::decode(event.as_slice()).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Checked for Written {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use interceptor_core::audit::event::{GatewayNote, Kind};

    use super::*;
    use crate::audit::Store;

    fn event(detail: &str) -> Event {
        let detail = detail.to_owned();
        Event {
            time_unix_ns: 1,
            session: Vec::new(),
            kind: Some(Kind::GatewayStopped(GatewayNote { detail })),
        }
    }

    /// A gateway whose record goes to a successor: both recorders, and the successor's thread.
    struct Pair {
        old: Recorder,
        new: Recorder,
        serving: std::thread::JoinHandle<io::Result<()>>,
    }

    fn handed_over(directory: &std::path::Path) -> Pair {
        let (old, _) = Recorder::start(Store::open(directory).unwrap()).unwrap();
        old.note(event("before")).unwrap();
        old.suspend().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (new, _) = Recorder::start(Store::open(directory).unwrap()).unwrap();
        let log = new.clone();
        let serving = std::thread::spawn(move || serve(theirs, &log));
        old.resume(Relay::new(ours).unwrap().into());
        Pair { old, new, serving }
    }

    #[tokio::test]
    async fn what_two_gateways_record_is_one_log() {
        let directory = tempfile::tempdir().unwrap();
        let Pair { old, new, serving } = handed_over(directory.path());
        // Its number is the other's to know.
        assert_eq!(old.append(event("from the old")).await, Ok(0));
        assert_eq!(new.append(event("from the new")).await, Ok(3));
        old.note(event("noted by the old")).unwrap();
        assert_eq!(old.append(event("and the last")).await, Ok(0));
        old.close();
        drop(old);
        serving.join().unwrap().unwrap();
        assert_eq!(new.subscribe().borrow().sequence, 5);
    }

    #[tokio::test]
    async fn events_wait_while_nobody_has_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (recorder, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        recorder.suspend().unwrap();
        // The log is closed: another may have it.
        let mut store = Store::open(directory.path()).unwrap();
        let waiting = recorder.append(event("waits"));
        let other = event("of the other").encode_to_vec();
        store.append(vec![other], 0).unwrap();
        drop(store);
        recorder.resume(Store::open(directory.path()).unwrap().into());
        assert_eq!(waiting.await, Ok(2));
        assert!(recorder.reader().is_some());
    }

    #[tokio::test]
    async fn a_dead_successor_fails_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let (old, _) = Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
        old.suspend().unwrap();
        let waiting = old.append(event("waits"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        old.resume(Relay::new(ours).unwrap().into());
        assert!(matches!(waiting.await, Err(AuditError::Failed { .. })));
        assert!(old.is_failed());
    }

    #[test]
    fn garbage_is_not_recorded() {
        let directory = tempfile::tempdir().unwrap();
        for garbage in [
            &b"\xff\xff\xff\xff"[..],
            b"\0\0\0\x04\x0a\x02\xff\xff",
            b"\0\0\0\x09\x0a\x02",
        ] {
            let (recorder, writer) =
                Recorder::start(Store::open(directory.path()).unwrap()).unwrap();
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(garbage).unwrap();
            drop(ours);
            assert!(serve(theirs, &recorder).is_err(), "{garbage:?}");
            assert_eq!(recorder.subscribe().borrow().sequence, 0);
            drop(recorder);
            writer.join().unwrap();
        }
    }
}
