//! What the model looks like. One file per region:
//!
//! ```text
//!  fathom › overview                        ⠹ 14/21 · 1.2 s    header
//! ─ Diagnosis ──────────────────────────────────────────────
//!  ✗ udp8472-blocked  supported                                diagnosis (a column at the right on wide screens)
//! ─ Layers ─────────────────────────────────────────────────
//!  1 Physical    ...                                           layers, checks, or a page (detail, explain, help)
//! ─ Findings ───────────────────────────────────────────────
//!  ✗ fail  ...                                                 findings (overview only)
//!  Enter open  x explain  ? help  q quit                       footer
//! ```

mod areas;
mod bench;
mod checks;
mod detail;
mod diagnosis;
mod footer;
mod header;
mod help;
mod layers;
mod log;
mod matrix;
mod paint;

use super::model::{Model, Panel, Screen};
use crate::report::page::Page;
use areas::{Areas, areas};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget};

/// Draws the whole screen.
pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    draw_into(model, area, frame.buffer_mut());
}

/// Draws the whole screen into a buffer.
pub fn draw_into(model: &Model, area: Rect, buffer: &mut Buffer) {
    match areas(area, model.screen(), zoomed(model)) {
        Some(areas) => regions(model, &areas, buffer),
        None => too_small(area, buffer),
    }
    if model.theme.ascii {
        paint::in_ascii(buffer);
    }
}

/// The panel that fills the screen, if one does.
fn zoomed(model: &Model) -> Option<Panel> {
    model.zoom.then_some(model.panel)
}

fn regions(model: &Model, areas: &Areas, buffer: &mut Buffer) {
    header::draw(model, areas.header, buffer);
    footer::draw(model, areas.footer, buffer);
    if let Some(area) = areas.diagnosis {
        diagnosis::draw(model, area, areas.wide, buffer);
    }
    let Some(main) = areas.main else {
        if let Some(area) = areas.findings {
            checks::draw_findings(model, area, buffer);
        }
        return;
    };
    match model.screen() {
        Screen::Overview => {
            layers::draw(model, main, buffer);
            if let Some(area) = areas.findings {
                checks::draw_findings(model, area, buffer);
            }
        }
        Screen::Checks(_) => checks::draw(model, main, buffer),
        _ => {
            if let Some(page) = page(model) {
                paint::page(model, &page, main, buffer);
            }
        }
    }
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let lines = vec![Line::from("too small:"), Line::from(format!("fathom needs {} by {}", areas::LEAST.0, areas::LEAST.1))];
    Paragraph::new(lines).render(area, buffer);
}

/// The page that is on screen, if the screen is a page.
pub fn page(model: &Model) -> Option<Page> {
    let width = usize::from(main(model)?.width.saturating_sub(2));
    match model.screen() {
        Screen::Check(id) => Some(detail::page(model, id, width)),
        Screen::Describe(id) => Some(detail::described(model, id, width)),
        Screen::Matrix => Some(matrix::page(model, width)),
        Screen::Log => Some(log::page(model, width)),
        Screen::Bench => Some(bench::page(model, width)),
        Screen::Explain => Some(diagnosis::explain(model, width)),
        Screen::Help => Some(help::page(width)),
        Screen::Overview | Screen::Checks(_) => None,
    }
}

/// Rows that a page or list can show at once.
pub fn page_rows(model: &Model) -> usize {
    main(model).map_or(0, |area| usize::from(area.height.saturating_sub(1)))
}

/// The furthest that the page on screen can be scrolled.
pub fn last_scroll(model: &Model) -> usize {
    page(model).map_or(0, |page| page.lines.len().saturating_sub(page_rows(model)))
}

fn main(model: &Model) -> Option<Rect> {
    areas(Rect::new(0, 0, model.size.0, model.size.1), model.screen(), zoomed(model))?.main
}
