//! Whether the token is well: found out on a schedule, with a session that serves nothing else.
//!
//! The result of a decryption never tells. A broken token and a forged ciphertext both give a
//! random content key, and a stranger must not be able to make us restart.

use std::time::Duration;

use chancery_host::process::Stop;
use chancery_token::{Decrypt, Key, Respond, Session, TokenError};

/// How often the keys are tested.
const PERIOD: Duration = Duration::from_secs(30);

/// Tests both keys until the stop. Ends the process if a test fails.
pub(crate) fn watch(
    mut session: Session,
    decryption: &Key<Decrypt>,
    signing: &Key<Respond>,
    stop: &Stop,
) {
    while !stop.wait(PERIOD) {
        let tested = session
            .self_test(decryption)
            .and_then(|()| session.self_test(signing))
            .and_then(|()| session.renew());
        if let Err(error) = tested {
            end(&error, "the token failed its self-test");
        }
    }
}

/// Ends the process, so that its supervisor starts it with a freshly loaded module, a new login
/// and keys that were tested again. Not by exit: the destructors of a module that has lost its token
/// can hang, and run while other threads are inside it.
pub(crate) fn end(error: &TokenError, what: &str) -> ! {
    tracing::error!(%error, "{what}; aborting, to be started anew");
    std::process::abort()
}
