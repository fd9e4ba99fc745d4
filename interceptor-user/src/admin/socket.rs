//! The administration socket's file, and its directory.
//!
//! It owns who can connect: root, and the members of one group if there is one. It must not know what
//! they may ask.

use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::place::Place;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another gateway answers on it.
    #[error("another gateway serves {0}; stop it, or give another --run-dir")]
    AlreadyServed(PathBuf),
    /// Something else is in its place.
    #[error("{0} is in the way and no socket; remove it, or give another --run-dir")]
    NotASocket(PathBuf),
    /// Others could replace the socket.
    #[error(
        "others than its owner can write to {0}; run `chmod go-w` on it, or give another --run-dir"
    )]
    OpenDirectory(PathBuf),
    /// The group could not reach the socket.
    #[error(
        "the group {group} cannot enter {directory}; run `chgrp {group} {directory}` and `chmod 750 \
         {directory}`, or give another --run-dir"
    )]
    ClosedDirectory {
        /// The run directory.
        directory: PathBuf,
        /// The socket's group.
        group: SocketGroup,
    },
    /// The system refused.
    #[error(
        "the administration socket {path}: {source}; check that the directory can be written to"
    )]
    System {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The group whose members may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketGroup {
    name: String,
    gid: u32,
}

impl SocketGroup {
    /// The group of this name or number.
    ///
    /// # Errors
    /// If the host has none of this name.
    pub fn find(name: &str) -> Result<Self, String> {
        let found = nix::unistd::Group::from_name(name).map_err(|error| error.to_string())?;
        let gid = found.map(|group| group.gid.as_raw());
        let gid = gid.or_else(|| name.parse().ok());
        let gid = gid.ok_or_else(|| format!("there is no such group; make it: groupadd {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            gid,
        })
    }
}

impl std::fmt::Display for SocketGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The listening socket. Its file goes with it.
pub struct Socket {
    listener: UnixListener,
    place: Place,
}

impl Socket {
    /// Makes the socket where no other is.
    ///
    /// # Errors
    /// If it cannot be made, or another gateway answers there.
    pub fn bind(path: &Path, group: Option<&SocketGroup>) -> Result<Self, AdminError> {
        remove_stale(path)?;
        Self::replace(path, group)
    }

    /// Makes the socket in the place of another, which keeps what it has accepted.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn replace(path: &Path, group: Option<&SocketGroup>) -> Result<Self, AdminError> {
        let listener = bind(path, group)?;
        let place = Place::new(path);
        Ok(Self { listener, place })
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// If the system has none for us.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // If it is gone already, that is what was wanted.
        let _ = std::fs::remove_file(self.place.path());
    }
}

/// Makes the socket so that nobody but its owner and its group can ever connect: the directory is
/// closed to others, and the mode is set before the socket listens. It gets its name last: where the
/// file is, somebody answers.
fn bind(path: &Path, group: Option<&SocketGroup>) -> Result<UnixListener, AdminError> {
    let system = |source| AdminError::System {
        path: path.to_owned(),
        source,
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(system)?;
    if std::fs::metadata(directory).map_err(system)?.mode() & 0o022 != 0 {
        return Err(AdminError::OpenDirectory(directory.to_owned()));
    }
    if let Some(group) = group {
        let_in(directory, group)?;
    }
    let unready = path.with_extension("new");
    remove_stale(&unready)?;
    let socket =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).map_err(system)?;
    let address = socket2::SockAddr::unix(&unready).map_err(system)?;
    socket.bind(&address).map_err(system)?;
    let mode = match group {
        Some(group) => {
            chown(&unready, None, Some(group.gid)).map_err(system)?;
            0o660
        }
        None => 0o600,
    };
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(mode)).map_err(system)?;
    socket.listen(128).map_err(system)?;
    socket.set_nonblocking(true).map_err(system)?;
    let listener = UnixListener::from_std(socket.into()).map_err(system)?;
    std::fs::rename(&unready, path).map_err(system)?;
    Ok(listener)
}

/// Opens the directory to the group, if it was its owner's alone. One that others can enter already is
/// left as it is: it may hold more than sockets.
fn let_in(directory: &Path, group: &SocketGroup) -> Result<(), AdminError> {
    let system = |source| AdminError::System {
        path: directory.to_owned(),
        source,
    };
    let found = std::fs::metadata(directory).map_err(system)?;
    let mode = found.mode();
    if mode & 0o077 == 0 {
        chown(directory, None, Some(group.gid)).map_err(system)?;
        let group_enters = std::fs::Permissions::from_mode(0o750);
        return std::fs::set_permissions(directory, group_enters).map_err(system);
    }
    let enters = mode & 0o005 == 0o005 || (found.gid() == group.gid && mode & 0o050 == 0o050);
    if enters {
        return Ok(());
    }
    Err(AdminError::ClosedDirectory {
        directory: directory.to_owned(),
        group: group.clone(),
    })
}

/// Removes a socket that a dead gateway left, and nothing else.
fn remove_stale(path: &Path) -> Result<(), AdminError> {
    let system = |source| AdminError::System {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(system)
        }
        Err(error) => Err(system(error)),
        Ok(_) => Err(AdminError::AlreadyServed(path.to_owned())),
    }
}
