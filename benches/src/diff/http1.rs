//! An end that speaks HTTP/1, byte by byte.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use outrigger_http::websocket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{
    exchange::{ID, method},
    message::End,
    parser::{Parser, Side},
    play::{Inbox, Link},
};

/// How long an application that has closed still reads, so that its last word is not lost with a reset.
const LINGER: Duration = Duration::from_secs(1);

/// In a response, what answers the key of a WebSocket.
pub(crate) const ACCEPT: &str = "(the key's answer)";

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    side: Side,
    inbox: Arc<watch::Sender<Inbox>>,
    write: Option<OwnedWriteHalf>,
    reader: JoinHandle<()>,
    /// What is put into each request.
    id: Option<String>,
    /// The method of the request that is being answered.
    pub(crate) answering: Vec<u8>,
}

impl Http1 {
    /// The caller's end, for the exchange `id`.
    pub(crate) fn caller(stream: TcpStream, id: &str) -> Self {
        Self::new(stream, Side::Responses, Some(id.to_owned()))
    }

    /// The application's end.
    pub(crate) fn application(stream: TcpStream) -> Self {
        Self::new(stream, Side::Requests, None)
    }

    fn new(stream: TcpStream, side: Side, id: Option<String>) -> Self {
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let inbox = Arc::new(Inbox::new(Parser::new(side)));
        let reader = tokio::spawn(receive(read, inbox.clone()));
        Self { side, inbox, write: Some(write), reader, id, answering: Vec::new() }
    }

    /// With the answer to a WebSocket's key where there is a place for it.
    fn with_accept(&self, bytes: &[u8]) -> Vec<u8> {
        let inbox = self.inbox.borrow();
        let key = inbox.messages.last().and_then(|asked| asked.head.first("sec-websocket-key"));
        let accept = key.and_then(|key| HeaderValue::from_bytes(key).ok()).map(|key| websocket::accept(&key));
        let place = bytes.windows(ACCEPT.len()).position(|window| window == ACCEPT.as_bytes());
        match (place, accept) {
            (Some(at), Some(accept)) => {
                let (before, after) = bytes.split_at(at);
                [before, accept.as_bytes(), after.get(ACCEPT.len()..).unwrap_or_default()].concat()
            }
            _ => bytes.to_vec(),
        }
    }

    /// Whether it has closed.
    pub(crate) const fn is_closed(&self) -> bool {
        self.write.is_none()
    }
}

/// Reads to the end.
async fn receive(mut read: OwnedReadHalf, inbox: Arc<watch::Sender<Inbox>>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return inbox.send_modify(|inbox| inbox.end(End::Closed)),
            Ok(count) => inbox.send_modify(|inbox| inbox.feed(buffer.get(..count).unwrap_or_default())),
            Err(_) => return inbox.send_modify(|inbox| inbox.end(End::Reset)),
        }
    }
}

/// A request with the exchange's name as its first field.
fn with_id(bytes: &[u8], id: &str) -> Vec<u8> {
    let Some(at) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return bytes.to_vec() };
    let (line, rest) = bytes.split_at(at + 2);
    [line, format!("{ID}: {id}\r\n").as_bytes(), rest].concat()
}

impl Link for Http1 {
    fn inbox(&self) -> &watch::Sender<Inbox> {
        &self.inbox
    }

    async fn send(&mut self, bytes: &[u8], head: bool) -> Result<(), String> {
        let mut named = None;
        if head && self.side == Side::Responses {
            self.inbox.send_modify(|inbox| inbox.asked(&method(bytes)));
            named = self.id.as_deref().map(|id| with_id(bytes, id));
        } else if head {
            let code = bytes.get(9..12).unwrap_or_default();
            let granted = code == b"101" || (self.answering == b"CONNECT" && code.starts_with(b"2"));
            if granted || !code.starts_with(b"1") {
                self.inbox.send_modify(|inbox| inbox.decide(granted));
            }
        }
        let bytes = named.unwrap_or_else(|| self.with_accept(bytes));
        if let Some(write) = &mut self.write {
            // What the other end makes of it is seen in what it sends.
            let _ = write.write_all(&bytes).await;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        if let Some(write) = &mut self.write {
            let _ = write.shutdown().await;
        }
    }

    async fn close(&mut self) {
        self.finish().await;
        match self.side {
            Side::Responses => self.reader.abort(),
            Side::Requests => {
                let (reader, mut inbox) = (self.reader.abort_handle(), self.inbox.subscribe());
                let write = self.write.take();
                tokio::spawn(async move {
                    let _ = timeout(LINGER, inbox.wait_for(|inbox| inbox.ended.is_some())).await.is_ok();
                    reader.abort();
                    drop(write);
                });
            }
        }
        self.write = None;
    }

    fn reset(&mut self) {
        if let Some(write) = self.write.take() {
            let _ = write.as_ref().set_zero_linger();
            self.reader.abort();
            write.forget();
        }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if self.side == Side::Responses || !self.is_closed() {
            self.reader.abort();
        }
    }
}
