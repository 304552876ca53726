//! How many tokens DeepSeek-OCR makes of an image: a function of its size alone.

use crate::encoding::base64_decoded;

/// What PIL says of bytes that are no image, a PDF among them.
pub(super) const NOT_AN_IMAGE: &str = "Failed to load image: cannot identify image file <_io.BytesIO object>";
/// The side of a tile, in pixels.
const TILE: u32 = 640;
/// Tokens of the global view.
const GLOBAL: u32 = 273;
/// Bytes of a PNG file up to the end of its size.
const PNG_HEAD: usize = 24;

/// Tokens of an image given as a `data:` URL of a PNG; the error is the server's message.
pub(super) fn tokens(url: &str) -> Result<u32, &'static str> {
    let Some((_, coded)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) else {
        return Err("Failed to load image: only data URLs are served here");
    };
    // The first 32 digits hold the first 24 bytes.
    let head = coded.get(..PNG_HEAD / 3 * 4).unwrap_or(coded);
    let bytes = base64_decoded(head).ok_or("Non-base64 digit found")?;
    let (width, height) = png_size(&bytes).ok_or(NOT_AN_IMAGE)?;
    Ok(tokens_of(width, height))
}

/// Width and height from a PNG file's beginning (W3C PNG, sections 5.2 and 11.2.1).
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let (width, height) = header.get(..8)?.split_at(4);
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes).filter(|n| *n > 0);
    Some((number(width)?, number(height)?))
}

/// Small images have the global view alone; larger ones 2 to 6 tiles in the grid closest to their shape.
fn tokens_of(width: u32, height: u32) -> u32 {
    if width <= TILE && height <= TILE {
        return GLOBAL;
    }
    let shape = f64::from(width) / f64::from(height);
    let grids = (1..=6u32).flat_map(|w| (1..=6u32).map(move |h| (w, h))).filter(|(w, h)| (2..=6).contains(&(w * h)));
    let distance = |(w, h): &(u32, u32)| (f64::from(*w) / f64::from(*h) - shape).abs();
    let (w, h) = grids.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or((2, 1));
    GLOBAL + 10 * h * (10 * w + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64;

    #[test]
    fn known_sizes_have_the_measured_tokens() {
        for ((width, height), expected) in [((64, 64), 273), ((640, 640), 273), ((1024, 1024), 693), ((1190, 1684), 903)] {
            assert_eq!(tokens_of(width, height), expected, "{width}x{height}");
        }
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &1024u32.to_be_bytes(), &1024u32.to_be_bytes(), &[8, 2]].concat();
        assert_eq!(tokens(&format!("data:image/png;base64,{}", base64(&png))), Ok(693));
        assert_eq!(tokens("data:image/png;base64,!!"), Err("Non-base64 digit found"));
        assert!(tokens("data:image/png;base64,AAAA").unwrap_err().starts_with("Failed to load image: cannot identify"));
    }
}
