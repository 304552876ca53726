//! Whether this process stood still while it looked: stopped (Ctrl+Z), in a paused virtual machine, or without a
//! processor. After it every deadline has passed at once and an answer that came in time looks like one that did not come,
//! so what was seen meanwhile proves nothing against the network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the clock is read.
const BEAT: Duration = Duration::from_millis(100);
/// The shortest stall that counts: shorter than any time that a probe waits for one answer, longer than a busy machine's hiccups.
const LEAST: Duration = Duration::from_secs(1);
/// Stalls kept; a machine that stalls more often than that within one run has the longest of them kept.
const MOST: usize = 64;

/// The pulse of a run. It beats as long as somebody holds it.
#[derive(Clone)]
pub(super) struct Pulse(Arc<Mutex<Beats>>);

struct Beats {
    last: Instant,
    stalls: Vec<Stall>,
}

#[derive(Clone, Copy)]
struct Stall {
    until: Instant,
    length: Duration,
}

impl Pulse {
    /// Begins to beat on the current runtime.
    pub(super) fn start() -> Self {
        let beats = Arc::new(Mutex::new(Beats::new(Instant::now())));
        let weak = Arc::downgrade(&beats);
        tokio::spawn(async move {
            let mut clock = interval(BEAT);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                clock.tick().await;
                let Some(beats) = weak.upgrade() else { return };
                beats.lock().unwrap_or_else(PoisonError::into_inner).beat(Instant::now());
            }
        });
        Self(beats)
    }

    /// The longest time that the process stood still since a moment, if it did.
    pub(super) fn stalled_since(&self, began: Instant) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stalled(began, Instant::now())
    }
}

impl Beats {
    fn new(now: Instant) -> Self {
        Self { last: now, stalls: Vec::new() }
    }

    fn beat(&mut self, now: Instant) {
        let length = now.duration_since(self.last).saturating_sub(BEAT);
        self.last = now;
        if length < LEAST {
            return;
        }
        if self.stalls.len() == MOST {
            let shortest = self.stalls.iter().enumerate().min_by_key(|(_, s)| s.length).map_or(0, |(n, _)| n);
            self.stalls.swap_remove(shortest);
        }
        self.stalls.push(Stall { until: now, length });
    }

    /// A stall that has just ended counts before the beat that would record it: whoever asks may have been woken first.
    fn stalled(&self, began: Instant, now: Instant) -> Option<Duration> {
        let present = now.duration_since(self.last).saturating_sub(BEAT);
        let past = self.stalls.iter().filter(|s| s.until > began).map(|s| s.length);
        past.chain((present >= LEAST).then_some(present)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_late_beat_is_a_stall_for_whom_it_concerns() {
        let start = Instant::now();
        let mut beats = Beats::new(start);
        beats.beat(start + ms(100));
        beats.beat(start + ms(250));
        assert_eq!(beats.stalled(start, start + ms(260)), None, "a beat may be somewhat late");
        beats.beat(start + ms(2350));
        assert_eq!(beats.stalled(start, start + ms(2360)), Some(ms(2000)));
        assert_eq!(beats.stalled(start + ms(2355), start + ms(2360)), None, "it was over before");
    }

    #[test]
    fn a_stall_counts_before_its_beat() {
        let start = Instant::now();
        let beats = Beats::new(start);
        assert_eq!(beats.stalled(start, start + ms(3100)), Some(ms(3000)));
    }

    #[test]
    fn memory_is_bounded_and_the_longest_is_kept() {
        let start = Instant::now();
        let mut beats = Beats::new(start);
        let mut now = start;
        for n in 0..200 {
            now += ms(1200) + if n == 3 { ms(5000) } else { ms(0) };
            beats.beat(now);
        }
        assert_eq!(beats.stalls.len(), MOST);
        assert_eq!(beats.stalled(start, now), Some(ms(6100)));
    }

    /// A runtime with one thread, and that thread held up, is a process that stands still.
    #[tokio::test]
    async fn the_pulse_of_a_runtime_that_is_held_up_stops() {
        let pulse = Pulse::start();
        tokio::time::sleep(BEAT * 2).await;
        let began = Instant::now();
        std::thread::sleep(LEAST + BEAT * 2);
        let at_once = pulse.stalled_since(began).expect("before the beat that records it");
        tokio::time::sleep(BEAT * 2).await;
        assert!(pulse.stalled_since(began).expect("and after it") >= at_once);
    }
}
