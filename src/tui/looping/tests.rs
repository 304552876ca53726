//! The loop, driven by scripted events. Nothing sleeps: the script waits for reports, which the loop asks for when a run
//! has ended.

use super::*;
use crate::report::Report;
use crate::run::Run;
use crate::tui::{Theme, fixture};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use ratatui::backend::TestBackend;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::mpsc::{Sender, channel};

/// What the loop asked the source for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Start,
    Cancel,
    Report { judged: usize, finished: bool },
}

/// The sending end of the run that is under way.
type Open = Rc<RefCell<Option<Sender<RunEvent>>>>;

/// A source that plays events and tells what it is asked for.
struct Scripted {
    events: Vec<RunEvent>,
    /// Keep the run open after the events, until it is cancelled or breaks off.
    hold: bool,
    open: Open,
    asked: UnboundedSender<Asked>,
}

impl RunSource for Scripted {
    fn start(&mut self) -> Receiver<RunEvent> {
        self.asked.unbounded_send(Asked::Start).unwrap();
        let (sender, receiver) = channel(1000);
        self.events.iter().for_each(|event| sender.try_send(event.clone()).unwrap());
        *self.open.borrow_mut() = self.hold.then_some(sender);
        receiver
    }

    fn cancel(&mut self) {
        self.asked.unbounded_send(Asked::Cancel).unwrap();
        if let Some(run) = self.open.borrow_mut().take() {
            run.try_send(RunEvent::Finished { at: fixture::at(900), complete: false, interrupted: true }).unwrap();
        }
    }

    fn report(&self, run: &Run) -> Report {
        let (judged, finished) = (run.checks_in_order().count(), run.finished_at.is_some());
        self.asked.unbounded_send(Asked::Report { judged, finished }).unwrap();
        fixture::report(run)
    }
}

/// The person: presses keys and waits for what the loop does.
struct Person {
    keys: UnboundedSender<io::Result<Event>>,
    asked: UnboundedReceiver<Asked>,
    open: Open,
}

impl Person {
    fn press(&self, code: KeyCode, modifiers: KeyModifiers) {
        self.keys.unbounded_send(Ok(Event::Key(KeyEvent::new(code, modifiers)))).unwrap();
    }

    fn types(&self, keys: &str) {
        keys.chars().for_each(|c| self.press(KeyCode::Char(c), KeyModifiers::NONE));
    }

    fn ctrl_c(&self) {
        self.press(KeyCode::Char('c'), KeyModifiers::CONTROL);
    }

    async fn sees(&mut self, wanted: impl Fn(&Asked) -> bool) {
        while let Some(asked) = self.asked.next().await {
            if wanted(&asked) {
                return;
            }
        }
        panic!("the loop ended before it asked for that");
    }

    async fn sees_the_end(&mut self) {
        self.sees(|asked| matches!(asked, Asked::Report { finished: true, .. })).await;
    }
}

/// Runs the loop beside a script; gives back the outcome, the screen and everything that the source was still asked for.
async fn play<F: Future<Output = Person>>(
    events: Vec<RunEvent>,
    hold: bool,
    stop: impl Future<Output = ()>,
    script: impl FnOnce(Person) -> F,
) -> (Outcome, String, Vec<Asked>) {
    let (keys, input) = unbounded();
    let (asked, answers) = unbounded();
    let open = Open::default();
    let mut source = Scripted { events, hold, open: open.clone(), asked };
    let (_, gate) = crate::tui::writer::start(|_| Ok(())).unwrap();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let options = Options { theme: Theme::new(None, false), clock: || fixture::at(1234) };
    let both =
        async { tokio::join!(run(&mut terminal, gate, &mut source, input, stop, options), script(Person { keys, asked: answers, open })) };
    let (outcome, mut person) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    drop(source);
    let mut rest = Vec::new();
    while let Some(asked) = person.asked.next().await {
        rest.push(asked);
    }
    (outcome.unwrap(), terminal.backend().to_string(), rest)
}

#[tokio::test]
async fn a_run_is_shown_to_its_end_and_leaves_its_report() {
    let (outcome, screen, _) = play(fixture::blocked_vxlan(), false, pending(), |mut person| async {
        person.sees_the_end().await;
        person.types("]q");
        person
    })
    .await;
    assert_eq!(outcome.leave, Leave::Quit);
    assert!(outcome.run.complete);
    assert_eq!(outcome.report.unwrap().summary.fail, 3);
    insta::assert_snapshot!(screen);
}

#[tokio::test]
async fn the_diagnosis_is_there_before_the_run_ends() {
    let events = fixture::blocked_vxlan()[..19].to_vec();
    let (outcome, screen, rest) = play(events, true, pending(), |mut person| async {
        person.sees(|asked| matches!(asked, Asked::Report { judged: 9, finished: false })).await;
        person.types("q");
        person
    })
    .await;
    assert!(screen.contains("udp8472-blocked") && screen.contains("so far"), "{screen}");
    assert!(outcome.run.is_live());
    assert_eq!(rest, [Asked::Cancel], "leaving cancels the run");
}

#[tokio::test]
async fn ctrl_c_cancels_and_then_leaves() {
    let (outcome, screen, _) = play(fixture::blocked_vxlan()[..9].to_vec(), true, pending(), |mut person| async {
        person.sees(|asked| matches!(asked, Asked::Report { .. })).await;
        person.ctrl_c();
        person.sees(|asked| *asked == Asked::Cancel).await;
        person.sees_the_end().await;
        person.ctrl_c();
        person
    })
    .await;
    assert!(outcome.run.interrupted && !outcome.run.complete);
    assert_eq!(outcome.leave, Leave::Quit);
    assert!(screen.contains("interrupted"), "{screen}");
}

#[tokio::test]
async fn shift_r_runs_everything_again() {
    let (outcome, _, rest) = play(fixture::healthy(), false, pending(), |mut person| async {
        person.sees(|asked| *asked == Asked::Start).await;
        person.sees_the_end().await;
        person.types("R");
        person.sees(|asked| *asked == Asked::Start).await;
        person.sees_the_end().await;
        person.types("q");
        person
    })
    .await;
    assert!(outcome.run.complete);
    assert!(!rest.contains(&Asked::Cancel), "nothing is left to cancel: {rest:?}");
}

#[tokio::test]
async fn a_run_that_breaks_off_is_told() {
    let (outcome, screen, _) = play(fixture::blocked_vxlan()[..9].to_vec(), true, pending(), |mut person| async {
        person.sees(|asked| matches!(asked, Asked::Report { judged: 4, .. })).await;
        person.open.take();
        person.sees(|asked| matches!(asked, Asked::Report { judged: 4, .. })).await;
        person.types("q");
        person
    })
    .await;
    assert!(screen.contains("broke off"), "{screen}");
    assert!(!outcome.run.complete);
}

#[tokio::test]
async fn a_signal_or_a_lost_terminal_ends_it_and_cancels_the_run() {
    let events = fixture::blocked_vxlan()[..9].to_vec();
    let (outcome, _, rest) = play(events.clone(), true, std::future::ready(()), |person| async { person }).await;
    assert_eq!(outcome.leave, Leave::Signal);
    assert!(rest.contains(&Asked::Cancel));

    let (outcome, _, rest) = play(events, true, pending(), |mut person| async {
        person.keys = unbounded().0;
        person
    })
    .await;
    assert_eq!(outcome.leave, Leave::InputClosed);
    assert!(rest.contains(&Asked::Cancel));
}
