//! The templates in `benches/peers`.
//!
//! `@name@` is replaced by a value. A line that begins with `@name?` is there only where that is on, one that begins with
//! `@!name?` only where it is not; more than one of these may stand before a line. Comments stay as they are.

/// Fills a template in.
///
/// # Panics
///
/// If the template has a name that is not given: it is part of this program.
pub(super) fn fill(template: &str, values: &[(&str, String)], on: &[(&str, bool)]) -> String {
    let mut filled = String::with_capacity(template.len());
    for line in template.split_inclusive('\n') {
        if line.trim_start().starts_with('#') {
            filled += line;
        } else if let Some(line) = wanted(line, on) {
            filled += &replaced(&line, values);
        }
    }
    filled
}

/// The line without its conditions, if they hold; what they stood behind stays.
fn wanted(line: &str, on: &[(&str, bool)]) -> Option<String> {
    let start = line.len() - line.trim_start().len();
    let (indent, mut rest) = line.split_at(start);
    while let Some((condition, after)) = rest.strip_prefix('@').and_then(|rest| rest.split_once("? ")) {
        // An `@` in between: it is the beginning of a value.
        if condition.contains(['@', ' ']) {
            break;
        }
        let (name, wanted) = condition.strip_prefix('!').map_or((condition, true), |name| (name, false));
        let is = on.iter().find_map(|(known, is)| (*known == name).then_some(*is));
        assert!(is.is_some(), "unknown condition in a template: {line}");
        if is != Some(wanted) {
            return None;
        }
        rest = after.trim_start_matches(' ');
    }
    Some(format!("{indent}{rest}"))
}

fn replaced(line: &str, values: &[(&str, String)]) -> String {
    let mut parts = line.split('@');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    while let Some(name) = parts.next() {
        let value = values.iter().find_map(|(known, value)| (*known == name).then_some(value));
        assert!(value.is_some(), "unknown value in a template: {line}");
        filled += value.map_or("", String::as_str);
        filled += parts.next().unwrap_or_default();
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_values_in_and_keeps_lines_that_are_wanted() {
        let template = "# @a@ @b? c\nlisten @host@:@port@;\n  @tls? ssl on;\n  @!tls? @log? log;\n@tls? @!log? quiet @host@\nend";
        let values = [("host", "h".to_owned()), ("port", "1".to_owned())];
        let fill = |tls, log| fill(template, &values, &[("tls", tls), ("log", log)]);
        assert_eq!(fill(true, false), "# @a@ @b? c\nlisten h:1;\n  ssl on;\nquiet h\nend");
        assert_eq!(fill(false, true), "# @a@ @b? c\nlisten h:1;\n  log;\nend");
        assert_eq!(fill(true, true), "# @a@ @b? c\nlisten h:1;\n  ssl on;\nend");
    }
}
