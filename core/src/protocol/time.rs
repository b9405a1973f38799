//! The state machines' time: two clocks that the caller reads, and the timestamps of writes.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

use alloc::string::{String, ToString};

/// A reading of a monotonic clock, in milliseconds since any fixed start.
///
/// Every deadline is in this time. Inside a state machine it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The time that has passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// A moment of the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Timestamps label writes. They never drive a deadline. They order writes only in the
/// last-write-wins strategy.
///
/// ```
/// use synclayer_core::Timestamp;
///
/// let at = Timestamp::parse("2026-11-22T19:00:00.5+02:00").expect("ISO 8601");
/// assert_eq!(at.to_string(), "2026-11-22T17:00:00.500Z");
/// assert_eq!(at, Timestamp(1_795_366_800_500));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// 9999-12-30T21:59:59.999Z, the largest time that [`Display`](fmt::Display) can write.
    pub const MAX: Self = Self(253_402_207_199_999);
    /// The beginning of the year 0, the smallest time that [`Display`](fmt::Display) can write.
    const MIN: Self = Self(-62_167_219_200_000);

    /// Reads an ISO 8601 timestamp. One without an offset is UTC.
    ///
    /// Returns `None` if the text is no timestamp, or is outside the years 0 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let civil = text.parse::<jiff::civil::DateTime>().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        })?;
        let millis = instant.as_millisecond();
        (Self::MIN.0..=Self::MAX.0).contains(&millis).then_some(Self(millis))
    }
}

impl Timestamp {
    /// The time this many milliseconds later, limited to the times that have a form on the wire.
    /// *Two ends would compute different digests of a time without one.*
    #[must_use]
    pub fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis).clamp(Self::MIN.0, Self::MAX.0))
    }

    /// The next later millisecond.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        self.plus(1)
    }
}

/// `2026-11-22T17:00:00.000Z`: always UTC with milliseconds, 24 bytes.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0.clamp(Self::MIN.0, Self::MAX.0)) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

/// Both clocks, read at the moment of the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_liberally_and_written_one_way() {
        for (text, shown) in [
            ("2026-11-22T17:00:00.000Z", "2026-11-22T17:00:00.000Z"),
            ("2026-11-22T17:00:00", "2026-11-22T17:00:00.000Z"),
            ("2026-11-22T17:00:00.123456", "2026-11-22T17:00:00.123Z"),
            ("2026-11-22T19:00:00.5+02:00", "2026-11-22T17:00:00.500Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "123"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn extreme_timestamps_have_a_form() {
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-30T21:59:59.999Z");
        assert_eq!(Timestamp(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
    }
}
