use proptest::{collection::vec, prelude::*};

use super::*;

/// Reads `wire` in pieces that end at `cuts`; how many bytes were the message's.
fn read(reader: &mut Reader, wire: &[u8], cuts: &[usize]) -> Result<usize, Malformed> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.push(wire.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        if cut > from {
            from += reader.read(&wire[from..cut])?;
        }
    }
    Ok(from)
}

fn response(wire: &[u8]) -> Result<(Reader, usize), Malformed> {
    let mut reader = Reader::new(Kind::Response);
    let taken = read(&mut reader, wire, &[])?;
    Ok((reader, taken))
}

#[test]
fn a_length_says_where_the_content_ends() {
    let (reader, taken) = response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP").unwrap();
    assert!(reader.is_done());
    assert_eq!((reader.content(), taken), (5, 43));
    assert_eq!(reader.head(), Some(Head { status: 200, close: false, upgrade: false }));
}

#[test]
fn chunks_are_counted_without_what_is_around_them() {
    let wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\nA;ext=\"x\"\r\n0123456789\r\n0\r\ngrpc-status: 0\r\nx: y\r\n\r\n";
    let (reader, taken) = response(wire).unwrap();
    assert!(reader.is_done());
    assert_eq!((reader.content(), taken), (15, wire.len()));
}

#[test]
fn without_either_the_content_ends_with_the_connection() {
    let (mut reader, _) = response(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    assert!(!reader.is_done());
    assert!(reader.head().unwrap().close);
    reader.end().unwrap();
    assert_eq!((reader.content(), reader.is_done()), (5, true));
}

#[test]
fn what_precedes_the_answer_is_passed_over() {
    let wire = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (reader, _) = response(wire).unwrap();
    assert_eq!(reader.head(), Some(Head { status: 503, close: true, upgrade: false }));
    assert!(reader.is_done());
}

#[test]
fn a_request_without_a_length_has_no_content() {
    let mut reader = Reader::new(Kind::Request);
    let wire = b"GET / HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x80";
    assert_eq!(read(&mut reader, wire, &[]).unwrap(), wire.len() - 2);
    assert!(reader.is_done() && reader.head().unwrap().upgrade);
}

#[test]
fn what_is_not_whole_or_not_http_is_an_error() {
    let (mut reader, _) = response(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell").unwrap();
    reader.end().unwrap_err();
    response(b"SSH-2.0-OpenSSH\r\n\r\n").unwrap_err();
    response(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").unwrap_err();
    response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n").unwrap_err();
    response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n").unwrap_err();
    response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n").unwrap_err();
    let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    endless.resize(MAX_HEAD + 100, b'x');
    response(&endless).unwrap_err();
}

proptest! {
    #[test]
    fn messages_are_read_alike_in_whatever_pieces(
        chunks in vec(1_usize..300, 0..8),
        chunked: bool,
        interim: bool,
        after in vec(any::<u8>(), 0..5),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let mut wire = Vec::new();
        if interim {
            wire.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let content: usize = chunks.iter().sum();
        if chunked {
            wire.extend_from_slice(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            for chunk in &chunks {
                wire.extend_from_slice(format!("{chunk:x}\r\n{}\r\n", "z".repeat(*chunk)).as_bytes());
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            wire.extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {content}\r\n\r\n").as_bytes());
            wire.extend_from_slice(&vec![b'z'; content]);
        }
        let length = wire.len();
        wire.extend_from_slice(&after);
        let mut reader = Reader::new(Kind::Response);
        prop_assert_eq!(read(&mut reader, &wire, &cuts).unwrap(), length);
        prop_assert!(reader.is_done());
        prop_assert_eq!(reader.content(), content as u64);
    }

    #[test]
    fn no_bytes_make_it_panic_or_read_more_than_there_is(
        wire in vec(any::<u8>(), 0..200),
        valid: bool,
        cuts in vec(any::<usize>(), 0..10),
    ) {
        let mut all = if valid { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
        all.extend_from_slice(&wire);
        for kind in [Kind::Request, Kind::Response] {
            let mut reader = Reader::new(kind);
            if let Ok(taken) = read(&mut reader, &all, &cuts) {
                prop_assert!(taken <= all.len());
            }
        }
    }
}
