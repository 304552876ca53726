//! The measurement of a model server as the screen sees it: first what would be sent, then how far it is, then what came
//! of it. Pure; the engine is [`crate::bench`].

use chrono::{DateTime, Utc};

/// What would be measured, before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The server's name in the inventory.
    pub server: String,
    /// Where the requests go.
    pub target: String,
    /// The vantage that they come from.
    pub from: String,
    /// What is sent, in one sentence.
    pub statement: String,
    /// Requests that are measured.
    pub requests: u32,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests that ended.
    pub done: u64,
    /// Of these, complete ones.
    pub complete: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Output tokens of the complete ones.
    pub tokens: u64,
    /// Sum of their times to first token, milliseconds.
    pub ttft_ms: f64,
}

/// Where the measurement stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Bench {
    /// Nothing is known yet.
    #[default]
    None,
    /// There is nothing to measure, or it was refused.
    Refused(String),
    /// It waits for a person to agree.
    Offered(Offer),
    /// Under way.
    Running {
        /// What.
        offer: Offer,
        /// When it began.
        began: DateTime<Utc>,
        /// How far it is.
        reading: Reading,
        /// Whether a person has asked for its end.
        stopping: bool,
    },
    /// Over.
    Done {
        /// What.
        offer: Offer,
        /// The report as text.
        text: String,
    },
}

/// News of the measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// What would be sent, or why nothing can be.
    Offer(Result<Offer, String>),
    /// How far it is.
    Reading(Reading),
    /// The report as text, or why there is none.
    Done(Result<String, String>),
}

impl Bench {
    /// Whether requests are under way.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Takes news in.
    pub fn take(&mut self, news: News) {
        *self = match (std::mem::take(self), news) {
            (Self::Running { offer, began, stopping, .. }, News::Reading(reading)) => Self::Running { offer, began, reading, stopping },
            (Self::Running { offer, .. }, News::Done(Ok(text))) => Self::Done { offer, text },
            (Self::Running { .. }, News::Done(Err(why))) => Self::Refused(why),
            (Self::Running { offer, began, reading, stopping }, News::Offer(_)) => Self::Running { offer, began, reading, stopping },
            (_, News::Offer(Ok(offer))) => Self::Offered(offer),
            (_, News::Offer(Err(why))) => Self::Refused(why),
            (other, News::Reading(_) | News::Done(_)) => other,
        };
    }
}
