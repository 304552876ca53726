//! Whole screens, as text, at the sizes that people have.

use super::bench::{News, Offer, Reading};
use super::fixture;
use super::model::Model;
use super::theme::Theme;
use super::update::{Msg, update};
use super::view;
use crate::run::RunEvent;
use crate::run::watch::{Change, What};
use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

/// A model after some events, with its report, and some keys (one character each).
pub(crate) fn model(events: &[RunEvent], size: (u16, u16), keys: &str) -> Model {
    let mut model = Model::new(Theme::new(None, false), size, fixture::at(1234));
    for event in events {
        update(&mut model, Msg::Run(Box::new(event.clone())));
    }
    if model.run.started_at.is_some() {
        let report = fixture::report(&model.run);
        update(&mut model, Msg::Report(Box::new(report)));
    }
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        update(&mut model, Msg::Key(KeyEvent::from(code)));
    }
    model
}

pub(crate) fn screen(model: &Model) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
    terminal.draw(|frame| view::draw(model, frame)).unwrap();
    terminal
}

macro_rules! screens {
    ($($name:ident: $events:expr, $size:expr, $keys:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(screen(&model(&$events, $size, $keys)).backend());
        }
    )*};
}

screens! {
    overview_80x24: fixture::blocked_vxlan(), (80, 24), "";
    overview_120x40: fixture::blocked_vxlan(), (120, 40), "";
    overview_60x18: fixture::blocked_vxlan(), (60, 18), "";
    overview_40x10: fixture::blocked_vxlan(), (40, 10), "";
    overview_too_small: fixture::blocked_vxlan(), (30, 5), "";
    overview_findings_chosen_80x24: fixture::blocked_vxlan(), (80, 24), "\tj";
    overview_second_diagnosis_80x24: fixture::blocked_vxlan(), (80, 24), "\t\tj";
    overview_healthy_80x24: fixture::healthy(), (80, 24), "";
    overview_before_the_plan_80x24: [], (80, 24), "";
    overview_while_running_80x24: fixture::blocked_vxlan()[..19], (80, 24), "";
    layer_80x24: fixture::blocked_vxlan(), (80, 24), "2jj";
    layer_120x40: fixture::blocked_vxlan(), (120, 40), "2jj";
    layer_60x18: fixture::blocked_vxlan(), (60, 18), "2jj";
    layer_while_running_80x24: fixture::blocked_vxlan()[..17], (80, 24), "2jj";
    all_160x50: fixture::blocked_vxlan(), (160, 50), "/\n";
    filter_80x24: fixture::blocked_vxlan(), (80, 24), "/node:calypso state:blocked,unk";
    failures_80x24: fixture::blocked_vxlan(), (80, 24), "f";
    check_80x24: fixture::blocked_vxlan(), (80, 24), "]";
    check_120x40: fixture::blocked_vxlan(), (120, 40), "]";
    check_60x18: fixture::blocked_vxlan(), (60, 18), "]";
    check_evidence_80x24: fixture::blocked_vxlan(), (80, 24), "]e";
    check_blocked_80x24: fixture::blocked_vxlan(), (80, 24), "2jjjj\n";
    check_running_80x24: fixture::blocked_vxlan()[..17], (80, 24), "2jj\n";
    explain_80x24: fixture::blocked_vxlan(), (80, 24), "x";
    explain_120x40: fixture::blocked_vxlan(), (120, 40), "x";
    explain_60x18: fixture::blocked_vxlan(), (60, 18), "x";
    help_80x24: fixture::blocked_vxlan(), (80, 24), "?";
    matrix_80x24: fixture::blocked_vxlan(), (80, 24), "m";
    matrix_120x40: fixture::blocked_vxlan(), (120, 40), "m";
    log_80x24: fixture::blocked_vxlan(), (80, 24), "l";
    zoomed_diagnosis_80x24: fixture::blocked_vxlan(), (80, 24), "\t\t+";
    command_80x24: fixture::blocked_vxlan(), (80, 24), ":ma";
    help_120x40: fixture::blocked_vxlan(), (120, 40), "?";
}

fn said(model: &mut Model, news: News) {
    update(model, Msg::Bench(Box::new(news)));
}

fn offered(size: (u16, u16)) -> Model {
    let mut model = model(&fixture::blocked_vxlan(), size, "b");
    let offer = Offer {
        server: "deepseek-ocr".into(),
        target: "http://192.168.2.119:8000".into(),
        from: "calypso".into(),
        statement: "64 requests (text of 256 words, up to 128 tokens each) after 4 to warm up, 8 at a time: at most 45696 tokens and 300 s"
            .into(),
        requests: 64,
    };
    said(&mut model, News::Offer(Ok(offer)));
    model
}

#[test]
fn the_bench_says_what_it_will_send_and_how_far_it_is() {
    let mut model = offered((80, 24));
    insta::assert_snapshot!("bench_offered_80x24", screen(&model).backend());
    update(&mut model, Msg::Key(KeyEvent::from(KeyCode::Enter)));
    update(&mut model, Msg::Tick(fixture::at(5234)));
    said(&mut model, News::Reading(Reading { done: 21, complete: 20, in_flight: 8, tokens: 2560, ttft_ms: 1840.0 }));
    insta::assert_snapshot!("bench_running_80x24", screen(&model).backend());
}

#[test]
fn a_change_is_on_screen_at_once() {
    let mut model = model(&fixture::blocked_vxlan(), (80, 24), "");
    update(&mut model, Msg::Watched);
    let change = Change { vantage: "calypso".into(), what: What::Link, gone: true, device: Some("flannel.1".into()) };
    update(&mut model, Msg::Changed(change, fixture::at(8000)));
    insta::assert_snapshot!("changed_80x24", screen(&model).backend());
}

#[test]
fn ascii_screens_hold_nothing_else() {
    for keys in ["", "2jj", "]", "x", "?", "m", "l", "b"] {
        for size in [(80, 24), (120, 40)] {
            let mut model = model(&fixture::blocked_vxlan()[..20], size, keys);
            model.theme.ascii = true;
            let terminal = screen(&model);
            assert!(terminal.backend().buffer().content.iter().all(|cell| cell.symbol().is_ascii()));
        }
    }
}

#[test]
fn without_colour_no_cell_has_one() {
    let mut model = model(&fixture::blocked_vxlan(), (120, 40), "2");
    model.theme.color = false;
    let terminal = screen(&model);
    let reset = ratatui::style::Color::Reset;
    assert!(terminal.backend().buffer().content.iter().all(|cell| cell.fg == reset && cell.bg == reset));
}

#[test]
fn the_diagnosis_is_in_sight_on_every_screen() {
    for keys in ["", "2", "f", "]", "x", "?", "/zz", "\t", "m", "l", "b"] {
        for size in [(40, 10), (60, 18), (80, 24), (120, 40)] {
            let text = screen(&model(&fixture::blocked_vxlan(), size, keys)).backend().to_string();
            assert!(text.contains("udp8472-blocked"), "{keys:?} at {size:?}:\n{text}");
        }
    }
}
