//! Request bodies. Each begins with something that no earlier request had, so that no cache can answer for the engine.

use super::page;
use super::plan::{Input, Plan};
use super::random::Random;
use crate::encoding::base64;
use serde_json::{Value, json};

/// Common words, each one token in usual vocabularies.
const WORDS: [&str; 32] = [
    "ship", "port", "flag", "name", "list", "page", "line", "date", "crew", "boat", "fish", "tide", "wind", "rock", "coast", "chart",
    "north", "south", "east", "west", "deep", "blue", "light", "watch", "bell", "mast", "sail", "hull", "rope", "deck", "cargo", "route",
];

/// The body of a request: of the plan's seed and its number, and of what is different in each run.
pub fn body(plan: &Plan, index: u32, nonce: u64) -> Vec<u8> {
    let mut random = Random::new(plan.seed ^ u64::from(index) << 20);
    let unique = Random::new(nonce.wrapping_add(u64::from(index))).bits();
    let mut body = json!({
        "model": plan.model,
        "max_tokens": plan.output_tokens,
        "temperature": 0,
        "stream": true,
        // Running usage tells how many tokens an event holds.
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    match plan.input {
        Input::Text => {
            let words: Vec<&str> = (0..plan.prompt_words).map(|_| WORDS[random.below(WORDS.len())]).collect();
            body["messages"] = json!([{"role": "user", "content": format!("{unique:016x} {}", words.join(" "))}]);
            // Every answer has the same length: figures of two runs can be compared.
            body["ignore_eos"] = Value::Bool(true);
        }
        Input::Image => {
            let url = format!("data:image/png;base64,{}", base64(&page::png(unique)));
            body["messages"] = json!([{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "Free OCR."},
            ]}]);
            body["skip_special_tokens"] = Value::Bool(false);
            body["vllm_xargs"] = json!({"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128_821, 128_822]});
        }
    }
    body.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Load, tests::plan};
    use super::*;

    #[test]
    fn no_two_requests_begin_alike() {
        let plan = plan(Load::Closed { concurrency: 1 });
        let text = |index, nonce| {
            let body: Value = serde_json::from_slice(&body(&plan, index, nonce)).unwrap();
            body["messages"][0]["content"].as_str().unwrap().to_owned()
        };
        let (a, b, again) = (text(0, 1), text(1, 1), text(0, 2));
        assert!(a[..16] != b[..16] && a[..16] != again[..16]);
        // The seed decides the rest.
        assert_eq!(a[16..], again[16..]);
        assert_eq!(a.split(' ').count(), 101);
    }

    #[test]
    fn a_page_comes_before_its_instruction() {
        let plan = Plan { input: Input::Image, ..plan(Load::Closed { concurrency: 1 }) };
        let body: Value = serde_json::from_slice(&body(&plan, 0, 1)).unwrap();
        assert!(body["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
        assert_eq!(body["ignore_eos"], Value::Null);
    }
}
