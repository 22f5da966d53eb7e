//! Points in time as people and log collectors read them.
//!
//! **Source**: RFC 3339, with milliseconds, in UTC.

use std::time::SystemTime;
use time::OffsetDateTime;

/// `time` as in `2026-01-31T23:59:59.123Z`.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let utc = OffsetDateTime::from(time);
    let (year, month, day) = utc.to_calendar_date();
    let (hour, minute, second, milli) = utc.to_hms_milli();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        let at = |millis| timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }
}
