//! Numbers by their text: equal texts of a value get equal bytes, and the bytes are in the order of
//! the values, however many digits there are.

use alloc::vec::Vec;

const NEGATIVE: u8 = 0x40;
const ZERO: u8 = 0x41;
const POSITIVE: u8 = 0x42;

/// Exponents beyond this are taken for this, so that sums of them can't overflow.
const LARGEST_EXPONENT: i64 = 1 << 60;

/// Appends the encoding of a JSON number.
///
/// A value is `0.d₁d₂d₃… · 10ᵉ`, with `d₁` and the last digit other than 0: the sign, `e`, the
/// digits by twos, and an end. A negative number is the complement of a positive one.
pub(super) fn put(text: &str, out: &mut Vec<u8>) {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let point = whole.len();
    let fraction = fraction.trim_end_matches('0');
    let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
    let leading = |digits: &str| digits.len() - digits.trim_start_matches('0').len();
    let mut zeros = leading(whole);
    if zeros == whole.len() {
        zeros += leading(fraction);
    }
    let mut digits = whole.bytes().chain(fraction.bytes()).skip(zeros).peekable();
    if digits.peek().is_none() {
        return out.push(ZERO);
    }
    out.push(if negative { NEGATIVE } else { POSITIVE });
    let start = out.len();
    put_exponent(self::exponent(exponent) + point as i64 - zeros as i64, out);
    while let Some(first) = digits.next() {
        let second = digits.next().unwrap_or(b'0');
        // 0 ends the digits
        out.push(1 + 10 * (first - b'0') + (second - b'0'));
    }
    out.push(0);
    if negative {
        super::value::complement(&mut out[start..]);
    }
}

fn exponent(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = digits
        .bytes()
        .fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    let magnitude = magnitude.min(LARGEST_EXPONENT);
    if negative { -magnitude } else { magnitude }
}

/// One byte around 0; otherwise the number of bytes, and these.
fn put_exponent(exponent: i64, out: &mut Vec<u8>) {
    const SMALL: i64 = 100;
    if (-SMALL..=SMALL).contains(&exponent) {
        return out.push((0x80 + exponent) as u8);
    }
    let zeros = exponent.unsigned_abs().leading_zeros() as usize / 8;
    let bytes = exponent.to_be_bytes();
    let len = (8 - zeros) as u8;
    out.push(if exponent > 0 { 0xf0 + len } else { 0x10 - len });
    out.extend_from_slice(&bytes[zeros..]);
}
