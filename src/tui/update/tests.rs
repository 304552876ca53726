//! `update` as tables: keys to screens, keys to effects.

use super::*;
use crate::run::watch::What;
use crate::tui::bench::{Bench, News, Offer, Reading};
use crate::tui::fixture;
use crate::tui::theme::Theme;
use crate::tui::view;

fn model(events: &[RunEvent]) -> Model {
    let mut model = Model::new(Theme::new(None, false), (80, 24), fixture::at(0));
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
        ("m", Screen::Matrix),
        ("ml<esc><esc>", Screen::Overview),
        (":matr<enter>", Screen::Matrix),
        (":layer 3<enter>", Screen::Checks(Some(3))),
        (":layer 9<enter>", Screen::Overview),
        (":search node:styx<enter><enter>", check("tailscale-up[styx]")),
        (":check vxlan<enter>", check(first)),
        (":check nothing<enter>", Screen::Overview),
        (":x<esc>x", Screen::Explain),
        (":expl<tab><enter>", Screen::Explain),
        (":<enter>", Screen::Overview),
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
        (6, "R", vec![]),
        (events.len(), "^", vec![Effect::Quit]),
        (events.len(), "R", vec![Effect::Rerun]),
        (events.len(), "RR", vec![Effect::Rerun]),
        (events.len(), "Q", vec![Effect::QuitKeeping]),
        (events.len(), ":quit<enter>", vec![Effect::Quit]),
        (events.len(), ":quit now<enter>", vec![]),
        (events.len(), "r", vec![]),
        (events.len(), "2r", vec![asked_again("flannel-device[calypso]")]),
        (events.len(), "]r", vec![asked_again("vxlan-wire[calypso>tethys]")]),
        (events.len(), "/styx<enter>r", vec![]),
        (6, "2r", vec![]),
        (6, "v", vec![]),
        (events.len(), "]d", vec![Effect::Describe("vxlan-wire".to_owned())]),
        (events.len(), "d", vec![]),
        (events.len(), "w", vec![Effect::Write(None)]),
        (events.len(), ":save there<enter>", vec![Effect::Write(Some("there".to_owned()))]),
        (events.len(), ":save<enter>", vec![]),
        (events.len(), "b", vec![Effect::BenchOffer(None)]),
        (events.len(), ":measure ocr<enter>", vec![Effect::BenchOffer(Some("ocr".to_owned()))]),
        (events.len(), "/q", vec![]),
        (events.len(), "/q^", vec![Effect::Quit]),
        (events.len(), "/q<enter>q", vec![Effect::Quit]),
    ];
    for (n, keys, effects) in table {
        assert_eq!(press(&mut model(&events[..n]), keys), effects, "{keys:?} after {n} events");
    }
}

fn asked_again(id: &str) -> Effect {
    Effect::Again(Again::Checks { ids: vec![id.to_owned()], because: "asked for by a person".to_owned() })
}

#[test]
fn verify_looks_at_what_must_pass_and_at_what_was_explained() {
    let effects = press(&mut done(), "v");
    let [Effect::Again(Again::Checks { ids, because })] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(because, "whether the fix of udp8472-blocked has worked");
    for id in ["vxlan-wire[calypso>tethys]", "pod-echo[calypso>tethys]", "vxlan-wire[tethys>calypso]"] {
        assert!(ids.iter().any(|i| i == id), "{id} is not in {ids:?}");
    }
    assert_eq!(press(&mut model(&fixture::healthy()), "v"), []);
}

#[test]
fn lines_and_pages_are_copied() {
    let effects = press(&mut done(), "]yY");
    let [Effect::Copy(line), Effect::Copy(page)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(line.starts_with("fail vxlan-wire[calypso>tethys]"), "{line}");
    assert!(page.starts_with("## "), "{page}");
}

fn gone() -> Change {
    Change { vantage: "calypso".into(), what: What::Link, gone: true, device: Some("flannel.1".into()) }
}

fn again(model: &mut Model, ids: &[&str]) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let event = RunEvent::Rechecking { at: fixture::at(9000), because: "flannel.1 deleted on calypso".into(), ids };
    update(model, Msg::Run(Box::new(event)));
}

fn finish(model: &mut Model, interrupted: bool) -> Vec<Effect> {
    update(model, Msg::Run(Box::new(RunEvent::Finished { at: fixture::at(9900), complete: !interrupted, interrupted })))
}

#[test]
fn a_change_is_told_and_looked_at_and_then_everything_older() {
    let mut model = done();
    update(&mut model, Msg::Watched);
    assert_eq!(update(&mut model, Msg::Changed(gone(), fixture::at(8000))), [Effect::Wait(Wait::Settle)]);
    assert_eq!(update(&mut model, Msg::Changed(gone(), fixture::at(8001))), [], "the same change once more");
    assert_eq!(model.live.says().unwrap(), "changed: flannel.1 deleted on calypso, re-checking");
    assert_eq!(update(&mut model, Msg::Waited), [Effect::Again(Again::Changed(vec![gone()]))]);
    again(&mut model, &["flannel-device[calypso]"]);
    assert!(model.is_busy());
    assert_eq!(model.live.says().unwrap(), "changed: flannel.1 deleted on calypso, re-checking 1 check");
    assert_eq!(finish(&mut model, false), [Effect::Wait(Wait::Quiet)]);
    assert!(model.live.mixed);
    assert_eq!(update(&mut model, Msg::Waited), [Effect::Again(Again::Older(fixture::at(8001)))]);
    again(&mut model, &["postgres[tethys]"]);
    assert_eq!(finish(&mut model, false), []);
    assert_eq!(model.live.says().unwrap(), "changed: flannel.1 deleted on calypso, re-checked");
    assert!(!model.live.mixed, "nothing is older than the change");
    press(&mut model, "j");
    assert_eq!(model.live.says(), None);
}

#[test]
fn a_change_while_a_run_goes_on_is_looked_at_after_it() {
    let events = fixture::blocked_vxlan();
    let mut model = model(&events[..9]);
    assert_eq!(update(&mut model, Msg::Changed(gone(), fixture::at(500))), []);
    assert_eq!(update(&mut model, Msg::Waited), []);
    let mut effects = Vec::new();
    for event in &events[9..] {
        effects.extend(update(&mut model, Msg::Run(Box::new(event.clone()))));
    }
    assert_eq!(effects, [Effect::Wait(Wait::Settle)]);
}

#[test]
fn paused_means_noticed_but_not_looked_at() {
    let mut model = done();
    update(&mut model, Msg::Watched);
    assert_eq!(press(&mut model, " "), []);
    assert_eq!(update(&mut model, Msg::Changed(gone(), fixture::at(8000))), []);
    assert!(model.live.says().unwrap().contains("paused"));
    assert_eq!(update(&mut model, Msg::Waited), []);
    assert_eq!(press(&mut model, " "), [Effect::Wait(Wait::Settle)]);
    // Who cancels a look wants quiet.
    update(&mut model, Msg::Waited);
    again(&mut model, &["flannel-device[calypso]"]);
    assert_eq!(press(&mut model, "^"), [Effect::Cancel]);
    assert_eq!(finish(&mut model, true), []);
    assert!(model.live.paused && model.live.is_due());
}

#[test]
fn an_early_end_has_renewed_nothing() {
    let mut model = done();
    update(&mut model, Msg::Changed(gone(), fixture::at(8000)));
    update(&mut model, Msg::Waited);
    again(&mut model, &["flannel-device[calypso]"]);
    finish(&mut model, false);
    update(&mut model, Msg::Waited);
    again(&mut model, &["postgres[tethys]"]);
    finish(&mut model, true);
    assert_eq!(press(&mut model, " "), [Effect::Wait(Wait::Quiet)]);
}

fn offer() -> Offer {
    let text = str::to_owned;
    Offer {
        server: text("ocr"),
        target: text("http://192.168.2.119:8000"),
        from: text("calypso"),
        statement: text("64 requests"),
        requests: 64,
    }
}

#[test]
fn nothing_is_measured_before_a_person_agrees() {
    let mut model = done();
    press(&mut model, "b");
    update(&mut model, Msg::Bench(Box::new(News::Offer(Ok(offer())))));
    assert_eq!(press(&mut model, "<esc>b"), [Effect::BenchOffer(None)]);
    update(&mut model, Msg::Bench(Box::new(News::Offer(Ok(offer())))));
    assert_eq!(press(&mut model, "<enter>"), [Effect::Bench("ocr".to_owned())]);
    assert!(model.bench.is_running());
    update(&mut model, Msg::Bench(Box::new(News::Reading(Reading { done: 3, ..Reading::default() }))));
    // Looking at the network would disturb it.
    assert_eq!(press(&mut model, "<enter>rRv"), []);
    assert_eq!(update(&mut model, Msg::Changed(gone(), fixture::at(8000))), []);
    assert_eq!(press(&mut model, "<esc>"), [Effect::BenchStop]);
    assert_eq!(press(&mut model, "<esc>"), [], "asked once");
    assert_eq!(update(&mut model, Msg::Bench(Box::new(News::Done(Ok("a report".into()))))), [Effect::Wait(Wait::Settle)]);
    assert_eq!(model.bench, Bench::Done { offer: offer(), text: "a report".into() });
    assert_eq!(press(&mut model, "0b"), [], "the result stays");
    assert_eq!(press(&mut model, "<enter>"), [Effect::BenchOffer(Some("ocr".to_owned()))]);
}

#[test]
fn ctrl_c_stops_a_measurement_and_then_leaves() {
    let mut model = done();
    press(&mut model, "b");
    update(&mut model, Msg::Bench(Box::new(News::Offer(Ok(offer())))));
    assert_eq!(press(&mut model, "<enter>^^"), [Effect::Bench("ocr".to_owned()), Effect::BenchStop, Effect::Quit]);
}

#[test]
fn a_measurement_waits_for_the_run() {
    let mut model = model(&fixture::blocked_vxlan()[..9]);
    press(&mut model, "b");
    update(&mut model, Msg::Bench(Box::new(News::Offer(Ok(offer())))));
    assert_eq!(press(&mut model, "<enter>"), []);
    assert!(model.notice.is_some() && !model.bench.is_running());
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
    assert_eq!((model.filter.as_str(), model.typing), ("", None));
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
    press(&mut model, "R");
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
    assert_eq!(press(&mut model, "R"), [Effect::Rerun]);
}

#[test]
fn every_key_on_every_screen_at_every_size_is_safe() {
    let events = fixture::blocked_vxlan();
    for (n, size) in [(0, (80, 24)), (9, (40, 10)), (9, (120, 30)), (events.len(), (1, 1)), (events.len(), (60, 18))] {
        let mut fresh = model(&events[..n]);
        update(&mut fresh, Msg::Resize(size.0, size.1));
        for way in ["", "2jj<enter>", "x", "f", "/zz", "<tab>", "<tab><tab>", "m", "l", "b", "+", "<tab><tab>+", "2jjd", ":ch"] {
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
