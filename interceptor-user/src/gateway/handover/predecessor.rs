//! The new process's part: it takes over step by step, and says so when it cannot.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::watch;

use super::channel::Channel;
use super::{Message, OPEN_MAX, PREPARE_MAX, TAKE_OVER_MAX, VARIABLE};
use crate::audit::{Counter, Recorder, relay};

/// The gateway that this process replaces.
pub(in crate::gateway) struct Predecessor {
    channel: Channel,
    deadline: Instant,
    /// Its process id.
    pub(in crate::gateway) pid: i32,
    /// Its version.
    pub(in crate::gateway) version: String,
    hash_key: [u8; 32],
    draining: usize,
    listener: Option<OwnedFd>,
    records: Option<OwnedFd>,
    counter: Option<OwnedFd>,
}

impl Predecessor {
    /// The gateway that started this process to be replaced; `None` if somebody else did. From then on
    /// standard error is that gateway's, and standard input is closed.
    pub(in crate::gateway) fn from_environment() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let deadline = Instant::now() + PREPARE_MAX + TAKE_OVER_MAX + OPEN_MAX;
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let peer = getsockopt(&stream, PeerCredentials)
            .with_context(|| format!("{VARIABLE} is set, but not by a gateway; unset it"))?;
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let mut channel = Channel::new(stream);
        let Some((message, descriptors)) = channel.receive(Some(deadline))? else {
            bail!("the gateway that is to be replaced is gone");
        };
        let Message::Offer {
            version,
            hash_key,
            draining,
        } = message
        else {
            bail!("the gateway that is to be replaced offers nothing");
        };
        let [stderr, listener, records, counter] = <[OwnedFd; 4]>::try_from(descriptors)
            .map_err(|_| anyhow!("the gateway that is to be replaced, version {version}, offers other things; stop it, then start this one"))?;
        nix::unistd::dup2_stderr(stderr)?;
        let mut key = [0; 32];
        hex::decode_to_slice(hash_key, &mut key)
            .map_err(|_| anyhow!("the gateway that is to be replaced offers a key that is none"))?;
        Ok(Some(Self {
            channel,
            deadline,
            pid: peer.pid(),
            version,
            hash_key: key,
            draining,
            listener: Some(listener),
            records: Some(records),
            counter: Some(counter),
        }))
    }

    /// The key of its `hash` masks.
    pub(in crate::gateway) const fn hash_key(&self) -> [u8; 32] {
        self.hash_key
    }

    /// Says that all is prepared. When this returns, the other accepts no more and leaves the kernel
    /// plane alone; the listening socket is ours, too.
    pub(in crate::gateway) fn listener(&mut self) -> io::Result<TcpListener> {
        self.ask(&Message::Prepared, |answer| {
            matches!(answer, Message::Attach)
        })?;
        let listener = self.listener.take();
        listener
            .map(TcpListener::from)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Says that the plane is taken over. When this returns, the other has closed the log.
    pub(in crate::gateway) fn attached(&mut self) -> anyhow::Result<Counter> {
        self.ask(&Message::Attached, |answer| matches!(answer, Message::Open))?;
        let counter = self.counter.take().context("there is no counter")?;
        Ok(Counter::inherited(counter)?)
    }

    /// Records what the other sends from now on, and says that this process serves. When this
    /// returns, the gateway is ours.
    pub(in crate::gateway) fn serving(&mut self, recorder: &Recorder) -> anyhow::Result<Elder> {
        let records = self.records.take().context("there is no record stream")?;
        let stream = UnixStream::from(records);
        let log = recorder.clone();
        let (ended, watch) = watch::channel(false);
        let pid = self.pid;
        std::thread::Builder::new()
            .name("audit-relay".to_owned())
            .spawn(move || {
                if let Err(error) = relay::serve(stream, &log) {
                    tracing::warn!(pid, %error, "the record of the replaced gateway broke off");
                }
                // Nobody may be left to hear it.
                let _ = ended.send(true);
            })?;
        self.ask(&Message::Serving, |answer| matches!(answer, Message::Yours))?;
        Ok(Elder {
            channel: self.channel.for_sending()?,
            draining: self.draining,
            ended: watch,
        })
    }

    /// Tells the other why it has to go on itself.
    pub(in crate::gateway) fn failed(&mut self, error: &anyhow::Error) {
        let error = format!("{error:#}");
        // If it is gone, there is nobody to tell.
        let _ = self.channel.send(&Message::Failed { error }, &[]);
    }

    fn ask(&mut self, message: &Message, is_right: fn(&Message) -> bool) -> io::Result<()> {
        self.channel.send(message, &[])?;
        match self.channel.receive(Some(self.deadline))? {
            Some((answer, _)) if is_right(&answer) => Ok(()),
            Some((answer, _)) => Err(io::Error::other(format!(
                "it answered {} with {}",
                message.name(),
                answer.name()
            ))),
            None => Err(io::Error::other("it is gone")),
        }
    }
}

/// A gateway that was replaced and has sessions left.
pub(in crate::gateway) struct Elder {
    channel: Channel,
    draining: usize,
    ended: watch::Receiver<bool>,
}

impl Elder {
    /// How many processes drain, this one and those before it.
    pub(in crate::gateway) fn draining(&self) -> usize {
        if *self.ended.borrow() {
            0
        } else {
            self.draining
        }
    }

    /// Turns true when the last of them has ended.
    pub(in crate::gateway) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Lets it read the policy anew.
    pub(in crate::gateway) fn reload(&mut self) {
        self.tell(&Message::Reload);
    }

    /// Lets it end its sessions as a gateway that is stopped.
    pub(in crate::gateway) fn stop(&mut self) {
        self.tell(&Message::Stop);
    }

    fn tell(&mut self, message: &Message) {
        if !*self.ended.borrow()
            && let Err(error) = self.channel.send(message, &[])
        {
            tracing::debug!(%error, "the replaced gateway does not listen any more");
        }
    }
}
