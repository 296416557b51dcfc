//! Dates as text, in UTC.

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// Year, month and day of `at` (epoch seconds) in the proleptic Gregorian calendar.
pub(super) fn civil(at: i64) -> (i64, i64, i64) {
    // Days are counted from 1 March of year 0, so the leap day is the last day of a year.
    let days = at.div_euclid(DAY) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// `2026-01-31`
#[inline(never)]
pub(super) fn date(at: i64) -> String {
    let (year, month, day) = civil(at);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-01-31T12:30:00Z`
#[inline(never)]
pub(super) fn date_time(at: i64) -> String {
    let second = at.rem_euclid(DAY);
    format!("{}T{:02}:{:02}:{:02}Z", date(at), second / 3600, second / 60 % 60, second % 60)
}

/// Whether `text` is a date like `2026-01-31`.
pub(super) fn is_date(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
    shape == "0000-00-00" && (1..=12).contains(&number(5..7)) && (1..=31).contains(&number(8..10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(date_time(at), text);
            assert!(is_date(&date(at)));
        }
        assert!(!is_date("2024-13-01") && !is_date("24-01-01") && !is_date(""));
    }
}
