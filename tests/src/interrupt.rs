//! Ctrl-C: a flag that every wait of the harness looks at, so that `Drop` gets to clean up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM make the harness's waits fail instead of ending the process.
/// A second signal ends it at once.
pub fn install() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first handler fires only if the flag was set before this signal.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag))
            .context("cannot handle signals")?;
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot handle signals")?;
    }
    Ok(())
}

/// Fails once a signal has come.
pub fn check() -> Result<()> {
    let come = INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed));
    ensure!(!come, "interrupted");
    Ok(())
}
