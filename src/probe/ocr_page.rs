//! The built-in sample page: four lines of large letters, 1024 x 1024 pixels, black on white.
//!
//! `assets/ocr-page.png` is drawn by the test below; `FATHOM_WRITE_ASSETS=1 cargo test --lib ocr_page` draws it anew.

use crate::encoding::base64;

/// The page as a PNG file.
const PNG: &[u8] = include_bytes!("../../assets/ocr-page.png");
/// Width and height, in pixels.
pub(super) const SIDE: u32 = 1024;
/// What stands on it.
const LINES: [&str; 4] = ["VESSEL REGISTER", "NAME FLAG IMO", "OCEANIA NO 9123456", "CALYPSO PA 9876543"];

/// The page as a `data:` URL.
pub(super) fn data_url() -> String {
    format!("data:image/png;base64,{}", base64(PNG))
}

/// The words on the page.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    LINES.iter().flat_map(|line| line.split(' '))
}

/// How many of the page's words a text holds, letter case and everything but letters and digits aside.
pub(super) fn words_in(text: &str) -> usize {
    let text = text.to_uppercase();
    let found: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    words().filter(|word| found.contains(word)).count()
}

/// Tokens that DeepSeek-OCR makes of an image: 273 for its global view, and for one larger than 640 pixels also its tiles
/// (2 to 6 of 640 x 640, in the grid closest to its shape). Measured on vLLM 0.32.
pub(super) fn image_tokens(width: u32, height: u32) -> u64 {
    const TILE: u32 = 640;
    const GLOBAL: u64 = 273;
    if width.max(height) <= TILE {
        return GLOBAL;
    }
    let shape = f64::from(width) / f64::from(height.max(1));
    let grids = (1..=6_u32).flat_map(|w| (1..=6_u32).map(move |h| (w, h))).filter(|(w, h)| (2..=6).contains(&(w * h)));
    let off = |(w, h): (u32, u32)| (f64::from(w) / f64::from(h) - shape).abs();
    let best = grids.min_by(|a, b| off(*a).total_cmp(&off(*b)));
    let (w, h) = best.map_or((1, 2), |(w, h)| (u64::from(w), u64::from(h)));
    GLOBAL + 10 * h * (10 * w + 1)
}

/// Whether a text ends in one piece said over and over: at least four times, and at least 40 characters of it.
pub(crate) fn repeats(text: &str) -> bool {
    const LONGEST_PIECE: usize = 200;
    let tail: Vec<char> = text.chars().rev().take(4 * LONGEST_PIECE).collect();
    (1..=LONGEST_PIECE).any(|piece| {
        let span = (4 * piece).max(40);
        tail.len() >= span && (piece..span).all(|at| tail[at] == tail[at - piece])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels of the page for each dot of the font.
    const DOT: usize = 8;
    /// Dots from one letter, or line, to the next.
    const ADVANCE: (usize, usize) = (6, 11);
    const MARGIN: usize = 8;

    /// Rows of a letter, 5 dots wide, the leftmost the highest bit.
    fn glyph(c: char) -> [u8; 7] {
        match c {
            'A' => [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
            'C' => [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
            'E' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f],
            'F' => [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10],
            'G' => [0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f],
            'I' => [0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e],
            'L' => [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f],
            'M' => [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11],
            'N' => [0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11],
            'O' => [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
            'P' => [0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10],
            'R' => [0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11],
            'S' => [0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e],
            'T' => [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
            'V' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04],
            'Y' => [0x11, 0x11, 0x11, 0x0a, 0x04, 0x04, 0x04],
            '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
            '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
            '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
            '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
            '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
            '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
            '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
            '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
            '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
            ' ' => [0; 7],
            other => panic!("no glyph for {other}"),
        }
    }

    fn ink(x: usize, y: usize) -> bool {
        let (column, row) = (x / DOT, y / DOT);
        let Some((column, row)) = column.checked_sub(MARGIN).zip(row.checked_sub(MARGIN)) else { return false };
        let letter = LINES.get(row / ADVANCE.1).and_then(|line| line.chars().nth(column / ADVANCE.0));
        let (dot, line) = (column % ADVANCE.0, row % ADVANCE.1);
        letter.is_some_and(|c| dot < 5 && line < 7 && glyph(c)[line] >> (4 - dot) & 1 == 1)
    }

    /// Rows as PNG filters them: type 0, then one bit for each pixel, 1 is white.
    fn rows() -> Vec<Vec<u8>> {
        let side = SIDE as usize;
        let byte = |y: usize, n: usize| (0..8).fold(0_u8, |b, bit| b << 1 | u8::from(!ink(n * 8 + bit, y)));
        (0..side).map(|y| std::iter::once(0).chain((0..side / 8).map(|n| byte(y, n))).collect()).collect()
    }

    /// Deflate (RFC 1951) with fixed codes: a row is written out, or copied from the one above it.
    struct Deflate {
        bytes: Vec<u8>,
        bit: u32,
    }

    impl Deflate {
        fn bits(&mut self, value: u32, count: u32) {
            for n in 0..count {
                if self.bit == 0 {
                    self.bytes.push(0);
                }
                *self.bytes.last_mut().unwrap() |= u8::try_from(value >> n & 1).unwrap() << self.bit;
                self.bit = (self.bit + 1) % 8;
            }
        }

        /// Huffman codes go highest bit first.
        fn code(&mut self, value: u32, count: u32) {
            self.bits(value.reverse_bits() >> (32 - count), count);
        }

        fn literal(&mut self, byte: u8) {
            match byte {
                0..=143 => self.code(0x30 + u32::from(byte), 8),
                _ => self.code(0x190 + u32::from(byte) - 144, 9),
            }
        }

        /// 129 bytes from 129 back: length code 280 with 14, distance code 14 with 0.
        fn copy_row(&mut self) {
            self.code(0xc0, 8);
            self.bits(14, 4);
            self.code(14, 5);
            self.bits(0, 6);
        }
    }

    fn zlib(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Deflate { bytes: vec![0x78, 0x01], bit: 0 };
        out.bits(0b011, 3);
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), 129);
            if n > 0 && rows[n - 1] == *row { out.copy_row() } else { row.iter().for_each(|b| out.literal(*b)) }
        }
        out.code(0, 7);
        let (a, b) = rows.iter().flatten().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        [out.bytes, (b << 16 | a).to_be_bytes().to_vec()].concat()
    }

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [&kind[..], data].concat();
        let crc = body
            .iter()
            .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 }));
        [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
    }

    /// The page (W3C PNG): greyscale, 1 bit.
    fn draw() -> Vec<u8> {
        let header = [&SIDE.to_be_bytes()[..], &SIDE.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &zlib(&rows())), &chunk(b"IEND", &[])].concat()
    }

    #[test]
    fn the_asset_is_what_is_drawn_here() {
        let drawn = draw();
        if std::env::var_os("FATHOM_WRITE_ASSETS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/ocr-page.png"), &drawn).unwrap();
            return;
        }
        assert!(drawn == PNG, "assets/ocr-page.png is stale: FATHOM_WRITE_ASSETS=1 cargo test --lib ocr_page");
        assert!(PNG.len() < 16 << 10, "{} bytes", PNG.len());
    }

    #[test]
    fn known_sizes_have_the_measured_tokens() {
        for (size, tokens) in [((64, 64), 273), ((640, 640), 273), ((1024, 1024), 693), ((1190, 1684), 903)] {
            assert_eq!(image_tokens(size.0, size.1), tokens);
        }
        assert!(image_tokens(u32::MAX, 0) > 273);
    }

    #[test]
    fn words_and_loops_are_recognised() {
        let page = "# Vessel register\n\n| Name | Flag | IMO |\n|---|---|---|\n| Oceania | NO | 9123456 |\n| Calypso | PA | 9876543 |\n";
        assert_eq!((words_in(page), words().count(), repeats(page)), (11, 11, false));
        assert_eq!(words_in("ck.ck."), 0);
        assert!(repeats(&format!("{page}{}", "| Name | Flag |\n".repeat(5))));
        assert!(repeats(&"a".repeat(40)) && !repeats(&"a".repeat(39)) && !repeats(""));
    }
}
