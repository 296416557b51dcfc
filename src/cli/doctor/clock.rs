//! Compares this machine's clock with the upstream's.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, header, response::Parts};

use super::report::Finding;

/// The difference from which one of the two clocks is considered not synchronised. It allows for the resolution of a `Date`, which is one
/// second, and for the time that a response takes.
const SKEW_WARNING: Duration = Duration::from_secs(30);

/// The difference from which one side is likely to reject certificates and signatures that are new or about to expire.
const SKEW_FAILURE: Duration = Duration::from_secs(300);

/// The difference between this machine's clock and the `Date` of a response. `sent` and `received` are the times of the request and the
/// response since the Unix epoch, by this machine's clock.
pub(super) fn skew(head: &Parts, sent: Duration, received: Duration) -> Finding {
    let header = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(date) = header(header::DATE) else { return Finding::skipped("the response has no Date") };
    let Some(date) = httpdate::parse_http_date(date).ok().and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else {
        return Finding::skipped("the response has an invalid Date");
    };
    if head.headers.contains_key(header::AGE) {
        return Finding::skipped(
            "the response comes from a cache (it has an Age), so its Date is not the current time",
        );
    }
    // A date has no fractions of a second, and was written at some time between `sent` and `received`.
    let (earliest, latest) = (date, date + Duration::from_secs(1));
    let (is_ahead, difference) =
        if sent > latest { (true, sent - latest) } else { (false, earliest.saturating_sub(received)) };
    let seconds = difference.as_secs();
    if difference < SKEW_WARNING {
        return Finding::ok(format!("within {} s of the upstream's Date", seconds + 1));
    }
    let direction = if is_ahead { "ahead of" } else { "behind" };
    let detail = format!("this machine's clock is {seconds} s {direction} the upstream's Date");
    let remedy = "synchronise the clock of this machine (in Kubernetes, of the node); if it is correct, the upstream's clock is wrong";
    if difference < SKEW_FAILURE { Finding::warning(detail, remedy) } else { Finding::failed(detail, remedy) }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    /// The finding for a clock that is `seconds` ahead of the upstream's.
    fn finding(seconds: i64) -> String {
        let date = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let response = Response::builder().header(header::DATE, httpdate::fmt_http_date(date)).body(()).unwrap();
        let now = Duration::from_secs(1_000_000_u64.saturating_add_signed(seconds));
        format!("{:?}", skew(&response.into_parts().0, now, now))
    }

    #[test]
    fn a_clock_difference_is_reported_by_size_and_direction() {
        for (seconds, outcome, text) in [
            (0, "Ok", "within 1 s"),
            (1, "Ok", "within 1 s"),
            (-29, "Ok", "within 30 s"),
            (30, "Ok", "within 30 s"),
            (31, "Warning", "30 s ahead of"),
            (-30, "Warning", "30 s behind"),
            (-299, "Warning", "299 s behind"),
            (-300, "Failed", "300 s behind"),
            (301, "Failed", "300 s ahead of"),
            (-900_000, "Failed", "900000 s behind"),
        ] {
            let finding = finding(seconds);
            assert!(finding.contains(outcome) && finding.contains(text), "{seconds}: {finding}");
        }
    }

    #[test]
    fn a_response_without_a_current_date_is_skipped() {
        for (name, value) in [("x", "y"), ("date", "yesterday"), ("age", "7")] {
            let mut response = Response::builder().header(name, value);
            if name == "age" {
                response = response.header(header::DATE, "Thu, 01 Jan 1970 00:00:00 GMT");
            }
            let head = response.body(()).unwrap().into_parts().0;
            let finding = format!("{:?}", skew(&head, DAY_TEN, DAY_TEN));
            assert!(finding.contains("Skipped"), "{finding}");
        }
    }

    const DAY_TEN: Duration = Duration::from_secs(10 * 24 * 3600);
}
