//! Regular expressions for the whole of a text.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::Extractor;

use super::{Refused, refuse};

/// The most characters of an expression, as the Gateway API has it for headers.
const LONGEST: usize = 4096;
/// The most bytes that an expression may have when it is compiled.
const PROGRAM: usize = 1 << 20;

/// A regular expression in the syntax of the `regex` crate (RE2's, linear in time), matched against the whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Arc<str>,
    /// What every text that it matches begins with.
    prefix: Arc<str>,
    /// What the expression itself begins with, as far as it is plain text. The prefix begins with it.
    literal: Arc<str>,
    /// The rest of the expression.
    rest: Arc<str>,
    /// The rest, for the whole of what follows the literal: shorter to match, and of many expressions often the same.
    regex: Arc<Regex>,
}

text!(
    Pattern,
    "Pattern",
    "a string",
    "A regular expression (RE2 syntax), matched against the whole text.",
    r"^[\s\S]{0,4096}$"
);

impl Pattern {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Text with which everything begins that it matches; often empty.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The expression as it is compiled: for the whole text.
    pub(crate) fn anchored(&self) -> String {
        anchored(&self.source)
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        text.strip_prefix(&*self.literal).is_some_and(|rest| self.regex.is_match(rest))
    }

    /// Uses what is compiled of an equal rest already, so that many expressions stay near in memory.
    pub(crate) fn share(&mut self, compiled: &mut HashMap<Arc<str>, Arc<Regex>>) {
        self.regex = compiled.entry(self.rest.clone()).or_insert_with(|| self.regex.clone()).clone();
    }
}

impl FromStr for Pattern {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let length = text.chars().count();
        if length > LONGEST {
            return refuse(format!("the expression has {length} characters: it must have at most {LONGEST}"));
        }
        let wrong =
            |error: &dyn fmt::Display| Refused(format!("`{text}` is not a regular expression: {error}"));
        // Read on its own first, so that `)(` cannot close the group that anchors it.
        let parsed = ast::parse::Parser::new().parse(text).map_err(|error| wrong(&error))?;
        let prefix = literal_prefix(text);
        let (literal, rest) = split(text, &parsed, &prefix);
        let regex = RegexBuilder::new(&anchored(rest)).size_limit(PROGRAM).build();
        let regex = regex.map_err(|error| wrong(&error))?;
        Ok(Self {
            source: text.into(),
            prefix: prefix.into(),
            literal: literal.into(),
            rest: rest.into(),
            regex: Arc::new(regex),
        })
    }
}

fn anchored(source: &str) -> String {
    format!("^(?:{source})$")
}

/// The text with which everything begins that an expression matches, as far as it is easily seen.
fn literal_prefix(source: &str) -> String {
    let Ok(parsed) = regex_syntax::parse(source) else { return String::new() };
    let prefixes = Extractor::new().extract(&parsed);
    let common = prefixes.longest_common_prefix().unwrap_or_default();
    let text = common.utf8_chunks().next().map(|chunk| chunk.valid());
    text.unwrap_or_default().to_owned()
}

/// The plain text that an expression begins with, and the rest of it, which can be matched by itself. `prefix` is what
/// everything begins with that it matches.
fn split<'a>(source: &'a str, parsed: &Ast, prefix: &str) -> (String, &'a str) {
    let whole = (String::new(), source);
    let Ast::Concat(concat) = parsed else { return whole };
    let mut literals = concat.asts.iter().map_while(|ast| match ast {
        Ast::Literal(literal) => Some(literal),
        _ => None,
    });
    let (mut text, mut end) = (String::new(), 0);
    for literal in literals.by_ref() {
        text.push(literal.c);
        end = literal.span.end.offset;
    }
    let Some(rest) = source.get(end..).filter(|_| prefix.starts_with(&*text)) else { return whole };
    // What looks back, as `\b` does, would not see the text.
    let looks = regex_syntax::parse(rest).map(|parsed| parsed.properties().look_set());
    match looks {
        Ok(looks) if looks.iter().all(|look| look == Look::End) => (text, rest),
        _ => whole,
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(source: &str) -> (String, String) {
        let pattern: Pattern = source.parse().unwrap();
        (pattern.literal.to_string(), pattern.rest.to_string())
    }

    #[test]
    fn plain_text_at_the_beginning_is_set_apart() {
        for (source, literal, rest) in [
            ("/service-1/[0-9]+/.*", "/service-1/", "[0-9]+/.*"),
            (r"/a\.b.*", "/a.b", ".*"),
            ("/ab?c", "/a", "b?c"),
            ("/a|/b", "", "/a|/b"),
            ("^/a.*", "", "^/a.*"),
            ("(?i)/a.*", "", "(?i)/a.*"),
            (r"/a\b.*", "", r"/a\b.*"),
            ("/a(?m:^b)", "", "/a(?m:^b)"),
            ("/a.*$", "/a", ".*$"),
            ("/abc", "/abc", ""),
            ("x", "", "x"),
            ("é+.", "", "é+."),
            ("éé+.", "é", "é+."),
        ] {
            assert_eq!(parts(source), (literal.to_owned(), rest.to_owned()), "{source}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused_in_few_words() {
        assert!("a".repeat(4096).parse::<Pattern>().is_ok());
        for source in ["a".repeat(1 << 20), "(a{99}){99}{99}".to_owned(), "(".repeat(300), "a)(b".to_owned()]
        {
            let refused = source.parse::<Pattern>().unwrap_err().to_string();
            assert!(refused.len() < 4096, "{refused}");
        }
    }

    proptest! {
        /// Whatever is set apart, the same texts match.
        #[test]
        fn it_matches_as_the_whole_expression_does(
            source in r"(/|a|\.|b\??|\[ab\]|\(a\|b\)|\||\^|\$|\\b|.|a\*){0,8}",
            texts in prop::collection::vec("[/ab.]{0,6}", 1..8),
        ) {
            if let (Ok(pattern), Ok(regex)) = (source.parse::<Pattern>(), Regex::new(&anchored(&source))) {
                for text in texts {
                    prop_assert_eq!(pattern.is_match(&text), regex.is_match(&text), "{} {}", source, text);
                }
            }
        }
    }
}
