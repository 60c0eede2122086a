//! A forwarder that copies bytes and knows no protocol: the floor that any proxy stands on.
//!
//! One thread, one connection to the application for each of a caller's. What goes through it costs what the kernel takes
//! for it: one read and one write for each piece that arrives, and a share of an `epoll_wait`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
};

use mio::{
    Events, Interest, Poll, Registry, Token,
    event::Event,
    net::{TcpListener, TcpStream},
};

/// Where the listener's events go; the two sockets of pair n have the tokens 2n and 2n + 1.
const LISTENER: Token = Token(usize::MAX);
/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// Accepts on `listen`, prints where, and forwards every connection to `to`, for good.
///
/// # Errors
///
/// If it cannot listen, or the system refuses to say what happens.
pub fn forward(listen: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("outrigger-bench: forwarding on {}", listener.local_addr()?);
    let mut forwarder = Forwarder { to, pairs: Vec::new(), free: Vec::new(), buffer: vec![0; PIECE] };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            done => done?,
        }
        for event in &events {
            match event.token() {
                LISTENER => forwarder.accept(&listener, poll.registry()),
                Token(token) => forwarder.handle(token, event),
            }
        }
    }
}

struct Forwarder {
    to: SocketAddr,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Forwarder {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) {
        loop {
            match listener.accept() {
                // A caller whose connection cannot be forwarded sees it closed.
                Ok((caller, _)) => drop(self.open(caller, registry)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The caller has gone, or there are no descriptors left: the next one may do better.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    fn open(&mut self, caller: TcpStream, registry: &Registry) -> io::Result<()> {
        let mut sockets = [caller, TcpStream::connect(self.to)?];
        let place = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        for (side, socket) in sockets.iter_mut().enumerate() {
            let registered = socket.set_nodelay(true).and_then(|()| {
                registry.register(socket, Token(2 * place + side), Interest::READABLE | Interest::WRITABLE)
            });
            if let Err(error) = registered {
                self.free.push(place);
                return Err(error);
            }
        }
        if let Some(free) = self.pairs.get_mut(place) {
            *free = Some(Pair { sockets, ways: Default::default() });
        }
        Ok(())
    }

    fn handle(&mut self, token: usize, event: &Event) {
        let (place, side) = (token / 2, token % 2);
        // It may be of a socket that was closed by an earlier event.
        let Some(entry) = self.pairs.get_mut(place) else { return };
        let Some(pair) = entry else { return };
        let goes_on = pair.handle(side, event, &mut self.buffer);
        if !matches!(goes_on, Ok(true)) {
            *entry = None;
            self.free.push(place);
        }
    }
}

/// A caller's connection and the one to the application.
struct Pair {
    sockets: [TcpStream; 2],
    /// From each of them to the other.
    ways: [Way; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Whether there may be something to read. The kernel tells once of what has arrived, so this stays until all is read.
    readable: bool,
    /// Whether the kernel has said that the end has arrived, which it does not say again.
    ending: bool,
    /// Whether the end was read.
    ended: bool,
    /// Whether the end was passed on.
    shut: bool,
    /// What was read and could not be written yet.
    pending: Vec<u8>,
}

impl Way {
    /// Whether something waits until it can be written.
    fn waits(&self) -> bool {
        !self.pending.is_empty() || (self.ended && !self.shut)
    }
}

impl Pair {
    /// False once both directions have ended.
    fn handle(&mut self, side: usize, event: &Event, buffer: &mut [u8]) -> io::Result<bool> {
        let other = 1 - side;
        if event.is_readable() {
            self.ways[side].readable = true;
            self.ways[side].ending |= event.is_read_closed();
            self.pump(side, buffer)?;
        }
        // Written to as things are read; the event counts only where something has been waiting for it.
        if event.is_writable() && self.ways[other].waits() {
            self.pump(other, buffer)?;
        }
        Ok(!self.ways.iter().all(|way| way.shut))
    }

    /// Copies from `side` to the other as far as both let it.
    fn pump(&mut self, side: usize, buffer: &mut [u8]) -> io::Result<()> {
        let [first, second] = &mut self.sockets;
        let (from, to) = if side == 0 { (first, second) } else { (second, first) };
        let way = &mut self.ways[side];
        loop {
            if !way.pending.is_empty() {
                let written = write(to, &way.pending)?;
                way.pending.drain(..written);
                if !way.pending.is_empty() {
                    return Ok(());
                }
            }
            if way.ended {
                match to.shutdown(Shutdown::Write) {
                    Ok(()) => way.shut = true,
                    // It is being connected: there is an event once it is.
                    Err(error) if error.kind() == ErrorKind::NotConnected => {}
                    Err(error) => return Err(error),
                }
                return Ok(());
            }
            if !way.readable {
                return Ok(());
            }
            let read = match from.read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    way.readable = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            way.ended = read == 0;
            // Less than there is room for is all there was: asking again would be a system call for nothing.
            way.readable = way.ending || read == buffer.len();
            let (read, _) = buffer.split_at(read);
            let written = write(to, read)?;
            way.pending.extend_from_slice(&read[written..]);
        }
    }
}

/// Writes as much as goes: what is left is the reader's to take first.
fn write(to: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            // While it is being connected, too, writing to a socket would block; or Linux says that it is not connected.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
