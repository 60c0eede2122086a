//! Single requests over HTTP/1.1, outside of any load.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends a request for `host`, waits for the whole answer, and returns its status.
pub(super) async fn ask(stream: &mut TcpStream, host: &str) -> Result<u16> {
    let request = format!("GET /bench HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "it was closed before the answer");
        if let Some((status, length)) = head(&answer)?
            && answer.len() >= length
        {
            return Ok(status);
        }
    }
}

/// The status of an answer and how long it is, once its head is there.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(answer)? else { return Ok(None) };
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let status = response.code.unwrap_or_default();
    Ok(Some((status, head + length.context("the answer has no content-length")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(head(&answer[..20]).unwrap(), None);
        assert_eq!(head(&answer[..answer.len() - 1]).unwrap(), Some((503, answer.len())));
        let error = head(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err().to_string();
        assert_eq!(error, "the answer has no content-length");
    }
}
