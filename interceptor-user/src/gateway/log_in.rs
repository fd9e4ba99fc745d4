//! What a session's login asks of the world outside, on its way.
//!
//! It owns that the session hears of it. Why something is not at hand goes to the log, not to the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use interceptor_core::session::postgres::Session;
use interceptor_core::session::postgres::login::{Answer, Question};

use crate::credentials::{CredentialError, Credentials};

/// An answer on its way.
pub(super) type Asking = Pin<Box<dyn Future<Output = Found> + Send>>;
/// What came of it.
pub(super) type Found = Result<Answer, CredentialError>;

pub(super) fn ask(credentials: &Arc<Credentials>, session: &Session, question: Question) -> Asking {
    let target = session.target().name.clone();
    Box::pin(Arc::clone(credentials).answer(question, target))
}

pub(super) fn found(session: &mut Session, found: Found) {
    match found {
        Ok(answer) => session.handle_login(answer),
        Err(error) => {
            let target = &session.target().name;
            tracing::error!(target_name = %target, %error, "what a login needs is not at hand");
            session.handle_no_login(&error.to_string());
        }
    }
}
