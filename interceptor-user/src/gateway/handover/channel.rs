//! Lines of JSON over a unix socket, with descriptors. Blocking, and each wait has a limit.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::Message;

/// The longest line.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The most descriptors with one line.
const DESCRIPTORS_MAX: usize = 8;

/// One end of the channel.
pub(super) struct Channel {
    stream: UnixStream,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Another handle for sending.
    pub(super) fn for_sending(&self) -> io::Result<Self> {
        Ok(Self::new(self.stream.try_clone()?))
    }

    pub(super) fn send(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights };
        let sent = sendmsg::<()>(
            self.stream.as_raw_fd(),
            &[IoSlice::new(&line)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        self.stream.write_all(line.get(sent..).unwrap_or_default())
    }

    /// The next line and the descriptors that came up to it; `None` if the other end is closed. Waits
    /// until `deadline`, or for ever.
    pub(super) fn receive(
        &mut self,
        deadline: Option<Instant>,
    ) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end.saturating_add(1));
                let line = std::mem::replace(&mut self.read, rest);
                let message = serde_json::from_slice(&line)?;
                return Ok(Some((message, std::mem::take(&mut self.descriptors))));
            }
            if self.read.len() > LINE_BYTES_MAX || self.descriptors.len() > DESCRIPTORS_MAX {
                return Err(io::Error::other("a line of the hand-over is too long"));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left < Duration::from_millis(1)) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(left)?;
            match self.read_some() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_some(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let mut control = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<()>(
            self.stream.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = message {
                // SAFETY: the kernel has just made these for this process; nobody else knows them.
                let owned = descriptors
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                self.descriptors.extend(owned);
            }
        }
        let count = received.bytes;
        self.read.extend(bytes.iter().take(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn lines_bring_their_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Channel::new(ours), Channel::new(theirs));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        ours.send(&Message::Attach, &[file.as_fd(), file.as_fd()])
            .unwrap();
        ours.send(&Message::Open, &[]).unwrap();
        drop(ours);
        let (first, descriptors) = theirs.receive(None).unwrap().unwrap();
        assert_eq!(first.name(), "attach");
        assert_eq!(descriptors.len(), 2);
        let mut copy = std::fs::File::from(descriptors.into_iter().next().unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let (second, none) = theirs.receive(None).unwrap().unwrap();
        assert_eq!(second.name(), "open");
        assert!(none.is_empty());
        assert!(theirs.receive(None).unwrap().is_none());
    }

    #[test]
    fn waiting_and_garbage_have_limits() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut theirs = Channel::new(theirs);
        let soon = Instant::now() + Duration::from_millis(20);
        let late = theirs.receive(Some(soon)).err().unwrap();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        ours.write_all(b"{\"cheese\":1}\n").unwrap();
        assert!(theirs.receive(None).is_err());
        let writing = std::thread::spawn(move || ours.write_all(&[b'x'; 2 * LINE_BYTES_MAX]));
        assert!(theirs.receive(None).is_err());
        drop(theirs);
        let _ = writing.join().unwrap();
    }
}
