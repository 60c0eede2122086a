//! An exchange as the corpus writes it: what the caller does, what the application does, what may come of it.

use super::{
    http2,
    message::{Event, Start},
    parser::{Parser, Side},
};

/// The field that tells the application which exchange a request belongs to. The harness puts it into each request.
pub(crate) const ID: &str = "Exchange";

/// The version of HTTP that one end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// HTTP/1, byte by byte.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What one end does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends bytes that begin with a request's or response's head. The exchange's name is put into a request.
    Head(Vec<u8>),
    /// Sends bytes that continue what it sent.
    Bytes(Vec<u8>),
    /// Waits until something was received.
    Await(Until),
    /// Lets the other end go on from its `Wait`.
    Mark(&'static str),
    /// Waits for the other end's `Mark`.
    Wait(&'static str),
    /// Closes its own direction.
    Finish,
    /// Closes.
    Close,
    /// Breaks the connection, or over HTTP/2 the stream.
    Reset,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    /// So many interim responses.
    Interim(usize),
    /// The head of the message, of a response the last one.
    Head,
    /// So many bytes of its body, or of what follows a change of protocol.
    Body(usize),
    /// All of it.
    Complete,
    /// The other end has closed, or broken off.
    Closed,
}

/// What must come of an exchange.
#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// The same as without a proxy, but for what is allowed.
    Same,
    /// The proxy answers itself, with one of these statuses, and forwards nothing but so many requests before it.
    Refused { statuses: &'static [u16], closes: bool, forwarded: usize },
    /// The request turns out to be invalid while it is sent: the application must never take it for complete, and the
    /// caller gets one of these statuses, or the application's answer, and its connection is closed.
    Broken { statuses: &'static [u16] },
    /// The response is invalid: the caller gets one of these statuses instead.
    Unusable { statuses: &'static [u16] },
    /// The response turns out to be invalid while it is sent: the caller must never take it for complete.
    CutOff,
}

/// An exchange of the corpus.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    /// `RFC 9112, 3.2.1`.
    pub(crate) section: String,
    /// What it is written in.
    pub(crate) native: Speaks,
    pub(crate) caller: Vec<Step>,
    /// One script for each request that the application gets.
    pub(crate) application: Vec<Vec<Step>>,
    pub(crate) expect: Expect,
    /// Whether it leaves connections behind that are no longer what they seem.
    pub(crate) alone: bool,
    /// Whether it is about HTTP/1 alone, on the caller's side or on the application's.
    pub(crate) only_http1: (bool, bool),
    /// Whether it is a tunnel that HTTP/2 can make too, in its own way.
    pub(crate) tunnel: bool,
    /// The same of the application's, which then speaks nothing else.
    pub(crate) answers_raw: bool,
    /// Whether the application is to hear that the caller closes while it is answered.
    pub(crate) caller_closes: bool,
    /// Whether the caller's fields go over HTTP/2 as they stand, though HTTP/2 may not say them.
    pub(crate) raw: bool,
}

/// In place of a status: no answer at all.
pub(crate) const SILENCE: u16 = 0;

/// Text as it goes over the wire: each `\n` is CRLF, `␊` a bare LF.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").replace('␊', "\n").into_bytes()
}

/// The answer of an application that has nothing to say.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok";

fn answers(bytes: Vec<u8>) -> Vec<Step> {
    vec![Step::Await(Until::Complete), Step::Head(bytes)]
}

impl Exchange {
    fn new(name: impl Into<String>, section: impl Into<String>, expect: Expect) -> Self {
        Self {
            name: name.into(),
            section: section.into(),
            native: Speaks::Http1,
            caller: Vec::new(),
            application: vec![answers(wire(OK))],
            expect,
            alone: false,
            only_http1: (false, false),
            tunnel: false,
            caller_closes: false,
            raw: false,
            answers_raw: false,
        }
    }

    /// An exchange that is not in the corpus.
    pub(crate) fn made_up(number: usize, request: &[u8], response: &[u8], close: bool) -> Self {
        let mut script = answers(response.to_vec());
        script.extend(close.then_some(Step::Close));
        Self::new(format!("made-up-{number}"), "", Expect::Same).sends(request).application([script])
    }

    /// The caller's requests, as bytes, one after the other.
    pub(crate) fn sends(mut self, request: impl Into<Vec<u8>>) -> Self {
        self.caller.extend([Step::Head(request.into()), Step::Await(Until::Complete)]);
        self
    }

    /// The caller's steps.
    pub(crate) fn caller(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.caller = steps.into_iter().collect();
        self
    }

    /// What the application answers, once it has the whole request.
    pub(crate) fn answer(self, response: &str) -> Self {
        self.answer_bytes(wire(response))
    }

    /// The same, as bytes.
    pub(crate) fn answer_bytes(self, response: Vec<u8>) -> Self {
        self.application([answers(response)])
    }

    /// The same, and it closes then.
    pub(crate) fn answer_and_close(self, response: &str) -> Self {
        let mut steps = answers(wire(response));
        steps.push(Step::Close);
        self.application([steps])
    }

    /// The application's steps for each request.
    pub(crate) fn application(mut self, scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        self.application = scripts.into_iter().collect();
        self
    }

    /// It is written in HTTP/2's terms: `:authority` is a field, names are lower case.
    pub(crate) fn http2(mut self) -> Self {
        self.native = Speaks::Http2;
        self
    }

    /// It is about HTTP/1 on both sides.
    pub(crate) fn http1(mut self) -> Self {
        self.only_http1 = (true, true);
        self
    }

    /// It is a tunnel that HTTP/2 can make too: by CONNECT, or by extended CONNECT where HTTP/1.1 upgrades.
    pub(crate) fn tunnel(mut self) -> Self {
        self.tunnel = true;
        self
    }

    /// The application is to hear that the caller closes while it is answered.
    pub(crate) fn caller_closes(mut self) -> Self {
        self.caller_closes = true;
        self
    }

    /// It is written in HTTP/2's terms, and what it says may not be said: a field whose name begins with `=` is sent
    /// without that, whatever it means to HTTP/1, and `␍` is a CR.
    pub(crate) fn raw(mut self) -> Self {
        self.raw = true;
        self.http2()
    }

    /// What the application says in HTTP/2 may not be said; written as with `raw`.
    pub(crate) fn answers_raw(mut self) -> Self {
        self.answers_raw = true;
        self
    }

    /// It is about callers of HTTP/1.
    pub(crate) fn http1_callers(mut self) -> Self {
        self.only_http1.0 = true;
        self
    }

    /// It is about applications of HTTP/1.
    pub(crate) fn http1_applications(mut self) -> Self {
        self.only_http1.1 = true;
        self
    }

    /// Nothing else may be under way: a connection is closed without a word, and could be taken by others.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// So many requests come before the one that is refused.
    pub(crate) fn after(mut self, requests: usize) -> Self {
        if let Expect::Refused { forwarded, .. } = &mut self.expect {
            *forwarded = requests;
        }
        self
    }

    /// The refusal concerns nothing but the request: its connection may stay.
    pub(crate) fn may_stay(mut self) -> Self {
        if let Expect::Refused { closes, .. } = &mut self.expect {
            *closes = false;
        }
        self
    }

    /// Whether its request may come to the application once more, because its connection broke before the response.
    pub(crate) fn may_be_resent(&self) -> bool {
        matches!(self.expect, Expect::Unusable { .. }) || self.answers_raw
    }

    /// How many requests the caller sends.
    pub(crate) fn requests(&self) -> usize {
        self.caller.iter().filter(|step| matches!(step, Step::Head(_))).count()
    }

    /// Whether the caller's side can be spoken in this version.
    pub(crate) fn has_caller(&self, speaks: Speaks) -> bool {
        match speaks {
            Speaks::Http1 => self.native == Speaks::Http1,
            Speaks::Http2 => {
                let valid = !matches!(self.expect, Expect::Refused { .. } | Expect::Broken { .. });
                self.native == Speaks::Http2
                    || (valid && !self.only_http1.0 && self.requests() == 1 && translates(&self.caller, None))
            }
        }
    }

    /// Whether the application's side can be spoken in this version.
    pub(crate) fn has_application(&self, speaks: Speaks) -> bool {
        match speaks {
            Speaks::Http1 => !self.answers_raw,
            Speaks::Http2 => {
                let valid = !matches!(self.expect, Expect::Unusable { .. } | Expect::CutOff);
                let method = self.caller.iter().find_map(|step| match step {
                    Step::Head(bytes) => Some(method(bytes)),
                    _ => None,
                });
                let method = method.unwrap_or_default();
                // Whether the request arrives there at all is not of the application's making.
                let refused = matches!(self.expect, Expect::Refused { .. });
                refused
                    || self.tunnel
                    || self.answers_raw
                    || (valid
                        && !self.only_http1.1
                        && self.requests() == 1
                        && self.application.iter().all(|steps| translates(steps, Some(&method))))
            }
        }
    }
}

/// The method at the beginning of a request.
pub(crate) fn method(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec()
}

/// Whether steps that are written in HTTP/1 mean the same in HTTP/2. `answers` is the method of the request, if these
/// are the application's.
fn translates(steps: &[Step], answers: Option<&[u8]>) -> bool {
    let mut parser = Parser::new(if answers.is_some() { Side::Responses } else { Side::Requests });
    if let Some(method) = answers {
        parser.asked(method);
    }
    steps.iter().all(|step| match step {
        Step::Head(bytes) | Step::Bytes(bytes) => {
            let events = parser.feed(bytes);
            parser.broken().is_none() && events.iter().all(is_of_both)
        }
        Step::Finish => false,
        _ => true,
    })
}

/// Whether HTTP/2 can say the same.
fn is_of_both(event: &Event) -> bool {
    const OF_ONE_HOP: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];
    match event {
        Event::Head(head) => {
            let te = head.all("te").all(|te| te.value.trim_ascii() == b"trailers");
            let said = match &head.start {
                Start::Request { target, .. } => target.starts_with(b"/") && http2::request(head).is_ok(),
                Start::Response { .. } => http2::response(head).is_ok(),
            };
            said && head.version == b"HTTP/1.1"
                && te
                && !head.may_switch()
                && head.code() != 101
                && head.all("content-length").count() <= 1
                && !head.fields.iter().any(|field| OF_ONE_HOP.iter().any(|name| field.is(name)))
        }
        Event::Tunnel(_) => false,
        Event::Data(_) | Event::Trailers(_) | Event::End => true,
    }
}

/// An exchange with which nothing must happen on the way.
pub(crate) fn same(name: &str, section: &str, request: &str) -> Exchange {
    Exchange::new(name, section, Expect::Same).sends(wire(request))
}

/// The same, with steps of the caller.
pub(crate) fn steps(name: &str, section: &str, caller: impl IntoIterator<Item = Step>) -> Exchange {
    Exchange::new(name, section, Expect::Same).caller(caller)
}

/// A response with which nothing must happen on the way.
pub(crate) fn response(name: &str, section: &str, response: &str) -> Exchange {
    same(name, section, "GET / HTTP/1.1\nHost: example.com\n\n").answer(response)
}

/// A request that is not forwarded.
pub(crate) fn refused(
    name: &str,
    section: &str,
    statuses: &'static [u16],
    request: impl Into<Vec<u8>>,
) -> Exchange {
    let expect = Expect::Refused { statuses, closes: true, forwarded: 0 };
    Exchange::new(name, section, expect).sends(request)
}

/// A request whose body is not forwarded to its end.
pub(crate) fn broken(name: &str, section: &str, request: &str) -> Exchange {
    let application = vec![Step::Await(Until::Closed), Step::Close];
    Exchange::new(name, section, Expect::Broken { statuses: &[400] })
        .caller([Step::Head(wire(request)), Step::Await(Until::Closed)])
        .application([application])
}

/// A response that is not passed on.
pub(crate) fn unusable(name: &str, section: &str, response: &str) -> Exchange {
    Exchange::new(name, section, Expect::Unusable { statuses: &[502] })
        .sends(wire("GET / HTTP/1.1\nHost: example.com\n\n"))
        .answer_and_close(response)
}

/// A response that is not passed on to its end.
pub(crate) fn cut_off(name: &str, section: &str, response: &str) -> Exchange {
    Exchange::new(name, section, Expect::CutOff)
        .sends(wire("GET / HTTP/1.1\nHost: example.com\n\n"))
        .answer_and_close(response)
}

/// Sends a head and what follows.
pub(crate) fn head(text: &str) -> Step {
    Step::Head(wire(text))
}

/// Sends bytes as they go over the wire.
pub(crate) fn bytes(text: &str) -> Step {
    Step::Bytes(wire(text))
}

/// Waits.
pub(crate) const fn until(what: Until) -> Step {
    Step::Await(what)
}
