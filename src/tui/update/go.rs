//! Getting around: rows, screens, panels, failures.

use crate::report::LAYERS;
use crate::tui::filter::is_failure;
use crate::tui::model::{Model, Panel, Place, Screen, Typing};
use crate::tui::update::Effect;
use crate::tui::view;

/// Moves by rows: the scrolled page, the chosen row, or the shown diagnosis.
pub(super) fn step(model: &mut Model, by: isize) {
    let moved = |from: usize, last: usize| from.saturating_add_signed(by).min(last);
    match (model.panel, model.screen().clone()) {
        (Panel::Diagnosis, _) => model.diagnosis = moved(model.diagnosis, model.diagnoses().saturating_sub(1)),
        (Panel::Findings, Screen::Overview) => model.finding_row = moved(model.finding_row, model.findings().len().saturating_sub(1)),
        (_, Screen::Overview) => model.layer_row = moved(model.layer_row, LAYERS.len() - 1),
        (_, Screen::Checks(_)) => {
            let listed = model.listed();
            let row = moved(model.chosen_row(&listed), listed.len().saturating_sub(1));
            model.chosen = listed.get(row).map(|r| r.planned.id.clone());
        }
        _ => scroll_to(model, model.scroll().saturating_add_signed(by)),
    }
}

pub(super) fn page_step(model: &Model) -> isize {
    isize::try_from(view::page_rows(model).saturating_sub(1).max(1)).unwrap_or(1)
}

pub(super) fn scroll_to(model: &mut Model, line: usize) {
    let last = view::last_scroll(model);
    if let Some(place) = model.places.last_mut() {
        place.scroll = line.min(last);
    }
}

/// Goes into a screen; going where one already is changes nothing, and no screen is on the way twice.
pub(super) fn enter(model: &mut Model, screen: Screen) {
    if *model.screen() == screen {
        return;
    }
    if let Some(at) = model.places.iter().position(|p| p.screen == screen) {
        model.places.truncate(at + 1);
    } else {
        model.places.push(Place::top(screen));
    }
    model.panel = Panel::Main;
}

pub(super) fn open(model: &mut Model) {
    let screen = match (model.panel, model.screen()) {
        (Panel::Diagnosis, _) => Some(Screen::Explain),
        (Panel::Main, Screen::Overview) => Some(Screen::Checks(Some(model.layer()))),
        (_, Screen::Overview | Screen::Checks(_)) => current_check(model).map(Screen::Check),
        _ => None,
    };
    if let Some(screen) = screen {
        if let Screen::Check(id) = &screen {
            model.chosen = Some(id.clone());
        }
        enter(model, screen);
    }
}

/// The check that one is at, by instance id: the one on screen, or the chosen one of a list.
pub(super) fn current_check(model: &Model) -> Option<String> {
    match (model.panel, model.screen()) {
        (Panel::Diagnosis, _) => None,
        (Panel::Findings, Screen::Overview) => model.findings().get(model.finding_row).map(|r| r.planned.id.clone()),
        (_, Screen::Checks(_)) => {
            let listed = model.listed();
            listed.get(model.chosen_row(&listed)).map(|r| r.planned.id.clone())
        }
        (_, Screen::Check(id)) => Some(id.clone()),
        (_, Screen::Describe(_)) => model.chosen.clone(),
        _ => None,
    }
}

/// What the check is that one is at.
pub(super) fn describe(model: &mut Model) -> Vec<Effect> {
    let check = current_check(model).and_then(|id| model.run.row(&id).map(|row| row.planned.check.clone()));
    let Some(check) = check else {
        model.notice = Some("choose a check first".to_owned());
        return Vec::new();
    };
    model.chosen = current_check(model);
    enter(model, Screen::Describe(check.clone()));
    vec![Effect::Describe(check)]
}

pub(super) fn back(model: &mut Model) {
    let narrowed = !model.filter.is_empty() || model.failures_only;
    if model.panel != Panel::Main {
        model.panel = Panel::Main;
    } else if narrowed && matches!(model.screen(), Screen::Checks(_)) {
        model.filter.clear();
        model.failures_only = false;
    } else if model.places.len() > 1 {
        model.places.pop();
    }
}

pub(super) fn go_to_layer(model: &mut Model, layer: u8) {
    model.layer_row = LAYERS.iter().position(|(number, _)| *number == layer).unwrap_or(0);
    model.places.truncate(1);
    enter(model, Screen::Checks(Some(layer)));
}

pub(super) fn next_panel(model: &mut Model) {
    let panels: &[Panel] = match model.screen() {
        Screen::Overview => &[Panel::Main, Panel::Findings, Panel::Diagnosis],
        Screen::Explain | Screen::Bench => &[Panel::Main],
        _ => &[Panel::Main, Panel::Diagnosis],
    };
    let at = panels.iter().position(|p| *p == model.panel).unwrap_or(0);
    model.panel = panels[(at + 1) % panels.len()];
}

/// To the next or previous failing check in plan order, round the end.
pub(super) fn go_to_failure(model: &mut Model, forward: bool) {
    let current = match model.screen() {
        Screen::Check(id) => Some(id.clone()),
        Screen::Checks(_) => {
            let listed = model.listed();
            listed.get(model.chosen_row(&listed)).map(|row| row.planned.id.clone())
        }
        _ => None,
    };
    let Some((id, layer)) = failure_beside(model, current.as_deref(), forward) else {
        model.notice = Some("nothing has failed".to_owned());
        return;
    };
    model.chosen = Some(id.clone());
    model.panel = Panel::Main;
    match model.screen() {
        Screen::Checks(_) => show_in_list(model, &id, layer),
        Screen::Check(_) => {
            model.places.pop();
            enter(model, Screen::Check(id));
        }
        _ => enter(model, Screen::Check(id)),
    }
}

pub(super) fn failure_beside(model: &Model, current: Option<&str>, forward: bool) -> Option<(String, u8)> {
    let at = current.and_then(|id| model.run.planned.iter().position(|p| p.id == id));
    let failing: Vec<(usize, _)> = model.run.rows().enumerate().filter(|(_, row)| is_failure(row)).collect();
    let found = match (at, forward) {
        (Some(at), true) => failing.iter().find(|(n, _)| *n > at).or(failing.first()),
        (Some(at), false) => failing.iter().rev().find(|(n, _)| *n < at).or(failing.last()),
        (None, true) => failing.first(),
        (None, false) => failing.last(),
    };
    found.map(|(_, row)| (row.planned.id.clone(), row.planned.layer))
}

/// Makes a check visible in the list: another layer or a filter must not hide it.
pub(super) fn show_in_list(model: &mut Model, id: &str, layer: u8) {
    let listed = |model: &Model| model.listed().iter().any(|row| row.planned.id == id);
    if listed(model) {
        return;
    }
    if let Some(place) = model.places.last_mut()
        && matches!(place.screen, Screen::Checks(Some(_)))
    {
        place.screen = Screen::Checks(Some(layer));
    }
    if !listed(model) {
        model.filter.clear();
        model.notice = Some("the filter hid it and is cleared".to_owned());
    }
}

pub(super) fn failures_only(model: &mut Model) {
    if matches!(model.screen(), Screen::Checks(_)) {
        model.failures_only = !model.failures_only;
    } else {
        model.failures_only = true;
        model.places.truncate(1);
        enter(model, Screen::Checks(None));
    }
}

pub(super) fn start_filter(model: &mut Model) {
    if !matches!(model.screen(), Screen::Checks(_)) {
        model.places.truncate(1);
        enter(model, Screen::Checks(None));
    }
    model.panel = Panel::Main;
    model.typing = Some(Typing::Filter);
}

pub(super) fn evidence(model: &mut Model) {
    if matches!(model.screen(), Screen::Overview | Screen::Checks(_)) {
        open(model);
    }
    let line = view::page(model).and_then(|page| page.find_heading("Evidence"));
    match line {
        Some(line) => scroll_to(model, line),
        None => model.notice = Some("there is no raw evidence here".to_owned()),
    }
}
