//! The old process's part: it starts the new one, gives step by step, and takes everything back if the
//! new one fails before it serves.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, RwLock, Weak};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::channel::Channel;
use super::{DRAINING_MAX, Message, OPEN_MAX, PREPARE_MAX, TAKE_OVER_MAX, VARIABLE};
use crate::admin::Place;
use crate::audit::relay::Relay;
use crate::audit::{Recorder, Store};
use crate::gateway::drive::Stage;
use crate::kernel::Plane;

/// How much of what a new process writes to standard error is kept for who asked.
const WORDS_BYTES_MAX: u64 = 4096;

/// How long a new process may take to end once it has closed the channel.
const END_WAIT: Duration = Duration::from_secs(1);

/// Why the gateway goes on as it is.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum HandoverError {
    /// The file cannot be run.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// Its path.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It said why not.
    #[error("the new process refused: {0}")]
    Refused(String),
    /// It ended without a word of the protocol.
    #[error("the new process ended before it served ({status}){words}")]
    Ended {
        /// How.
        status: String,
        /// What it wrote, if anything.
        words: String,
    },
    /// It said something unexpected, or nothing in time.
    #[error("the new process did not take over: {0}")]
    Channel(io::Error),
    /// The old one's own part failed.
    #[error("{0}")]
    Own(String),
    /// Too many drain already.
    #[error(
        "{DRAINING_MAX} replaced processes have sessions left, which is the limit; wait for them, or stop and start"
    )]
    TooMany,
}

/// How this process was started, and so its successor.
pub(in crate::gateway) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Call it at the start: later the file may be another, or gone.
    pub(in crate::gateway) fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let typed = PathBuf::from(arguments.next().unwrap_or_default());
        // With a slash in it, it is the path itself, through links that may point elsewhere by
        // then. Without one, it was found by PATH.
        let path = if typed.components().count() > 1 {
            std::path::absolute(typed)?
        } else {
            std::env::current_exe()?
        };
        let arguments = arguments.collect();
        Ok(Self { path, arguments })
    }
}

/// What the old process has to give.
pub(in crate::gateway) struct Old {
    pub(in crate::gateway) program: Arc<Program>,
    pub(in crate::gateway) hash_key: [u8; 32],
    pub(in crate::gateway) recorder: Recorder,
    /// The directory of the log.
    pub(in crate::gateway) log: PathBuf,
    pub(in crate::gateway) plane: Arc<RwLock<Plane>>,
    pub(in crate::gateway) stage: watch::Sender<Stage>,
    pub(in crate::gateway) listener: Weak<TcpListener>,
    pub(in crate::gateway) place: Place,
    /// How many processes drain already.
    pub(in crate::gateway) draining: usize,
}

/// What a successor tells the one that drains.
pub(in crate::gateway) enum Word {
    /// Read the policy anew.
    Reload,
    /// The gateway stops.
    Stop,
}

/// The process that has taken over.
pub(in crate::gateway) struct Successor {
    /// Its process id.
    pub(in crate::gateway) pid: u32,
    /// What it says; the end of it is the process's end.
    pub(in crate::gateway) words: mpsc::Receiver<Word>,
}

/// Starts the successor and hands over. Blocks, for [`PREPARE_MAX`], [`TAKE_OVER_MAX`] and [`OPEN_MAX`] at
/// most. After an error everything is as it was.
pub(in crate::gateway) fn hand_over(old: &Old) -> Result<Successor, HandoverError> {
    if old.draining >= DRAINING_MAX {
        return Err(HandoverError::TooMany);
    }
    let listener = old
        .listener
        .upgrade()
        .and_then(|listener| listener.as_fd().try_clone_to_owned().ok())
        .ok_or_else(|| HandoverError::Own("this gateway accepts no more".to_owned()))?;
    let mut new = New::start(&old.program)?;
    let mut given = Given::default();
    match give(old, &mut new, &listener, &mut given) {
        Ok(()) => Ok(Successor {
            pid: new.child.id(),
            words: listen(new.channel),
        }),
        Err(error) => {
            let error = new.end(error);
            take_back(old, &given, &listener);
            Err(error)
        }
    }
}

/// What was given before something failed.
#[derive(Default)]
struct Given {
    plane: bool,
    log: bool,
}

fn give(
    old: &Old,
    new: &mut New,
    listener: &OwnedFd,
    given: &mut Given,
) -> Result<(), HandoverError> {
    let own = |error: &dyn std::fmt::Display| HandoverError::Own(error.to_string());
    let (records, theirs) = UnixStream::pair().map_err(HandoverError::Channel)?;
    let counter = old.recorder.counter().map_err(HandoverError::Channel)?;
    let offer = Message::Offer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hash_key: hex::encode(old.hash_key),
        draining: old.draining.saturating_add(1),
    };
    let stderr = io::stderr();
    let descriptors = [
        stderr.as_fd(),
        listener.as_fd(),
        theirs.as_fd(),
        counter.as_fd(),
    ];
    new.send(&offer, &descriptors)?;
    // Only the successor may hold its end: when it dies, ours has to break.
    drop(theirs);
    new.expect(Instant::now() + PREPARE_MAX, |message| {
        matches!(message, Message::Prepared)
    })?;

    given.plane = true;
    old.stage.send_replace(Stage::HandingOver);
    old.plane
        .read()
        .map_err(|_| own(&"the kernel plane is in an unknown state"))?
        .stand_down();
    new.send(&Message::Attach, &[])?;
    new.expect(Instant::now() + TAKE_OVER_MAX, |message| {
        matches!(message, Message::Attached)
    })?;

    old.place.step_aside().map_err(|error| own(&error))?;
    old.recorder.suspend().map_err(|error| own(&error))?;
    given.log = true;
    new.send(&Message::Open, &[])?;
    new.expect(Instant::now() + OPEN_MAX, |message| {
        matches!(message, Message::Serving)
    })?;

    let relay = Relay::new(records).map_err(HandoverError::Channel)?;
    notify(&[NotifyState::MainPid(new.child.id())]);
    old.recorder.resume(relay.into());
    // From here on the gateway is the successor's. If it dies now, that is as if this one had:
    // nothing is recorded any more, and so nothing goes to a target.
    if let Err(error) = new.send(&Message::Yours, &[]) {
        tracing::error!(%error, "the process that has taken over is gone");
    }
    Ok(())
}

/// Goes on as if nothing had been given. The new process is dead.
fn take_back(old: &Old, given: &Given, listener: &OwnedFd) {
    if given.log {
        match Store::open_with(&old.log, old.recorder.durability()) {
            Ok(store) => old.recorder.resume(store.into()),
            Err(error) => {
                tracing::error!(%error, "the log cannot be opened again: commands are refused from now on");
                old.recorder.abandon(&error.to_string());
            }
        }
    }
    if let Err(error) = old.place.step_back() {
        tracing::error!(%error, "the administration socket is not in its place");
    }
    if !given.plane {
        return;
    }
    let standing = match old.plane.read() {
        Ok(plane) => plane
            .stand_up(listener.as_fd())
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = standing {
        tracing::error!(%error, "the kernel plane is not as it was; it is tried again when drift is looked for");
    }
    old.stage.send_replace(Stage::Serving);
}

/// The new process.
struct New {
    child: Child,
    channel: Channel,
    /// What it wrote to standard error before it had ours.
    words: std_mpsc::Receiver<String>,
}

impl New {
    fn start(program: &Program) -> Result<Self, HandoverError> {
        let failed = |source| HandoverError::Start {
            program: program.path.display().to_string(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .env(VARIABLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (written, words) = std_mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                let mut words = Vec::new();
                // What cannot be read is not shown.
                let _ = stderr.take(WORDS_BYTES_MAX).read_to_end(&mut words);
                written.send(String::from_utf8_lossy(&words).trim().to_owned())
            });
        }
        tracing::info!(program = %program.path.display(), pid = child.id(), "a new process is to take over");
        let channel = Channel::new(ours);
        Ok(Self {
            child,
            channel,
            words,
        })
    }

    fn send(
        &mut self,
        message: &Message,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        let sent = self.channel.send(message, descriptors);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
            _ => HandoverError::Channel(error),
        })
    }

    fn expect(
        &mut self,
        deadline: Instant,
        is_right: fn(&Message) -> bool,
    ) -> Result<(), HandoverError> {
        match self.channel.receive(Some(deadline)) {
            Ok(Some((message, _))) if is_right(&message) => Ok(()),
            Ok(Some((Message::Failed { error }, _))) => Err(HandoverError::Refused(error)),
            Ok(Some((message, _))) => Err(HandoverError::Channel(io::Error::other(format!(
                "it said {}",
                message.name()
            )))),
            Ok(None) => Err(gone()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(HandoverError::Channel(io::Error::other("it took too long")))
            }
            Err(error) => Err(HandoverError::Channel(error)),
        }
    }

    /// Ends the process, whatever it does, and says why.
    fn end(mut self, error: HandoverError) -> HandoverError {
        let is_gone = matches!(error, HandoverError::Ended { .. });
        let until = Instant::now() + END_WAIT;
        // Often it is ending itself, and then its status says more than ours.
        while is_gone && Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if !is_gone {
            return error;
        }
        // Children of its own may still hold the pipe.
        let words = self.words.recv_timeout(END_WAIT).ok();
        let words = words
            .filter(|words| !words.is_empty())
            .map(|words| format!(": {words}"))
            .unwrap_or_default();
        HandoverError::Ended { status, words }
    }
}

/// The channel broke; how the process ended is found out by whoever ends it.
const fn gone() -> HandoverError {
    HandoverError::Ended {
        status: String::new(),
        words: String::new(),
    }
}

/// A thread that hears what the successor says, until it ends.
fn listen(mut channel: Channel) -> mpsc::Receiver<Word> {
    let (sender, words) = mpsc::channel(1);
    let heard = move || {
        while let Ok(Some((message, _))) = channel.receive(None) {
            let word = match message {
                Message::Reload => Word::Reload,
                Message::Stop => Word::Stop,
                _ => continue,
            };
            if sender.blocking_send(word).is_err() {
                break;
            }
        }
    };
    let started = std::thread::Builder::new()
        .name("successor".to_owned())
        .spawn(heard);
    if let Err(error) = started {
        tracing::error!(%error, "the successor cannot be heard");
    }
    words
}

/// Tells the service manager, if there is one.
pub(in crate::gateway) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
