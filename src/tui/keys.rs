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
    /// Run everything again.
    Rerun,
    /// The keys.
    Help,
    /// Leave.
    Quit,
    /// Cancel the run; leave if there is none.
    Interrupt,
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
    /// A sentence for help.
    pub long: &'static str,
}

const fn key(codes: &'static [KeyCode], action: Action, label: &'static str, short: &'static str, long: &'static str) -> Key {
    Key { codes, ctrl: false, action, label, short, long }
}

/// Every key, in the order of help.
pub static KEYS: &[Key] = &[
    key(&[KeyCode::Char('j'), KeyCode::Down], Action::Down, "j ↓", "", "one row down"),
    key(&[KeyCode::Char('k'), KeyCode::Up], Action::Up, "k ↑", "", "one row up"),
    key(&[KeyCode::PageDown], Action::PageDown, "PgDn", "", "one page down"),
    key(&[KeyCode::PageUp], Action::PageUp, "PgUp", "", "one page up"),
    key(&[KeyCode::Char('g'), KeyCode::Home], Action::First, "g", "", "to the first row"),
    key(&[KeyCode::Char('G'), KeyCode::End], Action::Last, "G", "", "to the last row"),
    key(&[KeyCode::Enter, KeyCode::Right, KeyCode::Char('l')], Action::Open, "Enter", "open", "into what is chosen"),
    key(&[KeyCode::Esc, KeyCode::Left, KeyCode::Char('h'), KeyCode::Backspace], Action::Back, "Esc", "back", "back; clears a filter first"),
    key(&[KeyCode::Char('0')], Action::Overview, "0", "overview", "to the overview"),
    key(&[KeyCode::Char('1')], Action::Layer(1), "1", "", "checks of layer 1, Physical"),
    key(&[KeyCode::Char('2')], Action::Layer(2), "2", "", "checks of layer 2, Kubernetes"),
    key(&[KeyCode::Char('3')], Action::Layer(3), "3", "", "checks of layer 3, Service"),
    key(&[KeyCode::Char('4')], Action::Layer(4), "4", "", "checks of layer 4, Application"),
    key(&[KeyCode::Char('x')], Action::Explain, "x", "explain", "every cause: proof, rivals, fix"),
    key(&[KeyCode::Char(']')], Action::NextFailure, "]", "next failure", "to the next failing check"),
    key(&[KeyCode::Char('[')], Action::PreviousFailure, "[", "", "to the previous failing check"),
    key(&[KeyCode::Char('e')], Action::Evidence, "e", "evidence", "to a check's raw evidence"),
    key(&[KeyCode::Char('f')], Action::FailuresOnly, "f", "failures only", "list failing checks only, or all"),
    key(&[KeyCode::Char('/')], Action::Filter, "/", "filter", "layer:2 state:fail node:calypso or any text"),
    key(&[KeyCode::Tab], Action::NextPanel, "Tab", "panel", "the keys go to the next panel"),
    key(&[KeyCode::Char('r')], Action::Rerun, "r", "run again", "run everything again"),
    key(&[KeyCode::Char('?')], Action::Help, "?", "help", "this page"),
    key(&[KeyCode::Char('q')], Action::Quit, "q", "quit", "leave"),
    Key {
        codes: &[KeyCode::Char('c')],
        ctrl: true,
        action: Action::Interrupt,
        label: "ctrl+c",
        short: "cancel",
        long: "cancel the run; leave if none is under way",
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
        Screen::Overview => &[Action::Open, Action::Explain, Action::NextFailure, Action::Filter, Action::NextPanel],
        Screen::Checks(_) => &[Action::Open, Action::Back, Action::Explain, Action::FailuresOnly, Action::Filter, Action::NextFailure],
        Screen::Check(_) => &[Action::Back, Action::Explain, Action::Evidence, Action::NextFailure, Action::Overview],
        Screen::Explain | Screen::Help => &[Action::Back, Action::Overview, Action::NextFailure],
    });
    if !busy {
        actions.push(Action::Rerun);
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
    fn modifiers_matter() {
        let find = |code, modifiers| lookup(KeyEvent::new(code, modifiers));
        assert_eq!(find(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Interrupt));
        assert_eq!(find(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(find(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(find(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
    }

    #[test]
    fn whatever_the_footer_offers_has_a_short_name() {
        for screen in [Screen::Overview, Screen::Checks(None), Screen::Check("a".into()), Screen::Explain, Screen::Help] {
            for action in offered(&screen, true).into_iter().chain(offered(&screen, false)) {
                assert!(row(action).is_some_and(|key| !key.short.is_empty()), "{action:?}");
            }
        }
    }
}
