//! What serde says about a field, in the words of whoever wrote the configuration.

/// How the reason of an unknown field begins; its position is that of its key.
pub(crate) const UNKNOWN_FIELD: &str = "unknown field";

/// Fields that are easily written in the wrong place: a field by which that is known, their names, where they belong.
const ELSEWHERE: [(&str, &[&str], &str); 7] = [
    (
        "rules",
        &["matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"],
        "it belongs in one of the `rules`",
    ),
    ("direction", &["path", "forwarded", "via", "limits"], "it belongs in `http`"),
    ("tcpIdle", &["header", "idle", "stream", "maxConnectionAge"], "it belongs in `http.timeouts`"),
    ("stream", &["tlsHandshake", "tcpIdle"], "it belongs in the listener's own `timeouts`"),
    (
        "hedgeDelay",
        &["timeout", "perTryTimeout", "backendRequest"],
        "the rule's `timeouts.backendRequest` is for one attempt",
    ),
    ("idleConnection", &["connect", "connectTimeout"], "the backend's `connectTimeout` is that"),
    ("adaptive", &["budget", "retryBudget"], "the backend's `retryConstraint` has it"),
];

/// Rewords a message of serde: a suggestion for what is unknown, YAML's names for types.
pub(crate) fn reword(message: &str) -> String {
    for what in [UNKNOWN_FIELD, "unknown variant"] {
        let Some(rest) = message.strip_prefix(what).and_then(|rest| rest.strip_prefix(" `")) else {
            continue;
        };
        if let Some(name) = rest.strip_suffix("`, there are no fields") {
            return format!("{what} `{name}`: no field is allowed here");
        }
        let Some((name, expected)) = rest.rsplit_once("`, expected ") else { continue };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let elsewhere =
            ELSEWHERE.iter().find(|(here, names, _)| known.contains(here) && names.contains(&name));
        if let (UNKNOWN_FIELD, Some((_, _, place))) = (what, elsewhere) {
            return format!("{what} `{name}`: {place}");
        }
        let what = if what == UNKNOWN_FIELD { what } else { "unknown value" };
        return format!("{what} `{name}`: {}", suggest(name, &known));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|m| m.split_once(", expected "))
    {
        return mistyped(found, expected);
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid value: ").and_then(|m| m.split_once(", expected "))
    {
        return format!("{} is not {}", yaml_type(found), yaml_type(expected));
    }
    message.to_owned()
}

/// `did you mean …?` where one of the known words is near or alone has the word in it, a list of all where none is.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase();
    let mut longer = known.iter().filter(|known| lower.len() > 3 && known.to_lowercase().contains(&lower));
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return format!("did you mean `{only}`?");
    }
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len().div_ceil(4));
    match (near, known) {
        (Some((_, near)), _) => format!("did you mean `{near}`?"),
        (None, [only]) => format!("the only one is `{only}`"),
        (None, _) => format!("use one of `{}`", known.join("`, `")),
    }
}

fn mistyped(found: &str, expected: &str) -> String {
    let is = |kinds: &[&str]| kinds.iter().any(|kind| found.starts_with(kind));
    let (number, text) = (is(&["integer", "floating point", "boolean"]), is(&["string"]));
    let expected = yaml_type(expected);
    let advice = match &*expected {
        "text" if number => ": put it in quotes",
        "a list" if number || text => ": put it in brackets",
        "an object" if number || text => ": write `{ field: value }`",
        _ => "",
    };
    format!("expected {expected}, found {}{advice}", yaml_type(found))
}

/// A type as serde names it, as a reader of YAML would.
fn yaml_type(name: &str) -> String {
    for (prefix, plain) in [
        ("struct ", "an object"),
        ("enum ", "a word"),
        ("a sequence", "a list"),
        ("sequence", "a list"),
        ("map", "an object"),
        ("a string", "text"),
        ("unit", "nothing"),
        ("null", "nothing"),
        ("a nonzero u16", "a whole number from 1 to 65535"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number"),
    ] {
        if name.starts_with(prefix) {
            return plain.to_owned();
        }
    }
    match name.split_once(' ') {
        Some(("string", text)) => format!("text {}", text.replace('"', "`")),
        Some(("integer", number)) => format!("the number {number}"),
        Some(("floating", rest)) => format!("the number {}", rest.trim_start_matches("point ")),
        Some(("boolean", value)) => value.to_owned(),
        _ => name.to_owned(),
    }
}

/// What the parser of YAML says, with what to do about it.
pub(crate) fn advised(said: &str) -> String {
    const INDENT: &str = "indent this line as those that it belongs to";
    const COLON: &str = "write `key: value`, with a space, and indent it as those beside it";
    const CLOSE: &str = "close the bracket, or put text with `{`, `}`, `[`, `]` or `,` in quotes";
    const QUOTE: &str = "put the text in quotes";
    let advice = [
        ("did not find expected key", INDENT),
        ("did not find expected '-' indicator", INDENT),
        ("tabs disallowed", "indent with spaces"),
        ("mapping values are not allowed", COLON),
        ("simple key expected ':'", COLON),
        ("did not find expected ',' or", CLOSE),
        ("\"-\" is only valid inside a block", "close the bracket above, or indent this line"),
        ("invalid indentation in multiline quoted scalar", "close the quote above"),
        ("unexpected character", QUOTE),
        ("unknown anchor", QUOTE),
    ];
    match advice.iter().find(|(part, _)| said.contains(part)) {
        Some((_, advice)) => format!("{said}: {advice}"),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::reword;

    #[test]
    fn says_what_is_meant() {
        for (serde, ours) in [
            (
                "unknown field `requst`, expected `request` or `backendRequest`",
                "unknown field `requst`: did you mean `request`?",
            ),
            ("unknown field `a`b`, expected `xyz`", "unknown field `a`b`: the only one is `xyz`"),
            ("unknown field `x`, there are no fields", "unknown field `x`: no field is allowed here"),
            (
                "unknown variant `http`, expected one of `HTTP`, `TCP`, `TLS`",
                "unknown value `http`: did you mean `HTTP`?",
            ),
            (
                "unknown variant `QUIC`, expected one of `HTTP`, `TCP`, `TLS`",
                "unknown value `QUIC`: use one of `HTTP`, `TCP`, `TLS`",
            ),
            (
                "unknown variant `Header`, expected one of `RequestHeader`, `Redirect`, `Healer`",
                "unknown value `Header`: did you mean `RequestHeader`?",
            ),
            (
                "unknown field `filters`, expected `listeners` or `rules`",
                "unknown field `filters`: it belongs in one of the `rules`",
            ),
            ("invalid type: string \"10Mi\", expected u64", "expected a whole number, found text `10Mi`"),
            (
                "invalid type: integer `1`, expected a string",
                "expected text, found the number `1`: put it in quotes",
            ),
            ("invalid type: map, expected a sequence", "expected a list, found an object"),
            (
                "invalid type: string \"a\", expected struct Timeouts",
                "expected an object, found text `a`: write `{ field: value }`",
            ),
            (
                "invalid type: integer `503`, expected a sequence",
                "expected a list, found the number `503`: put it in brackets",
            ),
            (
                "unknown field `failureThreshold`, expected one of `healthyThreshold`, `interval`",
                "unknown field `failureThreshold`: use one of `healthyThreshold`, `interval`",
            ),
            (
                "unknown field `idle`, expected `tlsHandshake` or `tcpIdle`",
                "unknown field `idle`: it belongs in `http.timeouts`",
            ),
            (
                "unknown field `timeout`, expected `attempts` or `hedgeDelay`",
                "unknown field `timeout`: the rule's `timeouts.backendRequest` is for one attempt",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "the number `70000` is not a whole number from 0 to 65535",
            ),
            ("missing field `rules`", "missing field `rules`"),
        ] {
            assert_eq!(reword(serde), ours);
        }
    }
}
