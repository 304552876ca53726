//! What the screen shows: the fold of the run, the diagnosis, and where the person stands.

use super::bench::Bench;
use super::filter::{Filter, is_failure};
use super::live::Live;
use super::log::Log;
use super::theme::Theme;
use crate::check::Verdict;
use crate::report::{LAYERS, Report, Summary};
use crate::run::Run;
use crate::run::state::Row;
use chrono::{DateTime, TimeDelta, Utc};

/// A screen that one can be on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The four layers and the failing checks.
    Overview,
    /// The checks of one layer, or of all.
    Checks(Option<u8>),
    /// One check in full, by instance id.
    Check(String),
    /// What a check is, by check id.
    Describe(String),
    /// Checks against vantages.
    Matrix,
    /// What was done.
    Log,
    /// The measurement of a model server.
    Bench,
    /// Every diagnosis in full.
    Explain,
    /// The keys.
    Help,
}

impl Screen {
    /// One of each, for tests.
    #[cfg(test)]
    pub(crate) fn examples() -> Vec<Self> {
        let one = || "a".to_owned();
        let lists = [Self::Overview, Self::Checks(None), Self::Check(one()), Self::Describe(one())];
        lists.into_iter().chain([Self::Matrix, Self::Log, Self::Bench, Self::Explain, Self::Help]).collect()
    }
}

/// A screen, and how far its page is scrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The screen.
    pub screen: Screen,
    /// First visible line.
    pub scroll: usize,
}

impl Place {
    /// The top of a screen.
    pub fn top(screen: Screen) -> Self {
        Self { screen, scroll: 0 }
    }
}

/// A part of the screen that keys can go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panel {
    /// The screen's own contents.
    #[default]
    Main,
    /// The overview's list of what is not as it should be.
    Findings,
    /// The diagnosis.
    Diagnosis,
}

/// Where typed characters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// Into the filter.
    Filter,
    /// Into a command.
    Command,
}

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has arrived yet.
    Planning,
    /// Probes are under way.
    Running,
    /// A person asked for the end; probes are being stopped.
    Cancelling,
    /// It is over.
    Done,
    /// The events ended without an end of the run.
    Lost,
}

/// Everything that the screen is drawn from.
#[derive(Clone, Debug)]
pub struct Model {
    /// The run so far.
    pub run: Run,
    /// The latest report on it: diagnoses and what they leave open.
    pub report: Option<Report>,
    /// Which diagnosis the panel shows.
    pub diagnosis: usize,
    /// The way here; the last one is on screen. Never empty.
    pub places: Vec<Place>,
    /// The panel that has the keys.
    pub panel: Panel,
    /// The overview's chosen layer, 0 to 3.
    pub layer_row: usize,
    /// The overview's chosen finding.
    pub finding_row: usize,
    /// The chosen check of the list, by id, so that it stays chosen while the list changes.
    pub chosen: Option<String>,
    /// The filter's text.
    pub filter: String,
    /// The command's text.
    pub command: String,
    /// Where typed characters go; `None`: they are keys.
    pub typing: Option<Typing>,
    /// Whether the panel that has the keys fills the screen.
    pub zoom: bool,
    /// The live watch.
    pub live: Live,
    /// What was done.
    pub log: Log,
    /// The text that describes a check, with the check's id.
    pub described: Option<(String, String)>,
    /// The measurement of a model server.
    pub bench: Bench,
    /// Whether only failing checks are listed.
    pub failures_only: bool,
    /// A word to the person, until the next key.
    pub notice: Option<String>,
    /// Whether the end of the run was asked for.
    pub cancelling: bool,
    /// Whether the events ended without an end of the run.
    pub lost: bool,
    /// The time of the last tick.
    pub now: DateTime<Utc>,
    /// Frame of the spinner.
    pub spin: usize,
    /// Columns and rows.
    pub size: (u16, u16),
    /// Colours and signs.
    pub theme: Theme,
}

impl Model {
    /// The overview of a run that has not begun.
    pub fn new(theme: Theme, size: (u16, u16), now: DateTime<Utc>) -> Self {
        Self {
            run: Run::new(),
            report: None,
            diagnosis: 0,
            places: vec![Place::top(Screen::Overview)],
            panel: Panel::Main,
            layer_row: 0,
            finding_row: 0,
            chosen: None,
            filter: String::new(),
            command: String::new(),
            typing: None,
            zoom: false,
            live: Live::default(),
            log: Log::default(),
            described: None,
            bench: Bench::default(),
            failures_only: false,
            notice: None,
            cancelling: false,
            lost: false,
            now,
            spin: 0,
            size,
            theme,
        }
    }

    /// The screen that one is on.
    pub fn screen(&self) -> &Screen {
        self.places.last().map_or(&Screen::Overview, |p| &p.screen)
    }

    /// First visible line of the page that one is on.
    pub fn scroll(&self) -> usize {
        self.places.last().map_or(0, |p| p.scroll)
    }

    /// How far the run has come.
    pub fn phase(&self) -> Phase {
        match (self.run.started_at, self.run.finished_at) {
            (_, Some(_)) => Phase::Done,
            _ if self.lost => Phase::Lost,
            _ if self.cancelling => Phase::Cancelling,
            (None, None) => Phase::Planning,
            (Some(_), None) => Phase::Running,
        }
    }

    /// Whether the run goes on.
    pub fn is_busy(&self) -> bool {
        matches!(self.phase(), Phase::Planning | Phase::Running | Phase::Cancelling)
    }

    /// Whether something still moves, so that the screen needs ticks.
    pub fn moves(&self) -> bool {
        self.is_busy() || self.bench.is_running()
    }

    /// How long the run took, or has taken so far.
    pub fn elapsed(&self) -> TimeDelta {
        self.run.elapsed(self.now)
    }

    /// The checks of the list that is on screen (of every layer elsewhere), filtered.
    pub fn listed(&self) -> Vec<Row<'_>> {
        let layer = match self.screen() {
            Screen::Checks(layer) => *layer,
            _ => None,
        };
        let filter = Filter::parse(&self.filter);
        self.run
            .rows()
            .filter(|row| layer.is_none_or(|l| row.planned.layer == l))
            .filter(|row| !self.failures_only || is_failure(row))
            .filter(|row| filter.matches(row))
            .collect()
    }

    /// Where the chosen check stands in the list; the first one if it is not there.
    pub fn chosen_row(&self, listed: &[Row<'_>]) -> usize {
        let chosen = self.chosen.as_deref();
        listed.iter().position(|row| Some(row.planned.id.as_str()) == chosen).unwrap_or(0)
    }

    /// What is not as it should be: failures first, then what could not be looked at, then warnings. What is blocked
    /// stands behind its root.
    pub fn findings(&self) -> Vec<Row<'_>> {
        let of = |verdict| self.run.rows().filter(move |row| row.verdict() == Some(verdict));
        of(Verdict::Fail).chain(of(Verdict::Unknown)).chain(of(Verdict::Warn)).collect()
    }

    /// What a failing, unknown or warned check keeps from running.
    pub fn blocks(&self, id: &str) -> Vec<&str> {
        let blocked = self.run.checks_in_order().filter(|c| c.blocked_by.as_deref() == Some(id));
        blocked.map(|c| c.id.as_str()).collect()
    }

    /// Number of checks per verdict in one layer.
    pub fn layer_summary(&self, layer: u8) -> Summary {
        Summary::of(self.run.rows().filter(|r| r.planned.layer == layer).filter_map(|r| r.verdict()))
    }

    /// Checks of a layer that have no verdict yet.
    pub fn layer_open(&self, layer: u8) -> usize {
        self.run.rows().filter(|r| r.planned.layer == layer && r.verdict().is_none()).count()
    }

    /// The verdict that says most about a layer; `None` while there is none.
    pub fn worst(&self, layer: u8) -> Option<Verdict> {
        let summary = self.layer_summary(layer);
        let order = [Verdict::Fail, Verdict::Blocked, Verdict::Unknown, Verdict::Warn, Verdict::Pass, Verdict::Skip];
        order.into_iter().find(|verdict| summary.count(*verdict) > 0)
    }

    /// The chosen layer's number on the overview.
    pub fn layer(&self) -> u8 {
        LAYERS[self.layer_row.min(LAYERS.len() - 1)].0
    }

    /// Number of diagnoses.
    pub fn diagnoses(&self) -> usize {
        self.report.as_ref().map_or(0, |r| r.diagnoses.len())
    }
}
