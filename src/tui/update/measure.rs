//! The measurement of a model server: asked for, agreed to, stopped.

use super::Effect;
use super::go::enter;
use crate::tui::bench::{Bench, Reading};
use crate::tui::model::{Model, Screen};

/// Opens the screen. What would be sent is asked for; nothing is sent yet.
pub(super) fn ask(model: &mut Model, server: Option<String>) -> Vec<Effect> {
    enter(model, Screen::Bench);
    let keep = server.is_none() && matches!(model.bench, Bench::Done { .. }) || model.bench.is_running();
    if keep { Vec::new() } else { vec![Effect::BenchOffer(server)] }
}

/// A person presses Enter: agrees to what is offered, or asks for the same once more.
pub(super) fn agree(model: &mut Model) -> Vec<Effect> {
    match &model.bench {
        Bench::Offered(_) if model.is_busy() => {
            model.notice = Some("the run is still going on: it would disturb the measurement".to_owned());
            Vec::new()
        }
        Bench::Offered(offer) => {
            let (offer, server) = (offer.clone(), offer.server.clone());
            model.log.word(model.now, format!("measuring {} from {}: {}", offer.target, offer.from, offer.statement));
            model.bench = Bench::Running { offer, began: model.now, reading: Reading::default(), stopping: false };
            vec![Effect::Bench(server)]
        }
        Bench::Done { offer, .. } => vec![Effect::BenchOffer(Some(offer.server.clone()))],
        Bench::Refused(_) => vec![Effect::BenchOffer(None)],
        Bench::None | Bench::Running { .. } => Vec::new(),
    }
}

/// Asks for the end of a measurement that is under way; `None` if there is none or it was asked for already.
pub(super) fn stop(model: &mut Model) -> Option<Vec<Effect>> {
    let Bench::Running { stopping, .. } = &mut model.bench else { return None };
    if std::mem::replace(stopping, true) {
        return None;
    }
    model.notice = Some("stopping; the numbers so far are about to come".to_owned());
    Some(vec![Effect::BenchStop])
}
