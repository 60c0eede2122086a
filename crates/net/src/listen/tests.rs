use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::{BindError, Bound, bind, bind_beside, configure};

fn any(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// How many of the sockets have a connection waiting.
fn waiting(bound: &Bound) -> usize {
    bound.sockets.iter().filter(|socket| socket.accept().is_ok()).count()
}

#[test]
fn all_workers_share_one_port_and_each_gets_connections() {
    let bound = bind(any("127.0.0.1:0"), 2).unwrap();
    assert_ne!(bound.local.port(), 0);
    assert!(bound.sockets.iter().all(|socket| socket.local_addr().unwrap() == bound.local));
    // The kernel chooses by a hash of the caller's address: that 64 callers all hash alike does not happen.
    let callers: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(bound.local).unwrap()).collect();
    assert_eq!(waiting(&bound), 2);
    drop(callers);
}

#[test]
fn a_taken_port_is_refused_and_free_again_afterwards() {
    // An address of its own, so that no other test gets the port meanwhile.
    let taken = bind(any("127.77.0.2:0"), 2).unwrap();
    let error = bind(taken.local, 1).unwrap_err();
    assert!(matches!(error, BindError::InUse { address } if address == taken.local));
    let text = error.to_string();
    assert!(text.contains(&taken.local.to_string()) && text.contains("choose another port"), "{text}");

    let more = bind_beside(taken.local, 1).unwrap();
    assert_eq!(more.local, taken.local);

    let local = taken.local;
    // A connection that the listening side closes first stays in TIME_WAIT, and must not hinder.
    let caller = std::net::TcpStream::connect(local).unwrap();
    drop((taken, more));
    drop(caller);
    assert_eq!(bind(local, 1).unwrap().local, local);
}

#[test]
fn an_address_of_nobody_is_refused() {
    let error = bind(any("192.0.2.1:0"), 1).unwrap_err();
    assert!(matches!(error, BindError::NotLocal { .. }));
    assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
}

#[test]
fn ipv6_any_takes_ipv4_too() {
    let bound = bind(any("[::]:0"), 1).unwrap();
    let _four = std::net::TcpStream::connect(("127.0.0.1", bound.local.port())).unwrap();
    let _six = std::net::TcpStream::connect(("::1", bound.local.port())).unwrap();
    assert!(bound.sockets[0].accept().is_ok() && bound.sockets[0].accept().is_ok());
}

#[tokio::test]
async fn connections_have_their_options_on_both_ends() {
    let bound = bind(any("127.0.0.1:0"), 1).unwrap();
    let listener = tokio::net::TcpListener::from_std(bound.sockets.into_iter().next().unwrap()).unwrap();
    let (caller, accepted) = tokio::join!(TcpStream::connect(bound.local), listener.accept());
    let (caller, (accepted, _)) = (caller.unwrap(), accepted.unwrap());
    configure(&caller).unwrap();
    for stream in [&caller, &accepted] {
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(stream).keepalive().unwrap());
        assert_eq!(SockRef::from(stream).tcp_keepalive_time().unwrap().as_secs(), 60);
    }
}
