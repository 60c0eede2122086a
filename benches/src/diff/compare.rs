//! Whether what was seen is what was expected.

use std::collections::BTreeSet;

use super::{
    Path,
    allowed::{Context, INTERIM, RESENT, RULES, UNNOTICED},
    caller::Transcript,
    exchange::{Exchange, Expect, SILENCE, Speaks},
    message::{End, Field, Message, Start, readable},
};

/// What a comparison found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    /// What differs and may not, each in a line.
    pub(crate) differences: Vec<String>,
    /// What differs and may: the rules' names.
    pub(crate) allowed: BTreeSet<&'static str>,
}

/// Who took part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) caller: Speaks,
    pub(crate) application: Speaks,
    /// Whether there is a proxy.
    pub(crate) proxied: bool,
    /// Whether it is at the edge.
    pub(crate) edge: bool,
    /// Whether it is ours, so that it must name its reasons.
    pub(crate) ours: bool,
}

impl Ends {
    pub(crate) const fn new(path: Path, caller: Speaks, application: Speaks) -> Self {
        Self {
            caller,
            application,
            proxied: !matches!(path, Path::Direct),
            edge: matches!(path, Path::Proxy | Path::Through { .. }),
            ours: matches!(path, Path::Proxy | Path::Sidecars),
        }
    }
}

/// Compares an exchange with what it is without a proxy.
pub(crate) fn judge(exchange: &Exchange, reference: &Transcript, seen: &Transcript, ends: Ends) -> Verdict {
    let mut verdict = Verdict::default();
    let http2_between = ends.application == Speaks::Http2 || (ends.proxied && !ends.edge);
    for why in &seen.stuck {
        if exchange.caller_closes && http2_between && why.ends_with("waited in vain for Closed") {
            verdict.allowed.insert(UNNOTICED.id);
        } else {
            verdict.differences.push(why.clone());
        }
    }
    let broken =
        reference.application.iter().chain(&reference.caller).find_map(|message| match &message.end {
            End::Broken(why) => Some(why),
            _ => None,
        });
    if let (Expect::Same, Some(why)) = (&exchange.expect, broken) {
        verdict.differences.push(format!("the exchange itself is wrong: {why}"));
    }
    let speaking = [exchange.native, ends.caller, ends.application];
    let request = reference.application.first().map(|message| &message.head);
    let context = Context::new(&speaking, ends, request);
    let expect = if ends.proxied { &exchange.expect } else { &Expect::Same };
    match expect {
        Expect::Same => {
            verdict.requests(context, reference, seen);
            verdict.responses(context, &reference.caller, &seen.caller);
        }
        Expect::Refused { statuses, closes, forwarded } => {
            verdict.refused(seen, statuses, *closes, *forwarded, ends.ours);
        }
        Expect::Broken { statuses } => {
            verdict.answered(seen, statuses, ends.ours);
            if seen.application.iter().any(Message::is_complete) {
                verdict.differences.push("the application took the request for complete".into());
            }
            if !seen.ended {
                verdict.differences.push("the caller's connection stays".into());
            }
        }
        Expect::Unusable { statuses } => {
            let once = verdict.once(seen);
            verdict.requests(context, reference, &once);
            verdict.answered(seen, statuses, ends.ours);
        }
        Expect::CutOff => {
            let once = exchange.may_be_resent().then(|| verdict.once(seen));
            verdict.requests(context, reference, once.as_ref().unwrap_or(seen));
            verdict.cut_off(seen, ends.caller);
        }
    }
    verdict
}

impl Verdict {
    fn requests(&mut self, context: Context, reference: &Transcript, seen: &Transcript) {
        self.lists("to the application", context, &reference.application, &seen.application);
    }

    /// What was seen without a request that came once more.
    fn once(&mut self, seen: &Transcript) -> Transcript {
        let mut once = seen.clone();
        once.application.dedup();
        if once.application.len() < seen.application.len() {
            self.allowed.insert(RESENT.id);
        }
        once
    }

    fn responses(&mut self, context: Context, expected: &[Message], seen: &[Message]) {
        let known: Vec<Message> = if context.http10 {
            expected.iter().filter(|message| !message.head.is_interim()).cloned().collect()
        } else {
            expected.to_vec()
        };
        if known.len() < expected.len() {
            self.allowed.insert(INTERIM.id);
        }
        self.lists("to the caller", context, &known, seen);
    }

    fn lists(&mut self, direction: &str, context: Context, expected: &[Message], seen: &[Message]) {
        let kinds = |messages: &[Message]| {
            let kinds: Vec<String> = messages.iter().map(kind).collect();
            format!("{} ({})", kinds.len(), kinds.join(", "))
        };
        let interim = |messages: &[Message]| messages.iter().filter(|m| m.head.is_interim()).count();
        if expected.len() != seen.len() || interim(expected) != interim(seen) {
            let (expected, seen) = (kinds(expected), kinds(seen));
            self.differences.push(format!("{direction}: messages {expected} → {seen}"));
            return;
        }
        for (expected, seen) in expected.iter().zip(seen) {
            let (expected, seen) = self.canonical(context, expected.clone(), seen.clone());
            let found = differences(&expected, &seen);
            self.differences.extend(found.into_iter().map(|line| format!("{direction}: {line}")));
        }
    }

    /// Takes out what may differ, and remembers what did.
    fn canonical(
        &mut self,
        context: Context,
        mut expected: Message,
        mut seen: Message,
    ) -> (Message, Message) {
        let mut distance = differences(&expected, &seen).len();
        for rule in RULES {
            (rule.apply)(context, &mut expected, &mut seen);
            let left = differences(&expected, &seen).len();
            if left < distance {
                self.allowed.insert(rule.id);
            }
            distance = left;
        }
        (expected, seen)
    }

    /// The caller must have got one of these statuses last, from the proxy.
    fn answered(&mut self, seen: &Transcript, statuses: &[u16], ours: bool) {
        let Some(last) = seen.caller.iter().rfind(|message| !message.head.is_interim()) else {
            if statuses.contains(&SILENCE) {
                return;
            }
            self.differences.push(format!("to the caller: {statuses:?} → nothing"));
            return;
        };
        if !statuses.contains(&last.head.code()) {
            self.differences.push(format!("to the caller: {statuses:?} → {}", kind(last)));
        } else if ours && last.head.first("proxy-status").is_none() {
            self.differences.push("to the caller: no Proxy-Status".into());
        }
        if !last.is_complete() {
            self.differences.push("to the caller: the answer is not complete".into());
        }
    }

    fn refused(&mut self, seen: &Transcript, statuses: &[u16], closes: bool, forwarded: usize, ours: bool) {
        self.answered(seen, statuses, ours);
        let answers = seen.caller.iter().filter(|message| !message.head.is_interim()).count();
        if answers != forwarded + 1 && !(answers == forwarded && statuses.contains(&SILENCE)) {
            self.differences.push(format!("to the caller: {} answers → {answers}", forwarded + 1));
        }
        for message in seen.application.iter().skip(forwarded) {
            self.differences.push(format!("to the application: nothing → {}", kind(message)));
        }
        if closes && !seen.ended {
            self.differences.push("the caller's connection stays".into());
        }
    }

    fn cut_off(&mut self, seen: &Transcript, caller: Speaks) {
        match seen.caller.last() {
            // The reset of a stream overtakes what was sent on it.
            None if caller == Speaks::Http2 && seen.ended => {}
            None => self.differences.push("to the caller: a response that is cut off → nothing".into()),
            Some(last) if last.is_complete() && last.head.code() != 502 => {
                self.differences.push("to the caller: a response that is cut off → a complete one".into());
            }
            Some(_) => {}
        }
    }
}

/// A message in a word or two.
fn kind(message: &Message) -> String {
    match &message.head.start {
        Start::Request { method, target, .. } => format!("{} {}", readable(method), readable(target)),
        Start::Response { code, .. } => code.to_string(),
    }
}

/// What differs, one line each.
fn differences(expected: &Message, seen: &Message) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut differ = |what: &str, expected: String, seen: String| {
        if expected != seen {
            found.push(format!("{what}: {expected} → {seen}"));
        }
    };
    match (&expected.head.start, &seen.head.start) {
        (
            Start::Request { method, target, authority, protocol },
            Start::Request { method: m, target: t, authority: a, protocol: p },
        ) => {
            differ("method", readable(method), readable(m));
            differ("target", readable(target), readable(t));
            differ(":authority", optional(authority.as_deref()), optional(a.as_deref()));
            differ(":protocol", optional(protocol.as_deref()), optional(p.as_deref()));
        }
        (Start::Response { code, .. }, Start::Response { code: c, .. }) if code != c => {
            // Another response altogether.
            let why = seen.head.first("proxy-status").map(|why| format!(" ({})", readable(why)));
            return vec![format!("status: {code} → {c}{}", why.unwrap_or_default())];
        }
        (Start::Response { reason, .. }, Start::Response { reason: r, .. }) => {
            differ("reason", optional(reason.as_deref()), optional(r.as_deref()));
        }
        _ => differ("kind", kind(expected), kind(seen)),
    }
    differ("version", readable(&expected.head.version), readable(&seen.head.version));
    differ("body", readable(&expected.body), readable(&seen.body));
    if expected.body != seen.body && expected.body.len() == seen.body.len() {
        differ("body", "as long".into(), "but different".into());
    }
    differ("after the change of protocol", readable(&expected.tunnel), readable(&seen.tunnel));
    differ("end", ending(&expected.end), ending(&seen.end));
    sections("field", &expected.head.fields, &seen.head.fields, &mut found);
    sections("trailer", &expected.trailers, &seen.trailers, &mut found);
    found
}

fn optional(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "none".into(), readable)
}

fn ending(end: &End) -> String {
    match end {
        End::Complete => "complete".into(),
        End::Closed => "cut off by a close".into(),
        End::Reset => "cut off by a reset".into(),
        End::Broken(why) => why.clone(),
        End::Unread => "unread".into(),
    }
}

/// What is missing of a section, what was added, and whether the rest is in order.
fn sections(what: &str, expected: &[Field], seen: &[Field], found: &mut Vec<String>) {
    let line = |field: &Field| format!("{}:{}", readable(&field.name), readable(&field.value));
    let (mut missing, mut kept) = (seen.to_vec(), Vec::new());
    for field in expected {
        match missing.iter().position(|other| other == field) {
            Some(at) => {
                missing.remove(at);
                kept.push(field.clone());
            }
            None => found.push(format!("{what} missing: {}", line(field))),
        }
    }
    found.extend(missing.iter().map(|field| format!("{what} added: {}", line(field))));
    let mut rest = missing;
    let still: Vec<Field> = seen
        .iter()
        .filter(|field| match rest.iter().position(|other| other == *field) {
            Some(at) => {
                rest.remove(at);
                false
            }
            None => true,
        })
        .cloned()
        .collect();
    if kept != still {
        let names =
            |fields: &[Field]| fields.iter().map(|field| readable(&field.name)).collect::<Vec<_>>().join(" ");
        found.push(format!("{what}s in another order: {} → {}", names(&kept), names(&still)));
    }
}
