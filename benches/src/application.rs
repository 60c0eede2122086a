//! The application behind every path: 200 and a fixed body, whatever is asked.

use std::{convert::Infallible, io, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::caller::Protocol;

/// An application in the caller's runtime, on a port of 127.0.0.1 that the system chooses; it ends when dropped.
#[derive(Debug)]
pub struct Application {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Application {
    /// Starts one that reads requests to their end and answers with `answer`.
    ///
    /// # Errors
    ///
    /// If no port can be bound.
    pub async fn start(protocol: Protocol, answer: Bytes) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            loop {
                // A connection that failed before it was accepted is seen, and counted, by its caller.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, protocol, answer.clone()));
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, protocol: Protocol, answer: Bytes) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            while let Some(Ok(_)) = request.body_mut().frame().await {}
            Ok::<_, Infallible>(Response::new(Full::new(answer)))
        }
    });
    let io = TokioIo::new(stream);
    // How it ends is seen by the caller.
    let _ = match protocol {
        Protocol::H1 => conn::http1::Builder::new().serve_connection(io, service).await,
        Protocol::H2 => conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
    };
}
