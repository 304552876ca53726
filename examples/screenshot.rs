//! Draws a recorded run as the terminal interface shows it, as an SVG picture:
//!
//! `fathom check --twin=udp8472-blocked --from calypso,tethys -o ndjson | cargo run --example screenshot -- 100 34 > assets/screen.svg`

use chrono::Utc;
use fathom::def::{Catalog, Sources};
use fathom::report::build::{FailOn, build};
use fathom::run::RunEvent;
use fathom::tui::model::Model;
use fathom::tui::update::{Msg, update};
use fathom::tui::{Theme, svg, view};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

fn main() -> anyhow::Result<()> {
    let size = |n: usize, default: u16| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let area = Rect::new(0, 0, size(1, 100), size(2, 34));
    let catalog = Catalog::load(&Sources::default()).map_err(|findings| anyhow::anyhow!("{findings:?}"))?;
    let mut model = Model::new(Theme::new(None, false), (area.width, area.height), Utc::now());
    for line in std::io::stdin().lines() {
        update(&mut model, Msg::Run(Box::new(serde_json::from_str::<RunEvent>(&line?)?)));
    }
    let report = build(&model.run, &catalog, FailOn::default());
    update(&mut model, Msg::Report(Box::new(report)));
    let mut buffer = Buffer::empty(area);
    view::draw_into(&model, area, &mut buffer);
    print!("{}", svg::to_svg(&buffer));
    Ok(())
}
