//! Percent-encoding of URLs.

use alloc::string::String;
use alloc::vec::Vec;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends a text with everything percent-encoded but letters, digits and `-._~`, for a segment of
/// a path or a query.
pub(crate) fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Appends a text as a whole segment of a path. A name of one or two dots would be a relative step,
/// so its dots are encoded too. An intermediary that normalises paths may decode them all the same.
pub(crate) fn encode_segment(text: &str, out: &mut String) {
    match text {
        "." | ".." => text.chars().for_each(|_| out.push_str("%2E")),
        text => encode(text, out),
    }
}

/// Decodes `%XX`; in a query also `+` as a space. `None` if the result is no text.
#[must_use]
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut out = String::new();
        encode("a-Z._~0/ä +%", &mut out);
        assert_eq!(out, "a-Z._~0%2F%C3%A4%20%2B%25");
        assert_eq!(decode(&out, false).as_deref(), Some("a-Z._~0/ä +%"));
        assert_eq!(decode(&out, true).as_deref(), Some("a-Z._~0/ä +%"));
        assert_eq!(decode("a+b", true).as_deref(), Some("a b"));
        assert_eq!(decode("%zz", false), None);
        assert_eq!(decode("%f", false), None);
        assert_eq!(decode("%ff", false), None);
    }
}
