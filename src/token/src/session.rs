//! A session: one worker's line to the token.

use core::fmt;
use std::sync::Arc;

use cryptoki::error::Error as CryptokiError;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session as RawSession;

use crate::context::Context;
use crate::error::{Class, TokenError};
use crate::key::{Key, Record};
use crate::role::Role;
use crate::watch::Gauge;

/// A session, owned by one worker. After an error it is closed and the next call opens another,
/// since a failed operation may leave it stuck.
pub struct Session {
    context: Arc<Context>,
    open: Option<RawSession>,
    gauge: Gauge,
}

impl Session {
    pub(crate) fn open(context: Arc<Context>) -> Result<Self, TokenError> {
        let gauge = context.watch.gauge();
        let mut session = Self {
            context,
            open: None,
            gauge,
        };
        session.renew()?;
        Ok(session)
    }

    /// Closes the session and opens another. An RA calls this after every reply, whatever became
    /// of it, so that nothing about a decryption shows in how its session is handled.
    ///
    /// # Errors
    /// [`TokenError`] if the token grants no session.
    pub fn renew(&mut self) -> Result<(), TokenError> {
        let _call = self.gauge.start();
        self.open = None;
        let session = self
            .context
            .open_session()
            .map_err(|error| TokenError::call(&self.context.name, error))?;
        self.open = Some(session);
        Ok(())
    }

    /// `length` random octets: the token's, exclusive-ored with the operating system's, so that
    /// either being sound is enough.
    ///
    /// # Errors
    /// [`TokenError`] if either generator fails.
    pub fn random(&mut self, length: usize) -> Result<Vec<u8>, TokenError> {
        let mut random = vec![0; length];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| TokenError::Random)?;
        let token = self.with_retry(|session| {
            let mut octets = vec![0; length];
            session.generate_random_slice(&mut octets)?;
            Ok(octets)
        })?;
        // A generator that is stuck at zero reports no error.
        if length >= 16 && token.iter().all(|octet| *octet == 0) {
            return Err(TokenError::Malformed {
                token: self.context.name.clone(),
                what: "random octets",
            });
        }
        for (octet, other) in random.iter_mut().zip(token) {
            *octet ^= other;
        }
        Ok(random)
    }

    /// Tests a key as [`Token::key`](crate::Token::key) did, to be called on a schedule: this, and
    /// never the result of a decryption, tells whether the token is well.
    ///
    /// # Errors
    /// [`TokenError`]. The first failure is confirmed on a new session, with the key found again.
    pub fn self_test<R: Role>(&mut self, key: &Key<R>) -> Result<(), TokenError> {
        let record = key.record();
        self.own(record)?;
        let tested =
            self.attempt(|session| record.identity().pairwise_test(session, record.handle()));
        match tested {
            Ok(()) => Ok(()),
            Err(_) => self.find_again(record),
        }
    }

    /// Runs an operation that may be repeated: on a new session if the session is spent, with a
    /// fresh handle if the handle is stale, and then once more.
    pub(crate) fn run<T>(
        &mut self,
        record: &Record,
        operation: impl Fn(&RawSession, ObjectHandle) -> Result<T, CryptokiError>,
    ) -> Result<T, TokenError> {
        self.own(record)?;
        let first = match self.attempt(|session| operation(session, record.handle())) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match Class::of(&first) {
            Class::Session => {}
            Class::Handle => self.find_again(record)?,
            Class::Request | Class::Login | Class::Fatal | Class::Token => {
                return Err(TokenError::call(&self.context.name, first));
            }
        }
        self.attempt(|session| operation(session, record.handle()))
            .map_err(|error| TokenError::call_after_retry(&self.context.name, error))
    }

    /// As [`Session::run`] for an operation without a key.
    fn with_retry<T>(
        &mut self,
        operation: impl Fn(&RawSession) -> Result<T, CryptokiError>,
    ) -> Result<T, TokenError> {
        match self.attempt(&operation) {
            Err(error) if Class::of(&error) == Class::Session => self
                .attempt(&operation)
                .map_err(|error| TokenError::call_after_retry(&self.context.name, error)),
            other => other.map_err(|error| TokenError::call(&self.context.name, error)),
        }
    }

    fn find_again(&mut self, record: &Record) -> Result<(), TokenError> {
        let handle = self
            .attempt(|session| record.identity().locate(session))
            .map_err(|fault| TokenError::from(record.error(fault)))?;
        record.set_handle(handle);
        Ok(())
    }

    fn own(&self, record: &Record) -> Result<(), TokenError> {
        if record.context().is_same_token(&self.context) {
            return Ok(());
        }
        Err(TokenError::OtherToken {
            key: record.context().name.clone(),
            session: self.context.name.clone(),
        })
    }

    /// Runs `operation` once, under the eye of the watch, and closes the session if it fails.
    pub(crate) fn attempt<T, E: From<CryptokiError>>(
        &mut self,
        operation: impl FnOnce(&RawSession) -> Result<T, E>,
    ) -> Result<T, E> {
        let _call = self.gauge.start();
        let session = match self.open.take() {
            Some(session) => session,
            None => self.context.open_session()?,
        };
        let outcome = operation(&session);
        if outcome.is_ok() {
            self.open = Some(session);
        }
        outcome
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.context.name).finish()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closing is a call of the module, too, and may hang.
        let _call = self.gauge.start();
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::Attribute;

    use super::*;
    use crate::common::Fixture;
    use crate::{Decrypt, Issue, KeyAlgorithm, KeyFault, KeyTransport};

    /// What a failed operation of some tokens leaves behind.
    #[test]
    fn a_stuck_session_is_left_for_another() {
        let fixture = Fixture::new();
        let token = fixture.token();
        let ceremony = fixture.ceremony();
        let pinned = ceremony
            .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
            .unwrap();
        let issue = token.key::<Issue>(&pinned).unwrap();
        let pinned = ceremony
            .generate_pair::<Decrypt>("ra", KeyAlgorithm::Rsa2048)
            .unwrap();
        let decrypt = token.key::<Decrypt>(&pinned).unwrap();
        let mut session = token.session().unwrap();
        let stick = |session: &mut Session| {
            let handle = issue.record().handle();
            session
                .attempt(|raw| raw.sign_init(&Mechanism::Ecdsa, handle))
                .unwrap();
            let again = session
                .open
                .as_ref()
                .unwrap()
                .sign_init(&Mechanism::Ecdsa, handle);
            assert_eq!(Class::of(&again.unwrap_err()), Class::Session);
        };

        stick(&mut session);
        issue.issue(&mut session, b"text").unwrap();

        stick(&mut session);
        let public = decrypt.record().identity().public_key().unwrap();
        let encrypted = public.encrypt(KeyTransport::Pkcs1v15, &[7; 16]).unwrap();
        let decrypted = decrypt.decrypt(&mut session, KeyTransport::Pkcs1v15, &encrypted, 16);
        assert_eq!(decrypted.expose(), [7; 16]);

        stick(&mut session);
        session.self_test(&issue).unwrap();
    }

    #[test]
    fn a_stale_handle_is_looked_up_again() {
        let fixture = Fixture::new();
        let token = fixture.token();
        let pinned = fixture
            .ceremony()
            .generate_pair::<Decrypt>("ra", KeyAlgorithm::Rsa2048)
            .unwrap();
        let key = token.key::<Decrypt>(&pinned).unwrap();
        let mut session = token.session().unwrap();
        let (good, stale) = (key.record().handle(), stale_handle(&fixture));
        assert_ne!(good, stale);

        let public = key.record().identity().public_key().unwrap();
        let encrypted = public.encrypt(KeyTransport::OaepSha1, &[7; 32]).unwrap();
        key.record().set_handle(stale);
        let decrypted = key.decrypt(&mut session, KeyTransport::OaepSha1, &encrypted, 32);
        assert_eq!(decrypted.expose(), [7; 32]);
        assert_eq!(key.record().handle(), good);

        key.record().set_handle(stale);
        session.self_test(&key).unwrap();
        assert_eq!(key.record().handle(), good);
    }

    #[test]
    fn another_key_behind_a_stale_handle_is_refused() {
        let fixture = Fixture::new();
        let token = fixture.token();
        let ceremony = fixture.ceremony();
        let ours = ceremony
            .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
            .unwrap();
        let other = ceremony
            .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
            .unwrap();
        let key = token.key::<Issue>(&ours).unwrap();
        let mut session = token.session().unwrap();

        // Ours goes, and the other takes its identifier.
        let writer = fixture.raw();
        for object in writer
            .find_objects(&[Attribute::Id(ours.id.clone())])
            .unwrap()
        {
            writer.destroy_object(object).unwrap();
        }
        for object in writer.find_objects(&[Attribute::Id(other.id)]).unwrap() {
            writer
                .update_attributes(object, &[Attribute::Id(ours.id.clone())])
                .unwrap();
        }
        let error = key.issue(&mut session, b"text").unwrap_err();
        let TokenError::Key(refusal) = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(refusal.fault, KeyFault::PublicKeyDiffers),
            "{error}"
        );
        assert_eq!(error.class(), Class::Fatal);
    }

    /// The handle of an object that is gone.
    fn stale_handle(fixture: &Fixture) -> ObjectHandle {
        let writer = fixture.raw();
        let template = [Attribute::Token(false), Attribute::ValueLen(16.into())];
        let object = writer
            .generate_key(&Mechanism::AesKeyGen, &template)
            .unwrap();
        writer.destroy_object(object).unwrap();
        object
    }
}
