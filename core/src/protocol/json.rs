//! A scanner of JSON text. It checks the syntax in full and finds the bounds of values, but builds
//! nothing: values stay the received text.

use core::fmt;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// The error of a text that is not JSON: the offset of the first wrong byte, and what should be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    at: usize,
    expected: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

/// A value's text, without the spaces around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) text: &'a str,
    /// 0 for a scalar, 1 for an array or object of scalars.
    pub(crate) depth: usize,
}

/// Calls `visit` with each member of an object, in order, with unescaped names.
pub(crate) fn members<'a, E: From<Broken>>(
    text: &'a str,
    mut each: impl FnMut(Cow<'a, str>, Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    pairs(text, |name, value| {
        // both are slices of the text
        let at = name.as_ptr().addr() - text.as_ptr().addr();
        let name = unescape(name).ok_or(Broken { at, expected: "a valid Unicode text" })?;
        each(name, value)
    })
}

/// As [`members`], with the names as they are written: in quotes, with their escapes.
pub(crate) fn pairs<'a, E: From<Broken>>(
    text: &'a str,
    mut each: impl FnMut(&'a str, Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    scanner.expect(b'{', "`{`")?;
    scanner.space();
    if !scanner.eat(b'}') {
        loop {
            let name = scanner.key()?;
            each(name, scanner.value()?)?;
            scanner.space();
            if !scanner.eat(b',') {
                break;
            }
            scanner.space();
        }
        scanner.expect(b'}', "`,` or `}`")?;
    }
    Ok(scanner.end()?)
}

/// Calls `visit` with each element of an array, in order.
pub(crate) fn elements<'a, E: From<Broken>>(
    text: &'a str,
    mut each: impl FnMut(Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    scanner.expect(b'[', "`[`")?;
    scanner.space();
    if !scanner.eat(b']') {
        loop {
            each(scanner.value()?)?;
            scanner.space();
            if !scanner.eat(b',') {
                break;
            }
            scanner.space();
        }
        scanner.expect(b']', "`,` or `]`")?;
    }
    Ok(scanner.end()?)
}

/// Checks that a text is one JSON value.
pub(crate) fn check(text: &str) -> Result<(), Broken> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    scanner.value()?;
    scanner.end()
}

/// The text of a JSON string; `None` if it contains half a surrogate pair, or if `json` is another
/// kind of value.
pub(crate) fn unescape(json: &str) -> Option<Cow<'_, str>> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    if !text.as_bytes().contains(&b'\\') {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// The text of a JSON string as UTF-8, for every string that JSON allows: half a surrogate pair has
/// the three bytes that UTF-8 would give it. `quoted` must be a JSON string.
pub(crate) fn string_bytes(quoted: &str) -> Cow<'_, [u8]> {
    match unescape(quoted) {
        Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        None => Cow::Owned(with_halves(quoted)),
    }
}

fn with_halves(quoted: &str) -> Vec<u8> {
    let mut units = Vec::new();
    let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut rest = text.unwrap_or_default().chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            units.extend_from_slice(next.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match rest.next() {
            Some('u') => {
                let digits = rest.by_ref().take(4).filter_map(|digit| digit.to_digit(16));
                digits.fold(0, |unit, digit| unit << 4 | digit as u16)
            }
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some(other) => other as u16,
            None => break,
        });
    }
    let mut bytes = Vec::new();
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(letter) => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Err(half) => {
                let half = half.unpaired_surrogate();
                let tail = |shift: u16| 0x80 | (half >> shift & 0x3f) as u8;
                bytes.extend([0xe0 | (half >> 12) as u8, tail(6), tail(0)]);
            }
        }
    }
    bytes
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Moves over a value that begins here.
    fn value(&mut self) -> Result<Value<'a>, Broken> {
        let start = self.at;
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(b'[') => {
                    self.at += 1;
                    nesting.open(Container::Array);
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'{') => {
                    self.at += 1;
                    nesting.open(Container::Object);
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(_) | None => return Err(self.broken("a value")),
            }
            if !self.close(&mut nesting)? {
                return Ok(Value { text: &self.text[start..self.at], depth: nesting.deepest });
            }
        }
    }

    /// Called behind a value: closes the containers that end here, and moves to the next value.
    /// Returns `false` if the outermost value has ended.
    fn close(&mut self, nesting: &mut Nesting) -> Result<bool, Broken> {
        while let Some(container) = nesting.innermost() {
            self.space();
            match (container, self.peek()) {
                (Container::Array, Some(b',')) => {
                    self.at += 1;
                    self.space();
                    return Ok(true);
                }
                (Container::Object, Some(b',')) => {
                    self.at += 1;
                    self.space();
                    self.key()?;
                    return Ok(true);
                }
                (Container::Array, Some(b']')) | (Container::Object, Some(b'}')) => {
                    self.at += 1;
                    nesting.close();
                }
                (Container::Array, _) => return Err(self.broken("`,` or `]`")),
                (Container::Object, _) => return Err(self.broken("`,` or `}`")),
            }
        }
        Ok(false)
    }

    /// Moves to a member's value and returns its name, still escaped.
    fn key(&mut self) -> Result<&'a str, Broken> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.broken("a name in quotes"));
        }
        self.string()?;
        let name = &self.text[start..self.at];
        self.space();
        self.expect(b':', "`:`")?;
        self.space();
        Ok(name)
    }

    fn string(&mut self) -> Result<(), Broken> {
        self.at += 1;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(_) => return Err(self.broken("no control character")),
                None => return Err(self.broken("`\"`")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.broken("a hexadecimal digit"));
                    }
                }
                self.at += 1;
            }
            Some(_) | None => return Err(self.broken("an escape")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.broken("a digit")) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Broken> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.broken("true, false or null"));
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.broken("nothing more")) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Broken> {
        if self.eat(byte) { Ok(()) } else { Err(self.broken(expected)) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn broken(&self, expected: &'static str) -> Broken {
        Broken { at: self.at, expected }
    }
}

/// The number of bytes of a string before a quote, a backslash or a control character.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // a byte below n borrows into its highest bit; only bytes above the first hit may be wrong
        let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let hits = (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & (ONES * 0x80);
        if hits != 0 {
            return i * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// The open containers, one bit each; those beyond 64 are on the heap.
#[derive(Default)]
struct Nesting {
    objects: u64,
    outer: Vec<u64>,
    depth: usize,
    deepest: usize,
}

impl Nesting {
    fn open(&mut self, container: Container) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.objects);
        }
        self.objects = self.objects << 1 | u64::from(container == Container::Object);
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.objects = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<Container> {
        let object = self.objects & 1 == 1;
        (self.depth > 0).then_some(if object { Container::Object } else { Container::Array })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn valid(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    fn depth(text: &str) -> usize {
        Scanner { text, at: 0 }.value().unwrap().depth
    }

    #[test]
    fn any_depth_is_measured() {
        assert_eq!([depth("1"), depth("[]"), depth("[1,{}]"), depth("{\"a\":[[]]}")], [0, 1, 2, 3]);
        for n in [63, 64, 65, 128, 129, 1000] {
            let text = format!("{}{{}}{}", "[{\"a\":".repeat(n), ",\"b\":[]}]".repeat(n));
            assert_eq!(depth(&text), 2 * n + 1);
            assert!(valid(&text) && check(&text).is_ok());
            let crossed = format!("{}{{}}{}", "[{\"a\":".repeat(n), "]}".repeat(n));
            assert!(check(&crossed).is_err());
        }
    }

    #[test]
    fn what_is_broken_is_said() {
        for (text, said) in [
            ("", "expected a value at byte 0"),
            ("[1,]", "expected a value at byte 3"),
            ("[1 2]", "expected `,` or `]` at byte 3"),
            ("{a:1}", "expected a name in quotes at byte 1"),
            ("{\"a\" 1}", "expected `:` at byte 5"),
            ("\"a", "expected `\"` at byte 2"),
            ("\"\\x\"", "expected an escape at byte 2"),
            ("\"\\u00g0\"", "expected a hexadecimal digit at byte 5"),
            ("\"\n\"", "expected no control character at byte 1"),
            ("-", "expected a digit at byte 1"),
            ("1 1", "expected nothing more at byte 2"),
            ("nul", "expected true, false or null at byte 0"),
        ] {
            assert_eq!(format!("{}", check(text).unwrap_err()), said, "{text}");
        }
    }

    fn near_json() -> impl Strategy<Value = String> {
        let pieces = select(
            &[
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "\\\"", "\\u12ab", "\\ud800",
                "\u{e4}", "\n", " ", "0", "1", "-", ".", "e", "+", "true", "null", "false",
                "abcdefgh", "\u{7f}", "\u{1f}", "{\"k\":", "\"\\\\\"", "[1,", "1e5", "tru",
            ][..],
        );
        proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn takes_what_serde_takes(text in near_json()) {
            prop_assert_eq!(check(&text).is_ok(), valid(&text), "{}", text);
        }

        #[test]
        fn takes_what_serde_takes_inside(text in near_json()) {
            for text in [format!("[{text}]"), format!("\"{text}\""), format!("{{\"a\":{text}}}")] {
                prop_assert_eq!(check(&text).is_ok(), valid(&text), "{}", text);
            }
        }

        #[test]
        fn shows_the_members_that_serde_shows(text in near_json()) {
            use alloc::collections::BTreeMap;
            use serde_json::value::RawValue;
            let text = format!("{{\"x\": {text} ,\"\\u0079\":[0] }}");
            let mut seen = BTreeMap::new();
            let read = members(&text, |name, value| {
                seen.insert(name.into_owned(), value.text);
                Ok::<_, Broken>(())
            });
            match serde_json::from_str::<BTreeMap<String, &RawValue>>(&text) {
                Ok(map) => {
                    prop_assert!(read.is_ok());
                    let map: BTreeMap<_, _> = map.into_iter().map(|(k, v)| (k, v.get())).collect();
                    prop_assert_eq!(seen, map);
                }
                Err(_) => prop_assert!(read.is_err()),
            }
        }

        #[test]
        fn plain_stops_where_a_plain_loop_does(bytes: Vec<u8>) {
            let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            prop_assert_eq!(plain(&bytes), bytes.iter().position(special).unwrap_or(bytes.len()));
        }
    }
}
