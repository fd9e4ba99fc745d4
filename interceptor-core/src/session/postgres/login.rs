//! What a login needs of the world outside the machine: random bytes, verifiers, passwords, and time to
//! hash them.
//!
//! It owns the questions and answers. It must not know where anything is kept. None of them prints
//! itself.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zeroize::Zeroizing;

pub use super::scram::{Derivation, ITERATIONS, Keys, NONCE_BYTES, Verifier};
use crate::policy::PasswordSource;

/// Bytes of a password. PostgreSQL's own clients send no more than 1,024 of them.
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// What the driver shall find out.
pub enum Question {
    /// Random bytes for this login and, where a file is named, the verifier that it has of the user.
    Begin {
        /// Where verifiers are.
        verifier_file: Option<Arc<str>>,
        /// The user.
        user: String,
    },
    /// A password of the gateway's own.
    Password {
        /// Where it is.
        source: PasswordSource,
        /// The server's user that it is for.
        user: String,
    },
    /// The keys of a password.
    Derive(Derivation),
}

/// The answer to a [`Question`].
pub enum Answer {
    /// To [`Question::Begin`].
    Begun {
        /// For the client's leg, and for the server's.
        random: [[u8; NONCE_BYTES]; 2],
        /// What the file has of the user; of one that it does not have, [`Verifier::mock`].
        verifier: Option<Verifier>,
    },
    /// To [`Question::Password`].
    Password(Zeroizing<Vec<u8>>),
    /// To [`Question::Derive`].
    Derived(Keys),
}
