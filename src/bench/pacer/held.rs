//! A client's figures held against the server's book.

/// The truth lies between: a token left after the clock was read before its write and before it was read behind it. The two are
/// microseconds apart unless this thread lost its processor in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Span {
    /// How far a figure lies outside, ms; zero within, and no number where one is missing.
    fn error(self, seen: f64) -> f64 {
        if seen < self.least {
            seen - self.least
        } else if seen <= self.most {
            0.0
        } else {
            seen - self.most
        }
    }
}

/// A latency by both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) p50: (Span, f64),
    pub(crate) p90: (Span, f64),
    pub(crate) mean: (Span, f64),
}

impl Held {
    /// The truth first, then what the client says.
    pub(crate) fn of(truth: Vec<Span>, mut seen: Vec<f64>) -> Self {
        let at = |samples: &mut Vec<f64>, q: f64| {
            samples.sort_by(f64::total_cmp);
            samples.get(((q * samples.len() as f64).ceil() as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
        let (mut least, mut most): (Vec<f64>, Vec<f64>) = truth.iter().map(|span| (span.least, span.most)).unzip();
        let mut both = |q| (Span { least: at(&mut least, q), most: at(&mut most, q) }, at(&mut seen, q));
        let (p50, p90) = (both(0.5), both(0.9));
        Self { p50, p90, mean: (Span { least: mean(&least), most: mean(&most) }, mean(&seen)) }
    }

    /// The greatest error of the three, ms.
    pub(crate) fn error(&self) -> f64 {
        [self.p50, self.p90, self.mean]
            .into_iter()
            .map(|(truth, seen)| truth.error(seen))
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
            .unwrap_or(0.0)
    }

    /// Whether every one is as near the truth as this, in ms or as a share of it: the greater of both. What is not a number is not.
    pub(crate) fn within(&self, (ms, share): (f64, f64)) -> bool {
        let near = |(truth, seen): (Span, f64)| truth.error(seen).abs() <= ms.max(truth.least * share);
        [self.p50, self.p90, self.mean].into_iter().all(near)
    }
}
