//! The key table. Input, footer and help all read it, so they cannot disagree.

use super::model::Screen;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// One row down.
    Down,
    /// One row up.
    Up,
    /// One page down.
    PageDown,
    /// One page up.
    PageUp,
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Into what is chosen.
    Open,
    /// Back to where one came from.
    Back,
    /// To a layer's checks.
    Layer(u8),
    /// To the overview.
    Overview,
    /// The keys go to the next panel.
    NextPanel,
    /// To the next failing check.
    NextFailure,
    /// To the previous failing check.
    PreviousFailure,
    /// List failing checks only, or all again.
    FailuresOnly,
    /// Type a filter.
    Filter,
    /// Every diagnosis in full.
    Explain,
    /// To the raw evidence.
    Evidence,
    /// What the check is: why, how, and what each fact means.
    Describe,
    /// Checks against vantages.
    Matrix,
    /// What was done, as commands.
    Log,
    /// Look again at one check.
    Again,
    /// Run everything again.
    Rerun,
    /// Look again at what must pass after the fix.
    Verify,
    /// Hold what the watch would start, or let it go on.
    Pause,
    /// Measure a model server.
    Bench,
    /// Copy the line.
    CopyLine,
    /// Copy what is on screen as Markdown.
    CopyMarkdown,
    /// Write the bundle.
    Write,
    /// Give the panel the whole screen, or not.
    Zoom,
    /// The next theme.
    Theme,
    /// Type a command.
    Command,
    /// The keys.
    Help,
    /// Leave.
    Quit,
    /// Leave, and keep the last screen in the terminal.
    QuitKeeping,
    /// Cancel the run; leave if there is none.
    Interrupt,
    /// Give the terminal back to the shell, until it says to go on.
    Suspend,
}

/// One row of the table.
#[derive(Debug)]
pub struct Key {
    /// What may be pressed.
    pub codes: &'static [KeyCode],
    /// With Control held.
    pub ctrl: bool,
    /// What it asks for.
    pub action: Action,
    /// How help and footer name the key.
    pub label: &'static str,
    /// One or two words for the footer; empty: help only.
    pub short: &'static str,
    /// What to type after `:`.
    pub name: &'static str,
    /// A sentence for help.
    pub long: &'static str,
}

const fn key(
    codes: &'static [KeyCode],
    action: Action,
    label: &'static str,
    short: &'static str,
    name: &'static str,
    long: &'static str,
) -> Key {
    Key { codes, ctrl: false, action, label, short, name, long }
}

/// Every key, in the order of help.
pub static KEYS: &[Key] = &[
    key(&[KeyCode::Char('j'), KeyCode::Down], Action::Down, "j ↓", "", "down", "one row down"),
    key(&[KeyCode::Char('k'), KeyCode::Up], Action::Up, "k ↑", "", "up", "one row up"),
    key(&[KeyCode::PageDown], Action::PageDown, "PgDn", "", "page-down", "one page down"),
    key(&[KeyCode::PageUp], Action::PageUp, "PgUp", "", "page-up", "one page up"),
    key(&[KeyCode::Char('g'), KeyCode::Home], Action::First, "g", "", "first", "to the first row"),
    key(&[KeyCode::Char('G'), KeyCode::End], Action::Last, "G", "", "last", "to the last row"),
    key(&[KeyCode::Enter, KeyCode::Right], Action::Open, "Enter", "open", "open", "into what is chosen"),
    key(&[KeyCode::Esc, KeyCode::Left, KeyCode::Backspace], Action::Back, "Esc", "back", "back", "back; clears a filter first"),
    key(&[KeyCode::Char('0')], Action::Overview, "0", "overview", "overview", "to the overview"),
    key(&[KeyCode::Char('1')], Action::Layer(1), "1", "", "physical", "checks of layer 1, Physical"),
    key(&[KeyCode::Char('2')], Action::Layer(2), "2", "", "kubernetes", "checks of layer 2, Kubernetes"),
    key(&[KeyCode::Char('3')], Action::Layer(3), "3", "", "service", "checks of layer 3, Service"),
    key(&[KeyCode::Char('4')], Action::Layer(4), "4", "", "application", "checks of layer 4, Application"),
    key(&[KeyCode::Char('x')], Action::Explain, "x", "explain", "explain", "every cause: proof, rivals, fix"),
    key(&[KeyCode::Char(']')], Action::NextFailure, "]", "next failure", "next-failure", "to the next failing check"),
    key(&[KeyCode::Char('[')], Action::PreviousFailure, "[", "", "previous-failure", "to the previous failing check"),
    key(&[KeyCode::Char('e')], Action::Evidence, "e", "evidence", "evidence", "to a check's raw evidence"),
    key(&[KeyCode::Char('d')], Action::Describe, "d", "describe", "describe", "what a check is: why, expectations, facts"),
    key(&[KeyCode::Char('m')], Action::Matrix, "m", "matrix", "matrix", "checks against vantages"),
    key(&[KeyCode::Char('l')], Action::Log, "l", "log", "log", "what was done, as commands to type"),
    key(&[KeyCode::Char('f')], Action::FailuresOnly, "f", "failures only", "failures", "list failing checks only, or all"),
    key(&[KeyCode::Char('/')], Action::Filter, "/", "filter", "filter", "layer:2 state:fail node:calypso or any text"),
    key(&[KeyCode::Tab], Action::NextPanel, "Tab", "panel", "panel", "the keys go to the next panel"),
    key(&[KeyCode::Char('+')], Action::Zoom, "+", "zoom", "zoom", "the panel takes the whole screen, or not"),
    key(&[KeyCode::Char('r')], Action::Again, "r", "run again", "again", "look again at this check"),
    key(&[KeyCode::Char('R')], Action::Rerun, "R", "run all again", "rerun", "run everything again"),
    key(&[KeyCode::Char('v')], Action::Verify, "v", "verify", "verify", "after a fix: look again at what must pass"),
    key(&[KeyCode::Char(' ')], Action::Pause, "space", "pause", "pause", "hold what changes would start, or go on"),
    key(&[KeyCode::Char('b')], Action::Bench, "b", "bench", "bench", "measure a model server; asks first"),
    key(&[KeyCode::Char('y')], Action::CopyLine, "y", "copy", "copy", "copy the line (the terminal's clipboard)"),
    key(&[KeyCode::Char('Y')], Action::CopyMarkdown, "Y", "", "markdown", "copy what is on screen as Markdown"),
    key(&[KeyCode::Char('w')], Action::Write, "w", "write", "write", "write run and report into a new directory"),
    key(&[KeyCode::Char('t')], Action::Theme, "t", "", "theme", "the next theme"),
    key(&[KeyCode::Char(':')], Action::Command, ":", "command", "command", "type a command; Tab completes it"),
    key(&[KeyCode::Char('?')], Action::Help, "?", "help", "help", "this page"),
    key(&[KeyCode::Char('q')], Action::Quit, "q", "quit", "quit", "leave"),
    key(&[KeyCode::Char('Q')], Action::QuitKeeping, "Q", "", "quit-keep", "leave, and keep the last screen"),
    Key {
        codes: &[KeyCode::Char('c')],
        ctrl: true,
        action: Action::Interrupt,
        label: "ctrl+c",
        short: "cancel",
        name: "cancel",
        long: "cancel the run; leave if none is under way",
    },
    Key {
        codes: &[KeyCode::Char('z')],
        ctrl: true,
        action: Action::Suspend,
        label: "ctrl+z",
        short: "",
        name: "suspend",
        long: "stop, back to the shell; fg goes on",
    },
];

/// What a key asks for.
pub fn lookup(event: KeyEvent) -> Option<Action> {
    let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    let plain = !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    KEYS.iter().find(|key| key.codes.contains(&event.code) && if key.ctrl { ctrl } else { plain }).map(|key| key.action)
}

/// The table's row for an action.
pub fn row(action: Action) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.action == action)
}

/// What the footer offers on a screen, most useful first.
pub fn offered(screen: &Screen, busy: bool) -> Vec<Action> {
    let mut actions = vec![Action::Help, Action::Quit];
    if busy {
        actions.push(Action::Interrupt);
    }
    actions.extend_from_slice(match screen {
        Screen::Overview => &[Action::Open, Action::Explain, Action::NextFailure, Action::Filter, Action::NextPanel, Action::Matrix],
        Screen::Checks(_) => &[Action::Open, Action::Back, Action::Explain, Action::FailuresOnly, Action::Filter, Action::NextFailure],
        Screen::Check(_) => &[Action::Back, Action::Explain, Action::Evidence, Action::Describe, Action::NextFailure, Action::Overview],
        Screen::Explain => &[Action::Back, Action::Verify, Action::Overview, Action::NextFailure],
        Screen::Bench => &[Action::Back, Action::Overview],
        Screen::Describe(_) | Screen::Help | Screen::Matrix | Screen::Log => &[Action::Back, Action::Overview, Action::NextFailure],
    });
    match screen {
        _ if busy => {}
        Screen::Checks(_) | Screen::Check(_) => actions.extend([Action::Again, Action::Rerun]),
        Screen::Bench => {}
        _ => actions.push(Action::Rerun),
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut seen: Vec<(KeyCode, bool)> = Vec::new();
        for key in KEYS {
            for code in key.codes {
                assert!(!seen.contains(&(*code, key.ctrl)), "{code:?} is in the table twice");
                seen.push((*code, key.ctrl));
            }
        }
    }

    #[test]
    fn no_name_means_two_things() {
        for key in KEYS {
            assert_eq!(KEYS.iter().filter(|k| k.name == key.name).count(), 1, "{}", key.name);
        }
    }

    #[test]
    fn modifiers_matter() {
        let find = |code, modifiers| lookup(KeyEvent::new(code, modifiers));
        assert_eq!(find(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Interrupt));
        assert_eq!(find(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(find(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(find(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
    }

    #[test]
    fn whatever_the_footer_offers_has_a_short_name() {
        for screen in Screen::examples() {
            for action in offered(&screen, true).into_iter().chain(offered(&screen, false)) {
                assert!(row(action).is_some_and(|key| !key.short.is_empty()), "{action:?}");
            }
        }
    }
}
