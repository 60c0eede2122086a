//! A lane that has one stream of a connection that it shares with others.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::{
    dial::Dialer,
    dispatch::Lane,
    error::CallError,
    http2::{Sender, Streams, begin},
};

/// A connection of HTTP/2, made when it is first needed and again when it has gone.
#[derive(Debug)]
pub(super) struct Connection {
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many have been made.
    made: u64,
    sender: Option<Sender>,
    /// Whether there is a TLS session to resume.
    ticket: bool,
}

impl Connection {
    pub(super) fn new(dialer: &Dialer) -> Arc<Self> {
        Arc::new(Self { dialer: dialer.another(), state: Mutex::default() })
    }

    /// The connection, and which it is. Another one if `gone` is what there was.
    async fn sender<S: Streams>(&self, streams: &S, gone: Option<u64>) -> Result<(u64, Sender), CallError> {
        let mut state = self.state.lock().await;
        if let Some(sender) = &state.sender
            && gone != Some(state.made)
        {
            return Ok((state.made, sender.clone()));
        }
        state.sender = None;
        if self.dialer.resumes() && !state.ticket {
            let mut stream = streams.open(begin(self.dialer.dial(true).await?).await?).await?;
            streams.exchange(&mut stream).await?;
        }
        state.ticket = false;
        let sender = begin(self.dialer.dial(false).await?).await?;
        state.made += 1;
        state.sender = Some(sender.clone());
        Ok((state.made, sender))
    }
}

/// One stream at a time of a connection.
pub(super) struct Shared<S: Streams> {
    connection: Arc<Connection>,
    streams: S,
    stream: Option<(u64, S::Stream)>,
    gone: Option<u64>,
}

impl<S: Streams> Shared<S> {
    pub(super) fn new(connection: &Arc<Connection>, streams: &S) -> Self {
        Self { connection: Arc::clone(connection), streams: streams.clone(), stream: None, gone: None }
    }

    async fn open(&mut self) -> Result<(u64, S::Stream), CallError> {
        let (which, sender) = self.connection.sender(&self.streams, self.gone).await?;
        self.gone = Some(which);
        let stream = self.streams.open(sender).await?;
        self.gone = None;
        Ok((which, stream))
    }
}

impl<S: Streams> Lane for Shared<S> {
    async fn call(&mut self) -> Result<(), CallError> {
        let (mut which, mut stream) = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        let mut done = self.streams.exchange(&mut stream).await;
        if let Err(CallError::Gone(_)) = done {
            // The peer has closed it since (GOAWAY), and nothing was sent yet.
            self.gone = Some(which);
            (which, stream) = self.open().await?;
            done = self.streams.exchange(&mut stream).await;
        }
        match &done {
            Ok(()) => self.stream = Some((which, stream)),
            // The connection goes on without this stream.
            Err(CallError::Http2(error)) if error.is_reset() => {}
            Err(CallError::Http2(_) | CallError::Gone(_)) => self.gone = Some(which),
            Err(_) => {}
        }
        done
    }

    async fn prepare(&mut self) -> Result<(), CallError> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        Ok(())
    }

    fn fresh(&self) -> Self {
        Self::new(&self.connection, &self.streams)
    }
}
