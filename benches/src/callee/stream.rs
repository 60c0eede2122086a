//! WebSocket, messages over TCP, and bytes in bulk.

use std::io;

use bytes::Bytes;
use outrigger_http::websocket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Application;
use crate::{
    load::Load,
    websocket::{Event, Frames, Opcode, Opening, frame},
};

/// What is read at once.
const READ: usize = 64 * 1024;
/// What is written at once in bulk, of which as many are a MiB.
const BULK: usize = 256 * 1024;
const WRITES_IN_MIB: u32 = 4;

/// What is sent back for each message, and how long messages are.
#[derive(Debug)]
pub(super) struct Answer {
    frame: Bytes,
    message: Bytes,
    asked: u64,
}

impl Answer {
    pub(super) fn new(load: &Load) -> Self {
        let message = vec![b'x'; load.response_bytes];
        let frame = frame(Opcode::Binary, &message, None).into();
        Self { frame, message: message.into(), asked: load.request_bytes as u64 }
    }
}

/// WebSocket: each message is answered with one.
pub(super) async fn websocket(
    mut wire: impl AsyncRead + AsyncWrite + Unpin,
    application: Application,
) -> io::Result<()> {
    let opening = Opening::read(&mut wire).await?;
    let Some(key) = opening.field("sec-websocket-key") else {
        return wire
            .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let accept = websocket::accept(&key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        accept.to_str().unwrap_or_default()
    );
    wire.write_all(answer.as_bytes()).await?;
    wire.flush().await?;
    let mut frames = Frames::default();
    let mut buffer = opening.rest;
    loop {
        let mut bytes = buffer.as_slice();
        while !bytes.is_empty() {
            let (taken, event) = frames.read(bytes).map_err(io::Error::other)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            match event {
                Some(Event::Message(_)) => {
                    application.count();
                    wire.write_all(&application.stream.frame).await?;
                }
                Some(Event::Ping(content)) => wire.write_all(&frame(Opcode::Pong, &content, None)).await?,
                Some(Event::Close) => {
                    wire.write_all(&frame(Opcode::Close, &[], None)).await?;
                    return wire.shutdown().await;
                }
                None => {}
            }
        }
        wire.flush().await?;
        buffer.clear();
        buffer.reserve(READ);
        if wire.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// TCP: as many bytes as a request has are answered with as many as a response has.
pub(super) async fn messages(
    mut wire: impl AsyncRead + AsyncWrite + Unpin,
    application: Application,
) -> io::Result<()> {
    let answer = &application.stream;
    let mut buffer = vec![0; READ];
    let mut ahead = 0;
    loop {
        match wire.read(&mut buffer).await? {
            0 => return Ok(()),
            read => ahead += read as u64,
        }
        while ahead >= answer.asked {
            ahead -= answer.asked;
            application.count();
            wire.write_all(&answer.message).await?;
        }
        wire.flush().await?;
    }
}

/// TCP: as many bytes as are taken.
pub(super) async fn bulk(mut wire: impl AsyncWrite + Unpin, application: Application) -> io::Result<()> {
    let bytes = vec![b'x'; BULK];
    loop {
        for _ in 0..WRITES_IN_MIB {
            wire.write_all(&bytes).await?;
        }
        application.count();
    }
}
