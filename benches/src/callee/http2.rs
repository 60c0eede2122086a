//! HTTP/2: plain requests, gRPC's unary calls, and gRPC's streams.

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Application;
use crate::{
    grpc::{self, Messages},
    load::{Load, Traffic},
};

/// A stream's window, and a connection's: so large that they are not what is measured.
const WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const STREAMS: u32 = 1024;

/// What every request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    headers: HeaderMap,
    content: Bytes,
}

impl Answer {
    pub(super) fn new(load: &Load) -> Self {
        let mut headers = HeaderMap::new();
        let content = if load.traffic == Traffic::Http2 {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(load.response_bytes));
            vec![b'x'; load.response_bytes].into()
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            grpc::message(load.response_bytes)
        };
        Self { headers, content }
    }

    fn head(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// Answers each request once it was read to its end; in streams, each message.
pub(super) async fn serve<T>(stream: T, application: Application) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        if request.body().is_end_stream() {
            answer(respond, &application)?;
        } else {
            let application = application.clone();
            // A stream that fails is seen by its caller.
            tokio::spawn(async move { read_and_answer(request, respond, &application).await.ok() });
        }
    }
    Ok(())
}

async fn read_and_answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    application: &Application,
) -> Result<(), h2::Error> {
    let mut content = request.into_body();
    if application.traffic != Traffic::GrpcStream {
        while data(&mut content).await?.is_some() {}
        return answer(respond, application);
    }
    let mut stream = respond.send_response(application.http2.head(), false)?;
    let mut messages = Messages::default();
    while let Some(data) = data(&mut content).await? {
        let before = messages.whole();
        messages.read(&data);
        for _ in before..messages.whole() {
            application.count();
            stream.send_data(application.http2.content.clone(), false)?;
        }
    }
    stream.send_trailers(trailers())
}

fn answer(mut respond: SendResponse<Bytes>, application: &Application) -> Result<(), h2::Error> {
    application.count();
    let answer = &application.http2;
    let mut stream = respond.send_response(answer.head(), answer.content.is_empty())?;
    if application.traffic == Traffic::Http2 {
        if !answer.content.is_empty() {
            stream.send_data(answer.content.clone(), true)?;
        }
        return Ok(());
    }
    stream.send_data(answer.content.clone(), false)?;
    stream.send_trailers(trailers())
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

/// The next bytes of the content; what has come may be sent again at once.
async fn data(content: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = content.data().await.transpose()? else { return Ok(None) };
    content.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}
