//! The spellings of a path that are one to routes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::borrow::Cow;

use outrigger_config::listener::{EncodedSlash, HttpPath, Normalize};
use outrigger_config::path::{PathRefused, normalize};
use proptest::prelude::*;

const AS_IS: HttpPath =
    HttpPath { normalize: Normalize::None, merge_slashes: false, encoded_slash: EncodedSlash::Keep };
const RFC3986: HttpPath = HttpPath { normalize: Normalize::Rfc3986, ..AS_IS };

#[track_caller]
fn assert_forms(how: HttpPath, forms: &[(&str, &str)]) {
    for (path, form) in forms {
        let found = normalize(path, how).unwrap();
        assert_eq!(found, *form, "{path}");
        assert_eq!(matches!(found, Cow::Borrowed(_)), path == form, "{path} is not copied");
    }
}

#[test]
fn rfc3986_has_one_form() {
    assert_forms(
        RFC3986,
        &[
            ("/", "/"),
            ("/a/b.c/d~e", "/a/b.c/d~e"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a/.b", "/..a/.b"),
            ("//a//", "//a//"),
            ("/%20%C3%A9", "/%20%C3%A9"),
            ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
            // Decoded, where that changes nothing.
            ("/%61%7E%2d", "/a~-"),
            // Left, where it would: these are other characters, reserved in a path.
            ("/a%3bb%2Fc%3F%23", "/a%3Bb%2Fc%3F%23"),
            ("/%00%25%c3%a9", "/%00%25%C3%A9"),
            // What may not stand in a path.
            ("/é \"{}|\\^`<>", "/%C3%A9%20%22%7B%7D%7C%5C%5E%60%3C%3E"),
            ("/100%", "/100%25"),
            ("/%2", "/%252"),
            ("/%zz%é", "/%25zz%25%C3%A9"),
            ("/%2%46", "/%252F"),
            // Dots, however they are spelt.
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/.", "/"),
            ("/./", "/"),
            ("//..", "/"),
            // No paths.
            ("*", "*"),
            ("", ""),
        ],
    );
}

#[test]
fn as_it_is_means_as_it_is() {
    let paths = ["/a/../b", "//", "/%7e%2f%2F", "/é", "/%zz"];
    assert_forms(AS_IS, &paths.map(|path| (path, path)));
}

#[test]
fn slashes_are_merged_before_dots_are_resolved() {
    let how = HttpPath { merge_slashes: true, ..RFC3986 };
    assert_forms(
        how,
        &[("//a///b//", "/a/b/"), ("/a//../b", "/b"), ("/a/%2Fb", "/a/%2Fb"), ("/a/b", "/a/b")],
    );
    assert_forms(
        HttpPath { merge_slashes: true, ..AS_IS },
        &[("//a/..//%7e", "/a/../%7e"), ("/%7e", "/%7e")],
    );
}

#[test]
fn an_encoded_slash_is_what_is_said() {
    for base in [AS_IS, RFC3986] {
        let refuse = HttpPath { encoded_slash: EncodedSlash::Refuse, ..base };
        assert_eq!(normalize("/a%2Fb", refuse), Err(PathRefused));
        assert_eq!(normalize("/a%2fb", refuse), Err(PathRefused));
        assert_forms(refuse, &[("/a/b%20", "/a/b%20"), ("/%252F", "/%252F")]);
        let slash = HttpPath { encoded_slash: EncodedSlash::Slash, ..base };
        assert_forms(slash, &[("/a%2Fb%2fc", "/a/b/c"), ("/a/%20", "/a/%20")]);
    }
    let slash = HttpPath { encoded_slash: EncodedSlash::Slash, merge_slashes: true, ..RFC3986 };
    assert_forms(slash, &[("/a/%2F..%2fb", "/b"), ("/admin%2F..%2F..%2Fx", "/x")]);
}

fn any_how() -> impl Strategy<Value = HttpPath> {
    let slash = [EncodedSlash::Keep, EncodedSlash::Refuse, EncodedSlash::Slash];
    (any::<bool>(), any::<bool>(), prop::sample::select(slash.to_vec())).prop_map(
        |(rfc3986, merge_slashes, encoded_slash)| HttpPath {
            normalize: if rfc3986 { Normalize::Rfc3986 } else { Normalize::None },
            merge_slashes,
            encoded_slash,
        },
    )
}

fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "/", "//", ".", "..", "a", "%", "%2", "%2F", "%2f", "%2E", "%2e", "%61", "%3b", "%00", "%25",
            ";", "é"
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| format!("/{}", parts.concat()))
}

/// What a path stands for, byte by byte: a reserved character that is encoded is not the same as one that is not.
fn meaning(path: &str) -> Vec<(u8, bool)> {
    let bytes = path.as_bytes();
    let (mut meaning, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let escape = path.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
        let (byte, encoded) = match escape.filter(|_| byte == b'%') {
            Some(digits) => (u8::from_str_radix(digits, 16).unwrap(), true),
            None => (byte, false),
        };
        at += if encoded { 3 } else { 1 };
        let delimiter = b"/!$&'()*+,;=:@".contains(&byte);
        meaning.push((byte, encoded && delimiter));
    }
    meaning
}

proptest! {
    #[test]
    fn it_is_a_path_of_one_form(path in any_path(), how in any_how()) {
        let Ok(form) = normalize(&path, how) else {
            prop_assert!(how.encoded_slash == EncodedSlash::Refuse && path.to_ascii_lowercase().contains("%2f"));
            return Ok(());
        };
        prop_assert!(form.starts_with('/'));
        prop_assert_eq!(normalize(&form, how), Ok(Cow::Borrowed(&*form)), "of {}", path);
        if how.normalize == Normalize::Rfc3986 {
            prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(form.is_ascii() && form.parse::<http::uri::PathAndQuery>().is_ok());
        }
        prop_assert!(!(how.merge_slashes && form.contains("//")));
    }

    #[test]
    fn its_meaning_stays(path in any_path()) {
        let dotless = path.replace(['.'], "x").replace("%2e", "x").replace("%2E", "x");
        prop_assert_eq!(meaning(&normalize(&dotless, RFC3986).unwrap()), meaning(&dotless));
    }
}
