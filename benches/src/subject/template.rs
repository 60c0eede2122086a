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

/// The line without its conditions, if they hold. Whatever stands before and behind them stays.
fn wanted(line: &str, on: &[(&str, bool)]) -> Option<String> {
    let start = line.len() - line.trim_start().len();
    let (indent, mut rest) = line.split_at(start);
    while let Some((condition, after)) =
        rest.trim_start_matches(' ').strip_prefix('@').and_then(|rest| rest.split_once("? "))
    {
        let (name, wanted) = condition.strip_prefix('!').map_or((condition, true), |name| (name, false));
        // It is a value that the line begins with.
        if !is_name(name) {
            break;
        }
        let is = on.iter().find_map(|(known, is)| (*known == name).then_some(*is));
        assert!(is.is_some(), "unknown condition in a template: {line}");
        if is != Some(wanted) {
            return None;
        }
        rest = after;
    }
    Some(format!("{indent}{rest}"))
}

fn replaced(line: &str, values: &[(&str, String)]) -> String {
    let (mut filled, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once('@') {
        filled += before;
        rest = match after.split_once('@') {
            Some((name, after)) if is_name(name) => {
                let value = values.iter().find_map(|(known, value)| (*known == name).then_some(value));
                assert!(value.is_some(), "unknown value in a template: {line}");
                filled += value.map_or("", String::as_str);
                after
            }
            // One that the proxy's own language has.
            _ => {
                filled.push('@');
                after
            }
        };
    }
    filled + rest
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
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
        assert_eq!(replaced("\"@type\": @host@", &values), "\"@type\": h");
        assert_eq!(wanted("  @tls? @log?   - x", &[("tls", true), ("log", true)]).unwrap(), "    - x");
        assert_eq!(fill(true, true), "# @a@ @b? c\nlisten h:1;\n  ssl on;\nend");
    }
}
