//! An A4 page of hexadecimal words as a PNG image, a new one for each number: no cache has seen its pixels.

use super::random::Random;

/// Pixels of A4 at 144 dpi: DeepSeek-OCR makes 903 tokens of it.
const SIZE: (usize, usize) = (1190, 1684);
/// Pixels of a dot of the font; columns and lines of letters.
const DOT: usize = 4;
const GRID: (usize, usize) = (44, 34);
const MARGIN: usize = 60;
/// Dots from one letter, and one line, to the next.
const ADVANCE: (usize, usize) = (6, 11);

/// Rows of the hexadecimal digits, 5 dots wide, the leftmost the highest bit.
const FONT: [[u8; 7]; 16] = [
    [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
    [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
    [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
    [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
    [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
    [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
    [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
    [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
    [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
    [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
    [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
    [0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e],
    [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
    [0x1c, 0x12, 0x11, 0x11, 0x11, 0x12, 0x1c],
    [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f],
    [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10],
];

/// The page of a number, as a PNG file of one bit for each pixel (about 250 KB).
pub(super) fn png(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let letters: Vec<Option<usize>> = (0..GRID.0 * GRID.1).map(|at| (at % GRID.0 % 9 != 8).then(|| random.below(FONT.len()))).collect();
    let stride = SIZE.0.div_ceil(8);
    let mut rows = Vec::with_capacity((stride + 1) * SIZE.1);
    for y in 0..SIZE.1 {
        // Filter type 0, then the pixels: 1 is white.
        rows.push(0);
        rows.extend((0..stride).map(|byte| (0..8).fold(0u8, |bits, bit| bits << 1 | u8::from(!ink(&letters, byte * 8 + bit, y)))));
    }
    encode(&rows)
}

fn ink(letters: &[Option<usize>], x: usize, y: usize) -> bool {
    let Some((x, y)) = x.checked_sub(MARGIN).zip(y.checked_sub(MARGIN)) else { return false };
    let (column, row) = (x / DOT, y / DOT);
    let (cell, line) = (column / ADVANCE.0, row / ADVANCE.1);
    if cell >= GRID.0 || line >= GRID.1 {
        return false;
    }
    let (dot, height) = (column % ADVANCE.0, row % ADVANCE.1);
    let glyph = letters.get(line * GRID.0 + cell).copied().flatten().map(|digit| FONT[digit]);
    dot < 5 && glyph.and_then(|g| g.get(height).copied()).is_some_and(|bits| bits >> (4 - dot) & 1 == 1)
}

/// W3C PNG: signature, IHDR (greyscale, 1 bit), IDAT (zlib with stored blocks: nothing here needs to be small), IEND.
fn encode(rows: &[u8]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let (width, height) = (SIZE.0 as u32, SIZE.1 as u32);
    chunk(&mut png, b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat());
    let mut zlib = vec![0x78, 0x01];
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        zlib.push(u8::from(blocks.peek().is_none()));
        zlib.extend_from_slice(&length.to_le_bytes());
        zlib.extend_from_slice(&(!length).to_le_bytes());
        zlib.extend_from_slice(block);
    }
    zlib.extend_from_slice(&adler(rows).to_be_bytes());
    chunk(&mut png, b"IDAT", &zlib);
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let from = png.len();
    png.extend_from_slice(kind);
    png.extend_from_slice(data);
    let sum = crc(&png[from..]);
    png.extend_from_slice(&sum.to_be_bytes());
}

/// CRC-32 (W3C PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0u32, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

/// Adler-32 (RFC 1950).
fn adler(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_the_literature() {
        assert_eq!((crc(b"123456789"), adler(b"Wikipedia")), (0xcbf4_3926, 0x11e6_0398));
    }

    #[test]
    fn a_page_has_its_size_and_differs_from_the_next() {
        let (one, two) = (png(1), png(2));
        assert_eq!(&one[16..24], [1190u32.to_be_bytes(), 1684u32.to_be_bytes()].concat());
        assert_eq!((one.len(), one == two, one == png(1)), (two.len(), false, true));
        // 150 bytes a line are 252,600 bytes of stored data.
        assert!((252_600..253_000).contains(&one.len()), "{}", one.len());
        let black: u32 = one[100..].iter().map(|b| b.count_zeros()).sum();
        assert!((100_000..600_000).contains(&black), "{black}");
    }
}
