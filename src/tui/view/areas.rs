//! Where the regions lie, for every size of the screen.

use crate::tui::model::{Panel, Screen};
use ratatui::layout::{Constraint, Layout, Rect};

/// Columns and rows below which nothing useful fits.
pub(super) const LEAST: (u16, u16) = (40, 10);

/// The regions. The diagnosis has one on every screen but the one that it fills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Areas {
    pub(super) header: Rect,
    pub(super) diagnosis: Option<Rect>,
    /// The screen's own contents; not there while another panel fills the screen.
    pub(super) main: Option<Rect>,
    pub(super) findings: Option<Rect>,
    pub(super) footer: Rect,
    /// Whether the diagnosis is a column at the right.
    pub(super) wide: bool,
}

/// The regions of a screen, with one panel filling it or not; `None` if it is too small.
pub(super) fn areas(area: Rect, screen: &Screen, zoom: Option<Panel>) -> Option<Areas> {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return None;
    }
    let head = if area.height >= 16 { 2 } else { 1 };
    let [header, body, footer] = Layout::vertical([Constraint::Length(head), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let wide = area.width >= 110 && area.height >= 20;
    let alone = Areas { header, diagnosis: None, main: None, findings: None, footer, wide: false };
    match (zoom, screen) {
        (Some(Panel::Diagnosis), Screen::Explain) | (None, _) => {}
        // As much of it as there is, as in a column.
        (Some(Panel::Diagnosis), _) => return Some(Areas { diagnosis: Some(body), wide: true, ..alone }),
        (Some(Panel::Findings), Screen::Overview) => return Some(Areas { findings: Some(body), ..alone }),
        (Some(_), _) => return Some(Areas { main: Some(body), ..alone }),
    }
    let (diagnosis, main) = match screen {
        Screen::Explain => (None, body),
        _ if wide => beside(body),
        _ => above(body, area.height),
    };
    let (main, findings) = if *screen == Screen::Overview { overview(main) } else { (main, None) };
    Some(Areas { diagnosis, main: Some(main), findings, wide, ..alone })
}

fn beside(body: Rect) -> (Option<Rect>, Rect) {
    let column = (body.width * 9 / 20).min(90);
    let [main, diagnosis] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(column)]).areas(body);
    (Some(diagnosis), main)
}

fn above(body: Rect, rows: u16) -> (Option<Rect>, Rect) {
    let height = match rows {
        30.. => 9,
        22.. => 7,
        16.. => 5,
        _ => 3,
    };
    let [diagnosis, main] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(body);
    (Some(diagnosis), main)
}

/// Layers above, findings below, if at least two of them fit.
fn overview(main: Rect) -> (Rect, Option<Rect>) {
    const LAYERS: u16 = 6;
    if main.height < LAYERS + 3 {
        return (main, None);
    }
    let [layers, findings] = Layout::vertical([Constraint::Length(LAYERS), Constraint::Fill(1)]).areas(main);
    (layers, Some(findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_every_region_inside_or_is_too_small() {
        for screen in Screen::examples() {
            let heights = [1, 9, 10, 11, 15, 16, 17, 19, 20, 21, 22, 24, 29, 30, 31, 50, 90];
            for (width, height) in [1, 39, 40, 41, 60, 80, 109, 110, 111, 200, 400].into_iter().flat_map(|w| heights.map(|h| (w, h))) {
                let area = Rect::new(0, 0, width, height);
                let Some(found) = areas(area, &screen, None) else {
                    assert!(width < LEAST.0 || height < LEAST.1);
                    continue;
                };
                let regions = [Some(found.header), found.diagnosis, found.main, found.findings, Some(found.footer)];
                assert!(regions.into_iter().flatten().all(|r| area.intersection(r) == r && r.height > 0 && r.width >= 38));
                assert!(found.main.unwrap().height >= 5);
                assert_eq!(found.diagnosis.is_none(), screen == Screen::Explain);
                for panel in [Panel::Main, Panel::Findings, Panel::Diagnosis] {
                    let alone = areas(area, &screen, Some(panel)).unwrap();
                    let filled: Vec<Rect> = [alone.diagnosis, alone.main, alone.findings].into_iter().flatten().collect();
                    assert!(filled.len() == 1 && filled[0].height >= found.main.unwrap().height, "{screen:?} {panel:?}");
                }
            }
        }
    }
}
