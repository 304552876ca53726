//! The server's clock, by the `Date` of its answers (RFC 9110, section 6.6.1).

use crate::probe::http1;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::Full;
use hyper::Method;
use hyper::header::{DATE, HeaderMap};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// How many seconds the sender's clock is ahead. `Date` has whole seconds, and was written somewhere between asking and now: the
/// middle of both is the least wrong.
pub(super) fn ahead_s(headers: &HeaderMap, asked: DateTime<Utc>) -> Option<f64> {
    let date = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
    let half = |ms: i64| ms / 2;
    let here = asked.timestamp_millis() + half(Utc::now().timestamp_millis() - asked.timestamp_millis());
    let tenths = (date.timestamp_millis() + 500 - here) as f64 / 100.0;
    Some(tenths.round() / 10.0)
}

/// The same by an answer over a session that is not to be trusted: nothing is sent that could be misused.
pub(super) async fn of_untrusted<S>(session: S, host: &str, until: Instant) -> Option<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = http1::request(Method::GET, "/version", host).body(Full::<Bytes>::default()).ok()?;
    let asked = Utc::now();
    let answer = http1::send(session, request, until).await.ok()?;
    ahead_s(&answer.head.headers, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_tells_how_far_a_clock_is_ahead() {
        let header = |time: DateTime<Utc>| {
            let text = time.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            HeaderMap::from_iter([(DATE, text.parse().unwrap())])
        };
        let now = Utc::now();
        let ahead = |by: i64| ahead_s(&header(now + chrono::TimeDelta::seconds(by)), now).unwrap();
        assert!((ahead(86_400) - 86_400.0).abs() < 1.5 && ahead(0).abs() < 1.5 && (ahead(-90) + 90.0).abs() < 1.5);
        assert_eq!(ahead_s(&HeaderMap::new(), now), None);
        assert_eq!(ahead_s(&HeaderMap::from_iter([(DATE, "yesterday".parse().unwrap())]), now), None);
    }
}
