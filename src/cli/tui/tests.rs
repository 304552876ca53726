//! The engine behind the screen, against the twin: a change is noticed and looked at again while the program runs.

use super::*;
use crate::def::{Inventory, Sources};
use crate::run::watch::What;
use crate::tui::writer;
use crate::twin::Twin;
use crate::vantage::select;
use crossterm::event::{Event, KeyCode, KeyEvent};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{SinkExt, StreamExt};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

/// What passes between engine and screen.
#[derive(Clone, Debug)]
enum Heard {
    Change(Change),
    Event(RunEvent),
}

/// The engine with an ear at every channel.
struct Tapped {
    engine: Engine,
    heard: UnboundedSender<(Instant, Heard)>,
}

impl Tapped {
    fn tap<T: Clone + Send + 'static>(&self, mut from: mpsc::Receiver<T>, name: fn(T) -> Heard) -> mpsc::Receiver<T> {
        let (on, to) = mpsc::channel(256);
        let mut heard = self.heard.clone();
        tokio::spawn(async move {
            while let Some(item) = from.recv().await {
                let _ = heard.send((Instant::now(), name(item.clone()))).await;
                if on.send(item).await.is_err() {
                    return;
                }
            }
        });
        to
    }
}

impl RunSource for Tapped {
    fn start(&mut self) -> mpsc::Receiver<RunEvent> {
        let events = self.engine.start();
        self.tap(events, Heard::Event)
    }

    fn again(&mut self, run: &Run, what: &Again) -> mpsc::Receiver<RunEvent> {
        let events = self.engine.again(run, what);
        self.tap(events, Heard::Event)
    }

    fn changes(&mut self) -> Result<mpsc::Receiver<Change>, String> {
        let changes = self.engine.changes()?;
        Ok(self.tap(changes, Heard::Change))
    }

    fn cancel(&mut self) {
        self.engine.cancel();
    }

    fn report(&self, run: &Run) -> Report {
        self.engine.report(run)
    }
}

async fn until(heard: &mut UnboundedReceiver<(Instant, Heard)>, wanted: impl Fn(&Heard) -> bool) -> Instant {
    let found = async {
        while let Some((at, what)) = heard.next().await {
            if wanted(&what) {
                return at;
            }
        }
        panic!("the screen ended first")
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("it comes within a minute")
}

fn verdict(of: &'static str, outcome: crate::check::Verdict) -> impl Fn(&Heard) -> bool {
    move |heard| matches!(heard, Heard::Event(RunEvent::Judged { check }) if check.id == of && check.outcome == outcome)
}

/// Deletes the device once the first run is over, and measures what follows.
async fn break_and_measure(
    twin: &Twin,
    heard: &mut UnboundedReceiver<(Instant, Heard)>,
    keys: &UnboundedSender<io::Result<Event>>,
) -> (Duration, Duration) {
    until(heard, verdict("flannel-device[calypso]", crate::check::Verdict::Pass)).await;
    until(heard, |h| matches!(h, Heard::Event(RunEvent::Finished { complete: true, .. }))).await;
    let began = Instant::now();
    twin.host("calypso").unwrap().delete_link("flannel.1").await.unwrap();
    let gone = |h: &Heard| matches!(h, Heard::Change(c) if c.what == What::Link && c.gone && c.device.as_deref() == Some("flannel.1"));
    let noticed = until(heard, gone).await - began;
    let judged = until(heard, verdict("flannel-device[calypso]", crate::check::Verdict::Fail)).await - began;
    // Then everything that was seen before the change.
    until(heard, |h| matches!(h, Heard::Event(RunEvent::Finished { complete: true, .. }))).await;
    let older = |h: &Heard| matches!(h, Heard::Event(RunEvent::Rechecking { because, .. }) if because.contains("before the change"));
    until(heard, older).await;
    until(heard, verdict("flannel-device[tethys]", crate::check::Verdict::Pass)).await;
    until(heard, |h| matches!(h, Heard::Event(RunEvent::Finished { complete: true, .. }))).await;
    keys.unbounded_send(Ok(Event::Key(KeyEvent::from(KeyCode::Char('q'))))).unwrap();
    (noticed, judged)
}

fn inventory(catalog: &Catalog) -> Arc<Inventory> {
    catalog.inventory.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ns_a_deleted_device_is_noticed_and_judged_while_the_screen_runs() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let catalog = Arc::new(Catalog::load(&Sources::default()).unwrap());
    let twin = Twin::start(inventory(&catalog), &[]).await.unwrap();
    let vantages = select::of_the_twin(Some("calypso,tethys"), twin.vantages()).unwrap();
    // What the overlay rests on: a whole run would take most of the time for layers that are not asked about.
    let filter = Filter { checks: vec!["flannel-device".into(), "pod-echo".into()], ..Filter::default() };
    let engine = Engine { catalog, vantages, limits: Limits::default(), filter, cancel: None };
    let (heard, mut ear) = unbounded();
    let (keys, input) = unbounded();
    let (_, gate) = writer::start(|_| Ok(())).unwrap();
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    let options = Options { theme: Theme::new(None, false), clock: chrono::Utc::now };
    let mut source = Tapped { engine, heard };
    let screen = crate::tui::run(&mut terminal, gate, &mut source, input, pending(), options);
    let (outcome, (noticed, judged)) = tokio::join!(screen, break_and_measure(&twin, &mut ear, &keys));
    let outcome = outcome.unwrap();
    println!("noticed after {noticed:?}, judged after {judged:?}");
    assert!(noticed < Duration::from_millis(200), "noticed after {noticed:?}");
    assert!(judged < Duration::from_secs(2), "judged after {judged:?}");
    assert!(outcome.run.complete);
    let report = outcome.report.unwrap();
    // Nothing that went over the device is still called a pass.
    let over = |id: &str| report.checks.iter().find(|c| c.id == id).map(|c| c.outcome);
    for id in ["flannel-peer[calypso->tethys]", "pod-echo[calypso->tethys]", "pod-echo[tethys->calypso]"] {
        assert!(over(id).is_some_and(|outcome| outcome != crate::check::Verdict::Pass), "{id}: {:?}", over(id));
    }
    assert!(terminal.backend().to_string().contains("oceanid · live"), "{}", terminal.backend());
}
