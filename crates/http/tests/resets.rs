//! Callers of HTTP/2 that ask and break off in one breath (CVE-2023-44487): one that asks for itself loses its
//! connection, another sidecar does not, for it asks for many.
#![allow(clippy::unwrap_used, missing_docs)]

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use outrigger_http::Error;
use outrigger_http::message::{Asked, Handler, Reply};
use outrigger_http::serve::{Drain, Settings, UNSEEN_RESETS_OF_A_SIDECAR, Version, connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/` in a header block (RFC 7541).
const REQUEST: &[u8] = b"\x82\x86\x84\x41\x01a";
const CANCEL: &[u8] = &[0, 0, 0, 8];

/// Answers at once.
struct Ready;

impl Handler for Ready {
    type Body = Full<Bytes>;

    fn answer(&self, _: Asked) -> impl Future<Output = Reply<Full<Bytes>>> + use<> {
        std::future::ready(Reply::new(Response::new(Full::new(Bytes::new()))))
    }

    fn refuse(&self, _: Error) -> Reply<Full<Bytes>> {
        Reply::new(Response::new(Full::new(Bytes::new())))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The kind, stream and payload of the next frame.
async fn next(caller: &mut DuplexStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    caller.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    caller.read_exact(&mut payload).await.unwrap();
    (kind, u32::from_be_bytes(stream), payload)
}

/// Sends so many requests, each of which is broken off at once, and then one that is not. Whether that is answered.
async fn is_answered_after(resets: u32, unseen_resets: usize) -> bool {
    let story = async {
        let (mut caller, served) = tokio::io::duplex(1024 * 1024);
        let settings = Arc::new(Settings { unseen_resets, ..Settings::default() });
        spawn_local(connection(served, Version::Http2, Ready, settings, Rc::<Drain>::default()));
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(SETTINGS, 0, 0, b""));
        for stream in (0..resets).map(|n| n * 2 + 1) {
            sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST));
            sent.extend(frame(RST_STREAM, 0, stream, CANCEL));
        }
        let last = resets * 2 + 1;
        sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, last, REQUEST));
        caller.write_all(&sent).await.unwrap();
        loop {
            match next(&mut caller).await {
                (HEADERS, stream, _) if stream == last => return true,
                (GOAWAY, _, payload) => {
                    assert!(payload.ends_with(b"too_many_resets"), "{payload:?}");
                    return false;
                }
                _ => {}
            }
        }
    };
    LocalSet::new().run_until(story).await
}

#[tokio::test]
async fn what_the_callers_of_a_sidecar_break_off_leaves_the_others_alone() {
    assert!(is_answered_after(1000, UNSEEN_RESETS_OF_A_SIDECAR).await);
}

#[tokio::test]
async fn a_caller_that_breaks_off_all_it_asks_is_told_to_calm_down() {
    let of_others = Settings::default().unseen_resets;
    assert!(is_answered_after(10, of_others).await);
    assert!(!is_answered_after(100, of_others).await);
}
