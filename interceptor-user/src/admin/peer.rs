//! Who is at the other end of a connection, and what they may ask.
//!
//! It owns the line between root and the members of the socket's group. It must not know who may
//! approve which request.

use std::io;

use nix::unistd::{Uid, User, geteuid};
use tokio::net::UnixStream;

use super::protocol::AdminRequest;
use crate::approval::{HostUser, Voter};

/// Somebody at the socket.
pub(super) struct Peer {
    /// Who they are.
    pub(super) voter: Voter,
}

impl Peer {
    /// Who connected, as the kernel says. Whose login it was is kept as well, so that `sudo` does not
    /// hide who approved.
    pub(super) async fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let (uid, pid) = (peer.uid(), peer.pid());
        let look_up = move || {
            let login = pid.and_then(login_uid).filter(|login| *login != uid);
            Voter {
                user: host_user(uid),
                login: login.map(host_user),
            }
        };
        // The look-up may ask a directory server.
        let voter = tokio::task::spawn_blocking(look_up).await?;
        Ok(Self { voter })
    }

    /// Root, or who runs the gateway.
    pub(super) fn is_owner(&self) -> bool {
        is_owner(self.voter.user.uid)
    }

    /// Whoever is let in by the socket's group sees what waits and answers it, and nothing else.
    ///
    /// # Errors
    /// If they may not ask this.
    pub(super) fn check(&self, request: &AdminRequest) -> Result<(), String> {
        let is_for_approvers = matches!(
            request,
            AdminRequest::Approvals | AdminRequest::Approval { .. } | AdminRequest::Resolve { .. }
        );
        if is_for_approvers || self.is_owner() {
            return Ok(());
        }
        let by = &self.voter;
        Err(format!(
            "{by} may use `interceptor approvals` only; run this as root"
        ))
    }
}

/// Whether a user is root, or runs the gateway.
pub(super) fn is_owner(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// A user with the name that the host has for it. It may block.
pub(super) fn host_user(uid: u32) -> HostUser {
    let name = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Some(user.name),
        Ok(None) | Err(_) => None,
    };
    HostUser { uid, name }
}

/// The login user that the kernel's audit keeps for a process; `sudo` and `su` do not change it.
fn login_uid(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    // All ones means that no login was recorded.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}
