//! HTTP/1.1 with keep-alive.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::Application;
use crate::message::{self, Kind, Reader};

/// What is read at once.
const READ: usize = 16 * 1024;

/// Whole answers, head and content.
#[derive(Debug)]
pub(super) struct Answers {
    keep: Bytes,
    close: Bytes,
}

impl Answers {
    pub(super) fn new(content: usize) -> Self {
        let answer = |connection: &str| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {content}\r\n{connection}\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + content, b'x');
            Bytes::from(answer)
        };
        Self { keep: answer(""), close: answer("connection: close\r\n") }
    }
}

/// Answers each request once it was read to its end.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    application: Application,
) -> io::Result<()> {
    let mut buffer = vec![0; READ].into_boxed_slice();
    let mut filled = 0;
    loop {
        let mut reader = Reader::new(Kind::Request);
        filled =
            message::read(&mut stream, &mut reader, &mut buffer, filled).await.map_err(io::Error::other)?;
        let Some(head) = reader.head() else { return Ok(()) };
        application.count();
        let answers = &application.http1;
        stream.write_all(if head.close { &answers.close } else { &answers.keep }).await?;
        stream.flush().await?;
        if head.close {
            return stream.shutdown().await;
        }
    }
}
