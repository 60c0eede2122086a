//! A lane that has a connection to itself.

use std::future::Future;

use super::{
    Connect,
    dial::{Dialer, Wire},
    dispatch::Lane,
    error::CallError,
};

/// What is spoken on a connection.
pub(super) trait Talk: Clone + Send + 'static {
    /// A connection over which the protocol is spoken.
    type Session: Send;

    /// Whatever precedes the first request.
    fn open(&mut self, wire: Wire) -> impl Future<Output = Result<Self::Session, CallError>> + Send;

    /// Sends the request and reads the whole answer. Whether the connection may be used again.
    fn exchange(
        &mut self,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<bool, CallError>> + Send;
}

/// One connection with one request at a time.
pub(super) struct Alone<T: Talk> {
    dialer: Dialer,
    talk: T,
    connect: Connect,
    session: Option<T::Session>,
    /// Whether there is a TLS session to resume.
    ticket: bool,
}

impl<T: Talk> Alone<T> {
    pub(super) fn new(dialer: &Dialer, talk: &T, connect: Connect) -> Self {
        Self { dialer: dialer.another(), talk: talk.clone(), connect, session: None, ticket: false }
    }

    async fn open(&mut self, first: bool) -> Result<T::Session, CallError> {
        let wire = self.dialer.dial(first).await?;
        self.talk.open(wire).await
    }
}

impl<T: Talk> Lane for Alone<T> {
    async fn call(&mut self) -> Result<(), CallError> {
        // Taken out meanwhile, so that a call that fails or is given up leaves no broken connection behind.
        let session = self.session.take();
        let had_ticket = std::mem::take(&mut self.ticket);
        let mut session = match session {
            Some(session) => session,
            None => self.open(self.dialer.resumes() && !had_ticket).await?,
        };
        let keep = self.talk.exchange(&mut session).await?;
        self.ticket = true;
        if keep && self.connect == Connect::Keep {
            self.session = Some(session);
        }
        Ok(())
    }

    async fn prepare(&mut self) -> Result<(), CallError> {
        if self.dialer.resumes() && !self.ticket {
            let mut session = self.open(true).await?;
            self.talk.exchange(&mut session).await?;
            self.ticket = true;
        }
        if self.connect == Connect::Keep && self.session.is_none() {
            self.session = Some(self.open(false).await?);
        }
        Ok(())
    }

    fn fresh(&self) -> Self {
        Self::new(&self.dialer, &self.talk, self.connect)
    }
}
