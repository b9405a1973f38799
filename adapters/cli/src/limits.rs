//! The limits of a server, on the command line.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use synclayer_server::{Rate, ServerConfig};

/// Room for what is around a record in its frame, in bytes.
const ENVELOPE_BYTES: usize = 64 << 10;

/// The limits of a server on its peers; those that aren't given are the library's.
#[derive(Args, Debug)]
#[command(
    next_help_heading = "Limits (sizes in bytes, or like 64K, 4M, 1G; times like 30s, 10m, 12h, 30d)"
)]
pub(crate) struct LimitArgs {
    /// Messages a second of one WebSocket, and after a slash how many at once; any by default
    #[arg(long, value_name = "RATE[/BURST]", value_parser = rate)]
    socket_rate: Option<Rate>,
    /// Messages and calls a second of one user over all connections, or of one address where the
    /// user is not known, and after a slash how many at once; any by default
    #[arg(long, value_name = "RATE[/BURST]", value_parser = rate)]
    user_rate: Option<Rate>,
    /// Connections at a time; 16384 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_connections: Option<usize>,
    /// Connections and requests at a time of one address; 1024 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_connections_per_address: Option<usize>,
    /// Connections at a time that have not shown a token yet; 1024 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_unauthenticated: Option<usize>,
    /// Subscriptions of one WebSocket; 4096 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_subscriptions: Option<usize>,
    /// The largest record; 1M by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_record: Option<usize>,
    /// The largest frame or body of a call; 4M by default, and room for the largest record
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_frame: Option<usize>,
    /// The largest answer to a query; 16M by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_answer: Option<usize>,
    /// Memory for frames being read and answers being written; 256M by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
    /// Records of one page of a catch-up; 1000 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    page_records: Option<usize>,
    /// The size of one page of a catch-up; 256K by default
    #[arg(long, value_name = "SIZE", value_parser = size)]
    page_size: Option<usize>,
    /// The time for which deleted records and silent clients are remembered: whoever was away for
    /// longer begins with a snapshot; 30d by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    retention: Option<Duration>,
    /// Wrong tokens that lock an address out; 20 by default, 0 for no lockout
    #[arg(long, value_name = "NUMBER")]
    login_failures: Option<u32>,
    /// The time within which they lock it out, and for which; 1m by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    login_lockout: Option<Duration>,
    /// Tokens that are looked at at a time, where that takes long; others wait. 64 by default
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    max_logins: Option<usize>,
    /// The time within which it has to be known whose a token is, waiting included; 5s by default
    #[arg(long, value_name = "TIME", value_parser = time)]
    login_timeout: Option<Duration>,
}

impl LimitArgs {
    /// Puts the limits that are given into a configuration.
    pub(crate) fn put_into(self, config: &mut ServerConfig) {
        let limits = &mut config.limits;
        limits.rate = self.socket_rate.or(limits.rate);
        limits.user_rate = self.user_rate.or(limits.user_rate);
        set(&mut limits.subscriptions, self.max_subscriptions);
        set(&mut limits.input.document_bytes, self.max_record);
        let least = limits.input.document_bytes.saturating_add(ENVELOPE_BYTES);
        let frame_bytes = self.max_frame.unwrap_or(limits.input.frame_bytes);
        limits.input.frame_bytes = frame_bytes.max(least);
        set(&mut limits.answer_bytes, self.max_answer);
        set(&mut limits.page.records, self.page_records);
        set(&mut limits.page.bytes, self.page_size);
        set(&mut config.max_connections, self.max_connections);
        set(&mut config.max_connections_per_address, self.max_connections_per_address);
        set(&mut config.max_unauthenticated, self.max_unauthenticated);
        set(&mut config.memory_budget, self.memory);
        set(&mut config.tombstone_retention, self.retention);
        set(&mut config.login_failures, self.login_failures);
        set(&mut config.login_lockout, self.login_lockout);
        set(&mut config.max_logins, self.max_logins);
        set(&mut config.login_timeout, self.login_timeout);
    }
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

/// A number above 0 that this text is.
fn above_zero<T: FromStr + Default + PartialOrd>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number > T::default())
}

fn wrong<T>(what: impl Display) -> Result<T, String> {
    Err(format!("it must be {what}"))
}

fn positive(text: &str) -> Result<usize, String> {
    above_zero(text).map_or_else(|| wrong("a number above 0"), Ok)
}

/// A number and the unit behind it, which may be missing.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    Some((above_zero(number)?, unit))
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = with_unit(text).and_then(|(number, unit)| {
        let shift = ["", "k", "m", "g"].iter().position(|it| unit.eq_ignore_ascii_case(it))?;
        usize::try_from(number.checked_mul(1 << (10 * shift))?).ok()
    });
    bytes.map_or_else(|| wrong("a number of bytes above 0, or one like 64K, 4M or 1G"), Ok)
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = with_unit(text).and_then(|(number, unit)| {
        let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
        let (_, seconds) = units.into_iter().find(|(name, _)| *name == unit)?;
        // more than a century is as good as for ever, and no time would be that long ago
        let seconds = number.checked_mul(seconds)?.min(100 * 366 * 24 * 60 * 60);
        Some(Duration::from_secs(seconds))
    });
    time.map_or_else(|| wrong("a time like 30s, 10m, 12h or 30d"), Ok)
}

fn rate(text: &str) -> Result<Rate, String> {
    let (per_second, burst) = text.split_once('/').unwrap_or((text, text));
    match (above_zero(per_second), above_zero(burst)) {
        (Some(per_second), Some(burst)) => Ok(Rate { per_second, burst }),
        (_, _) => {
            wrong("a number a second above 0, like 20, or with how many at once, like 20/100")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn config(line: &[&str]) -> ServerConfig {
        let mut config = ServerConfig::new();
        let line = std::iter::once(&"serve").chain(line);
        Line::try_parse_from(line)
            .map_err(|error| error.to_string())
            .unwrap()
            .limits
            .put_into(&mut config);
        config
    }

    #[test]
    fn what_is_not_given_is_the_library_s() {
        let (left, default) = (config(&[]), ServerConfig::new());
        assert_eq!(left.limits, default.limits);
        assert_eq!(left.tombstone_retention, default.tombstone_retention);
        assert_eq!(left.max_connections, default.max_connections);
    }

    #[test]
    fn each_limit_lands_where_it_belongs() {
        let line = "--socket-rate 5 --user-rate 20/100 --max-connections 9 --max-connections-per-address 8 \
                    --max-unauthenticated 7 --max-subscriptions 6 --max-record 8M --max-frame 16M --max-answer 1g \
                    --memory 64m --page-records 5 --page-size 64K --retention 90d --login-failures 0 \
                    --login-lockout 10m --max-logins 4 --login-timeout 3s";
        let set = config(&line.split_whitespace().collect::<Vec<_>>());
        let limits = &set.limits;
        assert_eq!(limits.rate, Some(Rate { per_second: 5, burst: 5 }));
        assert_eq!(limits.user_rate, Some(Rate { per_second: 20, burst: 100 }));
        let connections =
            (set.max_connections, set.max_connections_per_address, set.max_unauthenticated);
        assert_eq!((connections, limits.subscriptions), ((9, 8, 7), 6));
        assert_eq!((limits.input.document_bytes, limits.input.frame_bytes), (8 << 20, 16 << 20));
        assert_eq!((limits.answer_bytes, set.memory_budget), (1 << 30, 64 << 20));
        assert_eq!((limits.page.records, limits.page.bytes), (5, 64 << 10));
        assert_eq!(set.tombstone_retention, Duration::from_secs(90 * 24 * 60 * 60));
        assert_eq!((set.login_failures, set.login_lockout), (0, Duration::from_secs(600)));
        assert_eq!((set.max_logins, set.login_timeout), (4, Duration::from_secs(3)));
        let roomy = config(&["--max-record", "8M"]).limits.input;
        assert!(roomy.frame_bytes > roomy.document_bytes);
    }

    #[test]
    fn what_is_no_limit_is_told_with_an_example() {
        for text in ["", "0", "4MB", "K", "-1", "1.5M", "99999999999999G"] {
            assert!(size(text).is_err_and(|told| told.contains("64K")), "{text}");
        }
        for text in ["", "30", "0s", "1w", "1h30m", "99999999999999999d"] {
            assert!(time(text).is_err_and(|told| told.contains("30d")), "{text}");
        }
        for text in ["", "0", "5/", "/5", "5/0", "a"] {
            assert!(rate(text).is_err_and(|told| told.contains("20/100")), "{text}");
        }
    }
}
