//! Whose approval of a request counts, and what is still missing.
//!
//! It owns who is a member, who is one person, and who asked. It must not know how answers arrive
//! or who wins when several do at once.

use std::sync::Arc;

use interceptor_core::policy::{Approver, People, Requirement};

use super::{NotOpen, Request};

/// Somebody at the administration socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Their user, as the kernel says.
    pub user: HostUser,
    /// Whom they logged in as, if that is another user: `sudo` does not make a second person.
    pub login: Option<HostUser>,
}

/// A user of the gateway host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUser {
    /// Its number.
    pub uid: u32,
    /// The name that the host has for it.
    pub name: Option<String>,
}

impl HostUser {
    fn as_approver(&self) -> Approver<'_> {
        Approver {
            uid: self.uid,
            user: self.name.as_deref(),
        }
    }
}

impl std::fmt::Display for HostUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl std::fmt::Display for Voter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.user)?;
        match &self.login {
            Some(login) => write!(f, ", logged in as {login}"),
            None => Ok(()),
        }
    }
}

impl Voter {
    fn users(&self) -> impl Iterator<Item = &HostUser> {
        std::iter::once(&self.user).chain(&self.login)
    }

    fn has_uid(&self, uid: u32) -> bool {
        self.users().any(|user| user.uid == uid)
    }

    /// Everybody whom they may be.
    fn persons(&self, people: &People) -> Vec<Arc<str>> {
        let behind = |user: &HostUser| people.behind(&user.as_approver());
        self.users().flat_map(behind).collect()
    }

    /// Whether the two may be one person.
    fn may_be(&self, other: &Self, people: &People) -> bool {
        let others = other.persons(people);
        let is_other = |person: &Arc<str>| others.contains(person);
        other.users().any(|user| self.has_uid(user.uid))
            || self.persons(people).iter().any(is_other)
    }
}

/// An approval that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Whose.
    pub by: Voter,
    /// What they said.
    pub reason: String,
    /// When.
    pub time_unix_ns: u64,
}

/// Why somebody's answer to a request does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is over.
    #[error(transparent)]
    NotOpen(#[from] NotOpen),
    /// Others are asked.
    #[error(
        "request {number} needs {}, and {by} is no member; `interceptor approvals show {number}` \
         says who is", .required.join(" and ")
    )]
    NotAsked {
        /// Its number.
        number: u64,
        /// Who answered.
        by: String,
        /// Who is asked, as in `2 of dba`.
        required: Vec<String>,
    },
    /// They may not approve their own command.
    #[error("{by} asked for request {number} and may not approve it; somebody else has to")]
    Requester {
        /// Its number.
        number: u64,
        /// Who answered.
        by: String,
    },
    /// One person, one approval.
    #[error(
        "request {number} has the approval of {earlier} already, and nobody counts twice; {} \
         missing", .missing.join(" and ")
    )]
    Twice {
        /// Its number.
        number: u64,
        /// As whom they approved it.
        earlier: String,
        /// What is missing, as in `1 of dba`.
        missing: Vec<String>,
    },
}

impl Request {
    /// Whether the voter is asked at all.
    ///
    /// # Errors
    /// If only others are.
    pub(super) fn check_member(&self, voter: &Voter) -> Result<(), Refusal> {
        let requirements = &self.plan.requirements;
        let is_member = |requirement: &Requirement| counts(requirement, voter);
        if requirements.is_empty() || requirements.iter().any(is_member) {
            return Ok(());
        }
        Err(Refusal::NotAsked {
            number: self.number,
            by: voter.to_string(),
            required: self.plan.required(),
        })
    }

    /// Whether the voter may approve beside those who did, or are about to.
    ///
    /// # Errors
    /// If they may not.
    pub(super) fn check_approval<'a>(
        &self,
        voter: &Voter,
        requester: Option<&HostUser>,
        earlier: impl Iterator<Item = &'a Voter>,
        votes: &[Arc<Vote>],
    ) -> Result<(), Refusal> {
        if !self.plan.requester_may_approve && self.may_have_asked(voter, requester) {
            return Err(Refusal::Requester {
                number: self.number,
                by: voter.to_string(),
            });
        }
        let mut earlier = earlier.filter(|other| other.may_be(voter, &self.people));
        match earlier.next() {
            Some(earlier) => Err(Refusal::Twice {
                number: self.number,
                earlier: earlier.to_string(),
                missing: self.missing(votes),
            }),
            None => Ok(()),
        }
    }

    /// Whether the voter may be who sent the command: by the process's user and by the person, as
    /// far as these are known.
    fn may_have_asked(&self, voter: &Voter, requester: Option<&HostUser>) -> bool {
        let persons = voter.persons(&self.people);
        let behind = requester.map(|user| self.people.behind(&user.as_approver()));
        let mut asking = self.person.iter().chain(behind.iter().flatten());
        requester.is_some_and(|user| voter.has_uid(user.uid))
            || asking.any(|person| persons.contains(person))
    }

    /// What is missing with these votes, as in `1 of dba`; empty if nothing is.
    #[must_use]
    pub fn missing(&self, votes: &[Arc<Vote>]) -> Vec<String> {
        if self.plan.requirements.is_empty() && votes.is_empty() {
            return vec!["1 approval".to_owned()];
        }
        let requirements = self.plan.requirements.iter();
        let missing = requirements.filter_map(|requirement| {
            match requirement
                .quorum
                .saturating_sub(approvals(requirement, votes))
            {
                0 => None,
                count => Some(format!("{count} of {}", requirement.group.name)),
            }
        });
        missing.collect()
    }
}

/// How many of the votes count for a requirement.
#[must_use]
pub fn approvals(requirement: &Requirement, votes: &[Arc<Vote>]) -> u32 {
    let counted = votes.iter().filter(|vote| counts(requirement, &vote.by));
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}

/// Membership is by the user alone: becoming root by `sudo` makes nobody a member.
fn counts(requirement: &Requirement, voter: &Voter) -> bool {
    requirement.group.admits(&voter.user.as_approver())
}
