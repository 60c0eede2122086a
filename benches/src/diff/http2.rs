//! An end that speaks HTTP/2. Its script is written as HTTP/1, and says here what it means.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, SendStream, ext::Protocol, server::SendResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    uri::{Authority, PathAndQuery, Scheme, Uri},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};

use super::{
    exchange::{ID, method},
    message::{End, Event, Field, Head, Start},
    parser::{Parser, Side},
    play::{Inbox, Link},
    raw::{self, Blocks},
};

/// The caller's end: one stream on a connection of its own.
#[derive(Debug)]
pub(crate) struct Caller {
    inbox: Arc<watch::Sender<Inbox>>,
    sent: Parser,
    id: String,
    client: h2::client::SendRequest<Bytes>,
    stream: Option<SendStream<Bytes>>,
    tasks: Vec<JoinHandle<()>>,
    /// What goes out in place of what `h2` writes.
    blocks: Option<Blocks>,
}

impl Caller {
    /// With `raw`, fields are sent as they stand.
    pub(crate) async fn new(stream: TcpStream, id: &str, raw: bool) -> Result<Self, String> {
        let _ = stream.set_nodelay(true);
        if raw {
            let (stream, blocks) = raw::edited(stream, true);
            let mut caller = Self::over(stream, id).await?;
            caller.blocks = Some(blocks);
            return Ok(caller);
        }
        Self::over(stream, id).await
    }

    async fn over<IO>(stream: IO, id: &str) -> Result<Self, String>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(4 << 20).initial_connection_window_size(8 << 20);
        let (client, connection) = builder.handshake(stream).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            inbox: Arc::new(Inbox::new(Parser::new(Side::Responses))),
            sent: Parser::new(Side::Requests),
            id: id.to_owned(),
            client,
            stream: None,
            tasks: vec![driver],
            blocks: None,
        })
    }

    async fn begin(&mut self, mut head: Head, end: bool) -> Result<(), String> {
        head.fields.insert(0, Field { name: ID.into(), value: self.id.clone().into() });
        let tunnel = head.may_switch();
        let request = match &self.blocks {
            None => request(&head)?,
            Some(blocks) => {
                blocks.push(1, raw::request(&head));
                Request::new(())
            }
        };
        let mut client = self.client.clone().ready().await.map_err(|error| error.to_string())?;
        let sent = client.send_request(request, end).map_err(|error| error.to_string())?;
        self.stream = Some(sent.1);
        self.tasks.push(tokio::spawn(responses(sent.0, self.inbox.clone(), tunnel)));
        Ok(())
    }
}

impl Link for Caller {
    fn inbox(&self) -> &watch::Sender<Inbox> {
        &self.inbox
    }

    async fn send(&mut self, bytes: &[u8], head: bool) -> Result<(), String> {
        let mut events = self.sent.feed(bytes).into_iter().peekable();
        if head {
            self.inbox.send_modify(|inbox| inbox.asked(&method(bytes)));
        }
        while let Some(event) = events.next() {
            let end = events.peek() == Some(&Event::End);
            match event {
                Event::Head(head) => {
                    let tunnel = head.may_switch();
                    self.begin(head, end && !tunnel).await?;
                    if end {
                        events.next();
                    }
                }
                event => {
                    let Some(stream) = &mut self.stream else { return Err("there is no stream".into()) };
                    let event = match (event, &self.blocks) {
                        (Event::Trailers(fields), Some(blocks)) => {
                            blocks.push(1, raw::section(&fields, true));
                            Event::Trailers(Vec::new())
                        }
                        (event, _) => event,
                    };
                    if write(stream, event, end) {
                        events.next();
                    }
                }
            }
        }
        if self.sent.is_held() {
            // What follows is for the other end of the tunnel.
            self.sent.decide(true);
        }
        self.sent.broken().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    async fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    async fn close(&mut self) {
        self.reset();
    }

    fn reset(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The application's end of one stream.
#[derive(Debug)]
pub(crate) struct Application {
    inbox: Arc<watch::Sender<Inbox>>,
    sent: Parser,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    reader: JoinHandle<()>,
    connect: bool,
    /// What goes out in place of what `h2` writes.
    blocks: Blocks,
    /// Whether fields go out as they stand, though HTTP/2 may not say them.
    pub(crate) raw: bool,
}

impl Application {
    pub(crate) fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>, blocks: Blocks) -> Self {
        let (parts, body) = request.into_parts();
        let inbox = Arc::new(Inbox::new(Parser::new(Side::Requests)));
        let mut sent = Parser::new(Side::Responses);
        sent.asked(parts.method.as_str().as_bytes());
        let start = Start::Request {
            method: parts.method.as_str().into(),
            target: parts.uri.path_and_query().map_or("", PathAndQuery::as_str).into(),
            authority: parts.uri.authority().map(|authority| authority.as_str().into()),
            protocol: parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().into()),
        };
        let head = Head { start, version: b"HTTP/2".to_vec(), fields: fields(&parts.headers) };
        let connect = parts.method == Method::CONNECT;
        let mut events = vec![Event::Head(head)];
        events.extend(connect.then_some(Event::End));
        inbox.send_modify(|inbox| inbox.take(events));
        let reader = tokio::spawn(body_of(body, inbox.clone(), connect));
        Self { inbox, sent, respond, stream: None, reader, connect, blocks, raw: false }
    }

    /// Whether a response makes the stream a tunnel.
    const fn agrees(&self, head: &Head) -> bool {
        self.connect && matches!(head.code(), 101 | 200..=299)
    }

    fn begin(&mut self, head: &Head, end: bool) -> Result<(), String> {
        let mut left_out = vec!["transfer-encoding"];
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.code()).map_err(|error| error.to_string())?;
        if self.agrees(head) {
            // Where HTTP/1.1 says that it changes the protocol, HTTP/2 says that it is well (RFC 8441, section 5).
            *response.status_mut() = StatusCode::OK;
            left_out.extend(["connection", "upgrade", "sec-websocket-accept"]);
            self.inbox.send_modify(|inbox| inbox.take(vec![Event::Tunnel(Vec::new())]));
        }
        let mut fields = head.fields.clone();
        fields.retain(|field| !left_out.iter().any(|name| field.is(name)));
        let stream = self.respond.stream_id().as_u32();
        self.blocks.push(stream, raw::response(response.status().as_u16(), &fields, self.raw));
        if head.is_interim() {
            return self.respond.send_informational(response).map_err(|error| error.to_string());
        }
        self.stream = Some(self.respond.send_response(response, end).map_err(|error| error.to_string())?);
        Ok(())
    }
}

impl Link for Application {
    fn inbox(&self) -> &watch::Sender<Inbox> {
        &self.inbox
    }

    async fn send(&mut self, bytes: &[u8], _head: bool) -> Result<(), String> {
        let mut events = self.sent.feed(bytes).into_iter().peekable();
        while let Some(event) = events.next() {
            let end = events.peek() == Some(&Event::End);
            match event {
                Event::Head(head) => {
                    // A caller that has gone is seen by who waits for it.
                    let _ = self.begin(&head, end && !head.is_interim() && !self.agrees(&head));
                    if end {
                        events.next();
                    }
                }
                event => {
                    let Some(stream) = &mut self.stream else { return Err("there is no stream".into()) };
                    let event = match event {
                        Event::Trailers(fields) => {
                            self.blocks.push(stream.stream_id().as_u32(), raw::section(&fields, self.raw));
                            Event::Trailers(Vec::new())
                        }
                        event => event,
                    };
                    if write(stream, event, end) {
                        events.next();
                    }
                }
            }
        }
        self.sent.broken().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    async fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    async fn close(&mut self) {
        if self.sent.is_tunnel() || self.sent.close() == [Event::End] {
            self.finish().await;
        } else if !self.sent.is_idle() {
            self.reset();
        }
    }

    fn reset(&mut self) {
        match self.stream.take() {
            Some(mut stream) => stream.send_reset(h2::Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(h2::Reason::INTERNAL_ERROR),
        }
    }

    async fn unwanted(&mut self) {
        let _ = poll_fn(|cx| match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        })
        .await;
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Sends what follows a head; `end` says that nothing follows it. Whether that was said with it.
fn write(stream: &mut SendStream<Bytes>, event: Event, end: bool) -> bool {
    // A stream that is reset is seen by who waits for it.
    match event {
        Event::Data(data) | Event::Tunnel(data) => {
            let _ = stream.send_data(data.into(), end);
            end
        }
        Event::Trailers(fields) => {
            let _ = stream.send_trailers(headers(&fields).unwrap_or_default());
            true
        }
        Event::End => {
            let _ = stream.send_data(Bytes::new(), true);
            false
        }
        Event::Head(_) => false,
    }
}

/// Receives interim responses and the last one.
async fn responses(mut future: h2::client::ResponseFuture, inbox: Arc<watch::Sender<Inbox>>, tunnel: bool) {
    let head = |response: &Response<()>| Head {
        start: Start::Response { code: response.status().as_u16(), reason: None },
        version: b"HTTP/2".to_vec(),
        fields: fields(response.headers()),
    };
    while let Some(Ok(interim)) = poll_fn(|cx| future.poll_informational(cx)).await {
        let events = vec![Event::Head(head(&interim)), Event::End];
        inbox.send_modify(|inbox| inbox.take(events));
    }
    match future.await {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let head = head(&Response::from_parts(parts, ()));
            let tunnel = tunnel && (200..300).contains(&head.code());
            let mut events = vec![Event::Head(head)];
            if tunnel {
                events.extend([Event::End, Event::Tunnel(Vec::new())]);
            }
            inbox.send_modify(|inbox| inbox.take(events));
            body_of(body, inbox.clone(), tunnel).await;
            inbox.send_modify(|inbox| inbox.end(End::Closed));
        }
        Err(_) => inbox.send_modify(|inbox| inbox.end(End::Reset)),
    }
}

/// Receives what follows a head.
async fn body_of(mut body: RecvStream, inbox: Arc<watch::Sender<Inbox>>, tunnel: bool) {
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return inbox.send_modify(|inbox| inbox.end(End::Reset)) };
        let _ = body.flow_control().release_capacity(data.len());
        let data = data.to_vec();
        let event = if tunnel { Event::Tunnel(data) } else { Event::Data(data) };
        inbox.send_modify(|inbox| inbox.take(vec![event]));
    }
    let mut events = match body.trailers().await {
        Ok(Some(trailers)) => vec![Event::Trailers(fields(&trailers))],
        Ok(None) => Vec::new(),
        Err(_) => return inbox.send_modify(|inbox| inbox.end(End::Reset)),
    };
    events.push(Event::End);
    inbox.send_modify(|inbox| {
        inbox.take(events);
        if tunnel {
            inbox.end(End::Closed);
        }
    });
}

fn fields(headers: &HeaderMap) -> Vec<Field> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| Field {
        name: name.as_str().into(),
        value: value.as_bytes().into(),
    };
    headers.iter().map(line).collect()
}

fn headers(fields: &[Field]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(&field.name).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_bytes(field.value.trim_ascii()).map_err(|error| error.to_string())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What a request that is written as HTTP/1 is in HTTP/2 (RFC 9113, section 8.3.1). One that has `:authority` as a field
/// is taken as it is.
pub(crate) fn request(head: &Head) -> Result<Request<()>, String> {
    let Start::Request { method, target, .. } = &head.start else { return Err("it is no request".into()) };
    let pseudo = head.first(":authority");
    let protocol = head.first(":protocol");
    let left_out = if pseudo.is_some() || head.version == b"HTTP/2" {
        [":authority", ":protocol", "transfer-encoding"]
    } else {
        ["host", "transfer-encoding", ""]
    };
    let is_kept = |field: &&Field| !left_out.iter().any(|name| field.is(name));
    let kept: Vec<Field> = head.fields.iter().filter(is_kept).cloned().collect();
    let bad = |error: &dyn std::fmt::Display| error.to_string();
    let method = Method::from_bytes(method).map_err(|error| bad(&error))?;
    let mut parts = http::uri::Parts::default();
    let authority = pseudo.or_else(|| head.first("host").filter(|_| head.version != b"HTTP/2"));
    let mut version = Version::HTTP_2;
    match authority.map(Authority::try_from) {
        Some(authority) => parts.authority = Some(authority.map_err(|error| bad(&error))?),
        // The way to leave it out.
        None => version = Version::HTTP_11,
    }
    if method != Method::CONNECT || protocol.is_some() {
        parts.scheme = parts.authority.is_some().then_some(Scheme::HTTP);
        parts.path_and_query = Some(PathAndQuery::try_from(&target[..]).map_err(|error| bad(&error))?);
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| bad(&error))?;
    *request.method_mut() = method;
    *request.version_mut() = version;
    *request.headers_mut() = headers(&kept)?;
    if let Some(protocol) = protocol {
        let protocol = Protocol::from(String::from_utf8_lossy(protocol).as_ref());
        request.extensions_mut().insert(protocol);
    }
    Ok(request)
}

/// What a response that is written as HTTP/1 is in HTTP/2.
pub(crate) fn response(head: &Head) -> Result<Response<()>, String> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.code()).map_err(|error| error.to_string())?;
    let kept: Vec<Field> =
        head.fields.iter().filter(|field| !field.is("transfer-encoding")).cloned().collect();
    *response.headers_mut() = headers(&kept)?;
    Ok(response)
}
