//! Handing open sockets to another process, over a Unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How many go with one message: the kernel takes 253 (`SCM_MAX_FD`).
const AT_ONCE: usize = 64;
/// What each message says, for the kernel hands nothing over with an empty one.
const WORD: u8 = b'.';

/// Hands file descriptors over; they stay open here.
///
/// # Errors
/// The connection broke.
pub async fn send(stream: &UnixStream, all: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in all.chunks(AT_ONCE) {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            if !rights.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            sendmsg(stream, &[IoSlice::new(&[WORD])], &mut rights, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Takes over as many file descriptors as were said to come. None is inherited by programs that this one starts.
///
/// # Errors
/// The connection broke, or something else came.
pub async fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(stream.async_io(Interest::READABLE, || some(stream)).await?);
    }
    if all.len() > count {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more sockets came than were announced"));
    }
    Ok(all)
}

fn some(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let came = recvmsg(stream, &mut [IoSliceMut::new(&mut word)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let mut some = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            some.extend(sockets);
        }
    }
    if came.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if some.is_empty() || word != [WORD] || came.flags.contains(ReturnFlags::CTRUNC) {
        let why = "not the sockets that were announced: is the limit of open files reached?";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(some)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn sockets_go_over_in_order_however_many_there_are() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let handles: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let (sent, received) = tokio::join!(send(&ours, &handles), receive(&theirs, 150));
        sent.unwrap();
        let received: Vec<_> = received.unwrap().into_iter().map(TcpListener::from).collect();
        let ports = |sockets: &[TcpListener]| -> Vec<u16> {
            sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
        };
        assert_eq!(ports(&received), ports(&sockets));
        let port = ports(&sockets)[0];
        drop(sockets);
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_says_something_else_or_leaves_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.try_write(b"hello").unwrap();
        assert_eq!(receive(&theirs, 1).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert_eq!(receive(&theirs, 1).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
