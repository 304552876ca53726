//! Requests: read, checked in vLLM's order, refused in its words.

use super::Vllm;
use super::image;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Which API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// What the engine has to do.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    /// `stream_options.include_usage`.
    pub(super) usage: bool,
    /// `stream_options.continuous_usage_stats`.
    pub(super) running_usage: bool,
    pub(super) prompt_tokens: u32,
    /// Images in the prompt, and the tokens of those that are not fetched.
    pub(super) images: u32,
    pub(super) image_tokens: u32,
    /// An image that the server has to fetch itself.
    pub(super) fetch: Option<String>,
    /// `vllm_xargs.ngram_size`, which the no-repeat n-gram processor reads.
    pub(super) ngram_size: Option<Value>,
    pub(super) max_tokens: u32,
    /// Goes on after the text's end until `max_tokens`.
    pub(super) ignore_eos: bool,
}

/// A refusal.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Refusal {
    fn new(status: StatusCode, kind: &str, param: Value, message: &str) -> Self {
        Self { status, body: json!({"error": {"message": message, "type": kind, "param": param, "code": status.as_u16()}}) }
    }

    /// What the engine's side refuses.
    fn bad(param: Option<&str>, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", json!(param), message)
    }

    /// What the request model refuses.
    fn invalid(param: Option<&str>, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", json!(param), &format!("1 validation error:\n  {message}"))
    }

    fn missing(field: &str, fields: usize) -> Self {
        let place = format!("body.{field}");
        let message = format!("{{'type': 'missing', 'loc': '{place}', 'msg': 'Field required', 'input': '<dict of {fields} items>'}}");
        Self::invalid(Some(&place), &message)
    }

    /// The queue is full.
    pub(super) fn busy() -> Self {
        let message = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", Value::Null, message)
    }

    /// The engine process has died (EngineDeadError).
    pub(super) fn dead() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", Value::Null, super::chunks::ENGINE_DIED)
    }

    /// The no-repeat n-gram processor of DeepSeek-OCR refuses its argument.
    pub(super) fn ngram_size(size: &str) -> Self {
        Self::bad(None, &format!("`ngram_size` has to be a strictly positive integer, got {size}."))
    }

    /// The model takes no images.
    pub(super) fn not_multimodal(model: &str) -> Self {
        Self::bad(None, &format!("{model} is not a multimodal model"))
    }

    /// What was fetched is no image.
    pub(super) fn no_image() -> Self {
        Self::bad(None, image::NOT_AN_IMAGE)
    }

    /// A file of the server's own host, which it was not started to read.
    fn local_file() -> Self {
        Self::not_fetched("Cannot load local files without `--allowed-local-media-path`.")
    }

    /// No key, or not the server's: the one error that is a text and no object.
    pub(super) fn unauthorized() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, body: json!({"error": "Unauthorized"}) }
    }

    /// aiohttp could not fetch an image.
    pub(super) fn not_fetched(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", Value::Null, message)
    }

    /// torch.OutOfMemoryError, in the words of PyTorch.
    pub(super) fn out_of_memory() -> Self {
        let message =
            "CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 has a total capacity of 79.11 GiB of which 312.00 MiB is free.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", Value::Null, message)
    }

    pub(super) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Bad Request", Value::Null, "Request body too large")
    }
}

/// Reads a request.
pub(super) fn read(served: &Vllm, endpoint: Endpoint, content_type: &str, body: &[u8]) -> Result<Work, Refusal> {
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Refusal::invalid(None, "Unsupported Media Type: Only 'application/json' is allowed"));
    }
    let request: Value = serde_json::from_slice(body).map_err(|error| bad_json(&error))?;
    let fields = request.as_object().map_or(0, serde_json::Map::len);
    let needed = if endpoint == Endpoint::Chat { "messages" } else { "prompt" };
    if request[needed].is_null() {
        return Err(Refusal::missing(needed, fields));
    }
    let asked = request["model"].as_str().unwrap_or(&served.model);
    if asked != served.model {
        let message = format!("The model `{asked}` does not exist. Valid aliases: {}.", served.model);
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFoundError", json!("model"), &message));
    }
    let prompt_tokens = prompt_tokens(&request[needed])?;
    check_temperature(&request)?;
    let options = &request["stream_options"];
    Ok(Work {
        endpoint,
        stream: request["stream"] == true,
        usage: options["include_usage"] == true,
        running_usage: options["continuous_usage_stats"] == true,
        prompt_tokens,
        images: images(&request[needed]),
        image_tokens: image_urls(&request[needed]).filter_map(|url| image::tokens(url).ok()).sum(),
        fetch: fetched_image(&request[needed]),
        ngram_size: request["vllm_xargs"].get("ngram_size").cloned(),
        max_tokens: max_tokens(served, endpoint, &request, prompt_tokens)?,
        ignore_eos: request["ignore_eos"] == true,
    })
}

fn bad_json(error: &serde_json::Error) -> Refusal {
    // Python counts characters from 0 over all lines, serde_json columns from 1, and at the end of the text the bytes before it;
    // for the usual one-line body this is the same place.
    let at = if error.is_eof() { error.column() } else { error.column().saturating_sub(1) };
    let place = format!("body.{at}");
    let message = format!(
        "{{'type': 'json_invalid', 'loc': '{place}', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': 'Expecting value'}}}}"
    );
    Refusal::invalid(Some(&place), &message)
}

/// Tokens of a prompt: images by their size, words for the text, one to begin with.
fn prompt_tokens(prompt: &Value) -> Result<u32, Refusal> {
    if prompt.as_array().is_some_and(Vec::is_empty) {
        return Err(Refusal::bad(None, "Cannot apply chat template to an empty conversation. Provide at least one message."));
    }
    let mut tokens = 1;
    let messages = prompt.as_array().map_or(std::slice::from_ref(prompt), Vec::as_slice);
    for message in messages {
        let content = message.get("content").unwrap_or(message);
        let parts = content.as_array().map_or(std::slice::from_ref(content), Vec::as_slice);
        for part in parts {
            tokens += part_tokens(part)?;
        }
    }
    Ok(tokens)
}

/// URLs of the images in a prompt.
fn image_urls(prompt: &Value) -> impl Iterator<Item = &str> {
    let messages = prompt.as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().filter_map(|m| m["content"].as_array()).flatten().filter_map(|part| part["image_url"]["url"].as_str())
}

fn images(prompt: &Value) -> u32 {
    u32::try_from(image_urls(prompt).count()).unwrap_or(u32::MAX)
}

fn fetched_image(prompt: &Value) -> Option<String> {
    image_urls(prompt).find(|url| is_remote(url)).map(str::to_owned)
}

fn is_remote(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn part_tokens(part: &Value) -> Result<u32, Refusal> {
    match part["image_url"]["url"].as_str() {
        Some(url) if is_remote(url) => Ok(0),
        Some(url) if url.starts_with("file://") => Err(Refusal::local_file()),
        Some(url) => image::tokens(url).map_err(|message| Refusal::bad(None, message)),
        None => {
            let text = part["text"].as_str().or(part.as_str()).unwrap_or("");
            Ok(u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX / 2))
        }
    }
}

fn check_temperature(request: &Value) -> Result<(), Refusal> {
    match request["temperature"].as_f64() {
        Some(t) if t < 0.0 => {
            let message = format!("temperature must be non-negative, got {t:?}. (parameter=temperature, value={t:?})");
            Err(Refusal::bad(Some("temperature"), &message))
        }
        _ => Ok(()),
    }
}

fn max_tokens(served: &Vllm, endpoint: Endpoint, request: &Value, prompt_tokens: u32) -> Result<u32, Refusal> {
    let longest = served.max_model_len;
    if prompt_tokens > longest {
        let message = format!(
            "This model's maximum context length is {longest} tokens. However, your prompt contains at least {prompt_tokens} input tokens, which \
             exceeds this limit even without any output tokens. Please reduce the length of the input prompt. \
             (parameter=input_tokens, value={prompt_tokens})"
        );
        return Err(Refusal::bad(Some("input_tokens"), &message));
    }
    let room = longest - prompt_tokens;
    let default = if endpoint == Endpoint::Chat { room } else { 16.min(room) };
    let asked = request["max_completion_tokens"].as_i64().or(request["max_tokens"].as_i64());
    match asked {
        None => Ok(default),
        Some(asked) if asked < 1 => {
            let message = format!("max_tokens must be at least 1, got {asked}. (parameter=max_tokens, value={asked})");
            Err(Refusal::bad(Some("max_tokens"), &message))
        }
        Some(asked) if asked > i64::from(longest) => {
            let message = format!(
                "max_tokens={asked} cannot be greater than max_model_len={longest}. Please request fewer output tokens. \
                 (parameter=max_tokens, value={asked})"
            );
            Err(Refusal::bad(Some("max_tokens"), &message))
        }
        // Above the rest of the window it is clamped silently.
        Some(asked) => Ok(u32::try_from(asked).unwrap_or(room).min(room)),
    }
}
