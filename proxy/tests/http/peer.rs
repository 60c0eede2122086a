//! Callers and backends that speak HTTP/2, stream by stream.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Running, soon};

/// A caller of a proxy's listener `web`.
pub(crate) async fn caller(proxy: &Running) -> client::SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.at("web")).await.unwrap();
    let (sender, connection) = client::Builder::new().handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // What the proxy offers is known once it has answered something.
    sender.ready().await.unwrap()
}

/// A request for the host `shop`.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://shop{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// A response with this status and these fields.
pub(crate) fn response(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

/// What is read of a stream up to its end.
pub(crate) async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = soon(stream.data()).await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        bytes.extend(data);
    }
    Ok((bytes, soon(stream.trailers()).await?))
}

/// One part of what comes.
pub(crate) async fn part(stream: &mut RecvStream) -> Bytes {
    let data = soon(stream.data()).await.expect("more comes").unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    data
}

/// A backend's next requests, on one connection.
pub(crate) struct Callee(mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>);

impl Callee {
    /// Accepts the next connection, and tells of itself what `settings` says.
    pub(crate) async fn accept(listener: &TcpListener, settings: &server::Builder) -> Self {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut connection = soon(settings.handshake::<_, Bytes>(stream)).await.unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(accepted)) = connection.accept().await {
                let _ = sender.send(accepted);
            }
        });
        Self(receiver)
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        soon(self.0.recv()).await.expect("a request comes")
    }
}
