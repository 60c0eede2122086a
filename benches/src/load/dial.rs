//! Connections: TCP and, where the load asks for it, TLS whose handshake is the one that is to be measured.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Result;
use outrigger_certs::{
    ServerName,
    edge::{self, Ca},
    rustls::{ClientConfig, HandshakeKind, client::Resumption},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Load, Target, Tls, error::CallError};

/// Makes connections to one target. Each lane has its own, so that the sessions that it resumes are its own too: a ticket
/// is used once, and another lane's would leave this one with a handshake in full.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    target: Arc<Target>,
    tls: Option<Secured>,
}

#[derive(Debug, Clone)]
struct Secured {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resumes: bool,
}

impl Dialer {
    /// One that offers `alpn` where it speaks TLS.
    pub(super) fn new(load: &Load, target: &Arc<Target>, alpn: &[&[u8]]) -> Result<Self> {
        let tls = (load.tls != Tls::Off).then(|| {
            let ca = target.trust.as_ref().map_or(Ca::System, |pem| Ca::Pem(pem.clone().into_bytes()));
            let mut config = ClientConfig::clone(&*edge::client_config(ca, alpn)?);
            let resumes = load.tls == Tls::Resumed;
            config.resumption =
                if resumes { Resumption::in_memory_sessions(1) } else { Resumption::disabled() };
            let name = ServerName::try_from(target.host.clone())?;
            anyhow::Ok(Secured { config: Arc::new(config), name, resumes })
        });
        Ok(Self { target: Arc::clone(target), tls: tls.transpose()? })
    }

    /// The same with sessions of its own.
    pub(super) fn another(&self) -> Self {
        let mut other = self.clone();
        if let Some(tls) = &mut other.tls
            && tls.resumes
        {
            let mut config = ClientConfig::clone(&tls.config);
            config.resumption = Resumption::in_memory_sessions(1);
            tls.config = Arc::new(config);
        }
        other
    }

    /// Whether a first exchange has to be made, for its session to be resumed.
    pub(super) fn resumes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.resumes)
    }

    /// Connects. `first` is where there is no session yet that could be resumed.
    pub(super) async fn dial(&self, first: bool) -> Result<Wire, CallError> {
        let address = self.target.address;
        let failed = |error| CallError::Connect(address, error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else { return Ok(Wire::Plain(stream)) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector
            .connect(tls.name.clone(), stream)
            .await
            .map_err(|error| CallError::Tls(address, error))?;
        let session = stream.get_ref().1;
        let kind = session.handshake_kind();
        if (kind == Some(HandshakeKind::Resumed)) != (tls.resumes && !first) {
            return Err(CallError::Handshake(kind));
        }
        let wants = &tls.config.alpn_protocols;
        if wants.iter().any(|protocol| protocol == b"h2") && session.alpn_protocol() != Some(b"h2") {
            return Err(CallError::Alpn);
        }
        Ok(Wire::Secured(Box::new(stream)))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
