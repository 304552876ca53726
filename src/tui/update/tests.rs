//! `update` as tables: keys to screens, keys to effects.

use super::*;
use crate::tui::fixture;
use crate::tui::theme::Theme;

fn model(events: &[RunEvent]) -> Model {
    let mut model = Model::new(Theme { color: true, ascii: false }, (80, 24), fixture::at(0));
    for event in events {
        update(&mut model, Msg::Run(Box::new(event.clone())));
    }
    if !events.is_empty() {
        let report = fixture::report(&model.run);
        update(&mut model, Msg::Report(Box::new(report)));
    }
    model
}

fn done() -> Model {
    model(&fixture::blocked_vxlan())
}

/// Presses keys: one character each, and `<name>` for the others.
fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let (code, modifiers, used) = match rest.strip_prefix('<').and_then(|r| r.split_once('>')) {
            Some((name, _)) => (named(name), KeyModifiers::NONE, name.len() + 2),
            None if c == '^' => (KeyCode::Char('c'), KeyModifiers::CONTROL, 1),
            None => (KeyCode::Char(c), KeyModifiers::NONE, c.len_utf8()),
        };
        effects.extend(update(model, Msg::Key(KeyEvent::new(code, modifiers))));
        rest = &rest[used..];
    }
    effects
}

fn named(name: &str) -> KeyCode {
    match name {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "down" => KeyCode::Down,
        "pgdn" => KeyCode::PageDown,
        "bs" => KeyCode::Backspace,
        other => panic!("no key {other}"),
    }
}

#[test]
fn keys_lead_to_screens() {
    let check = |id: &str| Screen::Check(id.to_owned());
    let (first, second, third) = ("vxlan-wire[calypso>tethys]", "vxlan-wire[tethys>calypso]", "upload-http[tethys]");
    let table = [
        ("", Screen::Overview),
        ("<enter>", Screen::Checks(Some(1))),
        ("j<enter>", Screen::Checks(Some(2))),
        ("G<enter>", Screen::Checks(Some(4))),
        ("Gkkkkkk<enter>", Screen::Checks(Some(1))),
        ("3", Screen::Checks(Some(3))),
        ("340", Screen::Overview),
        ("2<enter>", check("flannel-device[calypso]")),
        ("2jj<enter>", check(first)),
        ("2<down>j<enter><esc>", Screen::Checks(Some(2))),
        ("2jj<enter><esc>j<enter>", check(second)),
        ("2<enter><esc><esc>", Screen::Overview),
        ("<esc><esc>", Screen::Overview),
        ("<tab><enter>", check(first)),
        ("<tab>jj<enter>", check(third)),
        ("<tab><tab><enter>", Screen::Explain),
        ("<tab><tab><tab><enter>", Screen::Checks(Some(1))),
        ("x", Screen::Explain),
        ("xx<esc>", Screen::Overview),
        ("2x?<esc><esc>", Screen::Checks(Some(2))),
        ("?", Screen::Help),
        ("]", check(first)),
        ("]]", check(second)),
        ("]]]", check(third)),
        ("]]]]", check(first)),
        ("[", check(third)),
        ("[[", check(second)),
        ("]]<esc>", Screen::Overview),
        ("1]", Screen::Checks(Some(2))),
        ("1]<enter>", check(first)),
        ("4[<enter>", check(second)),
        ("f", Screen::Checks(None)),
        ("fG<enter>", check(third)),
        ("f<esc>", Screen::Checks(None)),
        ("/argilla<enter><enter>", check("argilla-http[calypso]")),
        ("/nothing-like-this<enter><enter>", Screen::Checks(None)),
        ("/q<bs>state:warn<enter><enter>", check("tailscale-path[calypso>tethys]")),
        ("2jje", check(first)),
    ];
    for (keys, screen) in table {
        let mut model = done();
        let effects = press(&mut model, keys);
        assert_eq!((model.screen(), effects), (&screen, vec![]), "after {keys:?}");
    }
}

#[test]
fn keys_lead_to_effects() {
    let events = fixture::blocked_vxlan();
    let table = [
        (0, "q", vec![Effect::Quit]),
        (0, "^", vec![Effect::Cancel]),
        (6, "^", vec![Effect::Cancel]),
        (6, "^^", vec![Effect::Cancel, Effect::Quit]),
        (6, "r", vec![]),
        (events.len(), "^", vec![Effect::Quit]),
        (events.len(), "r", vec![Effect::Rerun]),
        (events.len(), "rr", vec![Effect::Rerun]),
        (events.len(), "/q", vec![]),
        (events.len(), "/q^", vec![Effect::Quit]),
        (events.len(), "/q<enter>q", vec![Effect::Quit]),
    ];
    for (n, keys, effects) in table {
        assert_eq!(press(&mut model(&events[..n]), keys), effects, "{keys:?} after {n} events");
    }
}

#[test]
fn a_filter_narrows_and_esc_widens_again() {
    let mut model = done();
    press(&mut model, "/state:fail<enter>");
    assert_eq!(model.listed().len(), 3);
    press(&mut model, "f");
    assert_eq!(model.listed().len(), 3);
    press(&mut model, "<esc>");
    assert_eq!(model.listed().len(), 21);
    press(&mut model, "/a b<esc>");
    assert_eq!((model.filter.as_str(), model.typing), ("", false));
    press(&mut model, "/");
    update(&mut model, Msg::Paste("node:styx\u{1b}".into()));
    assert_eq!(model.filter, "node:styx");
}

#[test]
fn the_chosen_check_stays_chosen_while_the_list_changes() {
    let events = fixture::blocked_vxlan();
    let mut model = model(&events[..1]);
    press(&mut model, "2jj");
    let chosen = model.chosen.clone();
    assert!(chosen.is_some());
    for event in &events[1..] {
        update(&mut model, Msg::Run(Box::new(event.clone())));
        assert_eq!(model.chosen, chosen);
    }
}

#[test]
fn a_failure_that_the_list_hides_is_shown() {
    let mut model = done();
    press(&mut model, "/layer:1<enter>]");
    assert!(model.filter.is_empty() && model.notice.is_some());
    let listed = model.listed();
    assert_eq!(listed[model.chosen_row(&listed)].planned.id, "vxlan-wire[calypso>tethys]");
}

#[test]
fn pages_scroll_to_their_end_and_no_further() {
    let mut model = done();
    press(&mut model, "x");
    press(&mut model, "G");
    let end = model.scroll();
    assert!(end > 0);
    press(&mut model, "jj<pgdn>");
    assert_eq!(model.scroll(), end);
    press(&mut model, "k");
    assert_eq!(model.scroll(), end - 1);
    update(&mut model, Msg::Resize(200, 90));
    assert_eq!(model.scroll(), 0);
}

#[test]
fn evidence_goes_to_the_raw_text() {
    let mut model = done();
    press(&mut model, "]e");
    let page = view::page(&model).unwrap();
    let heading = page.find_heading("Evidence").unwrap();
    assert!(model.scroll() > 0 && model.scroll() <= heading);
    press(&mut model, "1e");
    assert!(model.notice.is_some());
}

#[test]
fn a_new_run_forgets_the_old_diagnosis() {
    let mut model = done();
    press(&mut model, "]");
    press(&mut model, "r");
    assert!(model.report.is_none() && model.is_busy());
    update(&mut model, Msg::Run(Box::new(fixture::blocked_vxlan()[0].clone())));
    assert_eq!(model.run.progress(), (1, 21));
    assert!(matches!(model.screen(), Screen::Check(_)));
}

#[test]
fn events_that_stop_without_an_end_are_told() {
    let mut model = model(&fixture::blocked_vxlan()[..5]);
    update(&mut model, Msg::RunEnded);
    assert_eq!(model.phase(), Phase::Lost);
    assert_eq!(press(&mut model, "r"), [Effect::Rerun]);
}

#[test]
fn every_key_on_every_screen_at_every_size_is_safe() {
    let events = fixture::blocked_vxlan();
    for (n, size) in [(0, (80, 24)), (9, (40, 10)), (9, (120, 30)), (events.len(), (1, 1)), (events.len(), (60, 18))] {
        let mut fresh = model(&events[..n]);
        update(&mut fresh, Msg::Resize(size.0, size.1));
        for way in ["", "2jj<enter>", "x", "f", "/zz", "<tab>", "<tab><tab>"] {
            let mut there = fresh.clone();
            press(&mut there, way);
            for key in keys::KEYS {
                let mut model = there.clone();
                act(&mut model, key.action);
                settle(&mut model);
                let area = ratatui::layout::Rect::new(0, 0, size.0, size.1);
                view::draw_into(&model, area, &mut ratatui::buffer::Buffer::empty(area));
            }
        }
    }
}
