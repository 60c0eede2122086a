//! Interim responses (RFC 9110, section 15.2) and `Expect` (section 10.1.1).

use super::super::exchange::{Exchange, Step, Until, bytes, head, same, steps, until};

const EXPECTING: &str = "POST / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 5\n\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\n\n";
const OK: &str = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok";

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    expectations().into_iter().chain(others()).collect()
}

fn expectations() -> [Exchange; 8] {
    let complete = || until(Until::Complete);
    let continued = |name, section, request: &str, body: &str, interim: &str| {
        steps(name, section, [head(request), until(Until::Interim(1)), bytes(body), complete()])
            .application([vec![until(Until::Head), head(interim), complete(), head(OK)]])
    };
    let chunked = "POST / HTTP/1.1\nHost: a\nExpect: 100-continue\nTransfer-Encoding: chunked\n\n";
    let odd = "POST / HTTP/1.1\nHost: a\neXPECT: 100-Continue\nContent-Length: 5\n\n";
    [
        // The application says when to go on, nobody else.
        continued("expect", "RFC 9110, 10.1.1", EXPECTING, "hello", CONTINUE),
        continued("expect-chunks", "RFC 9110, 10.1.1", chunked, "5\nhello\n0\nX-A: 1\n\n", CONTINUE),
        continued("expect-in-odd-case", "RFC 9110, 10.1.1", odd, "hello", CONTINUE),
        continued("expect-reason-of-its-own", "RFC 9112, 4", EXPECTING, "hello", "HTTP/1.1 100 Go On\n\n"),
        continued(
            "expect-with-fields",
            "RFC 9110, 15.2.1",
            EXPECTING,
            "hello",
            "HTTP/1.1 100 Continue\nX-Interim: 1\n\n",
        ),
        steps("expect-refused", "RFC 9110, 10.1.1", [head(EXPECTING), complete()])
            .application([vec![
                until(Until::Head),
                head("HTTP/1.1 417 Expectation Failed\nConnection: close\nContent-Length: 2\n\nno"),
                Step::Close,
            ]])
            .http1_applications(),
        // A caller need not wait.
        steps("expect-not-waited-for", "RFC 9110, 10.1.1", [head(EXPECTING), bytes("hello"), complete()])
            .application([vec![complete(), head(CONTINUE), head(OK)]]),
        same("expect-something-else", "RFC 9110, 10.1.1", "GET / HTTP/1.1\nHost: a\nExpect: a=b\n\n"),
    ]
}

fn others() -> [Exchange; 8] {
    let complete = || until(Until::Complete);
    let get = "GET / HTTP/1.1\nHost: a\n\n";
    let hints = "HTTP/1.1 103 Early Hints\nLink: </a.css>; rel=preload\nLink: </b.js>; rel=preload\n\n";
    let before = |name, section, interims: &[&str]| {
        let sent = interims.iter().map(|text| head(text));
        let script = [complete()].into_iter().chain(sent).chain([head(OK)]).collect();
        same(name, section, get).application([script])
    };
    [
        before("early-hints", "RFC 8297, 2", &[hints]),
        before("early-hints-twice", "RFC 8297, 2", &[hints, "HTTP/1.1 103 Early Hints\nLink: </c>\n\n"]),
        before("processing", "RFC 2518, 10.1", &["HTTP/1.1 102 Processing\n\n"]),
        before("interim-of-no-name", "RFC 9110, 15.2", &["HTTP/1.1 142 Whatever\nX-A: 1\n\n"]),
        before("continue-unasked", "RFC 9110, 15.2.1", &[CONTINUE]),
        before(
            "interims-of-several-kinds",
            "RFC 9110, 15.2",
            &[CONTINUE, hints, "HTTP/1.1 102 Processing\n\n", hints],
        ),
        // The hints arrive while the application still works.
        steps(
            "early-hints-at-once",
            "RFC 8297, 2",
            [head(get), until(Until::Interim(1)), Step::Mark("hinted"), complete()],
        )
        .application([vec![complete(), head(hints), Step::Wait("hinted"), head(OK)]]),
        steps(
            "early-hints-while-sending",
            "RFC 8297, 2",
            [
                head("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\n"),
                until(Until::Interim(1)),
                bytes("hello"),
                complete(),
            ],
        )
        .application([vec![until(Until::Head), head(hints), complete(), head(OK)]]),
    ]
}
