//! Times and tables for people.

use core::time::Duration;

use der::DateTime;

/// Unix seconds as RFC 3339 text in UTC.
pub(crate) fn time(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(super::time(1_793_372_400), "2026-10-30T15:00:00Z");
    }
}
