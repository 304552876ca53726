//! The registers of nf_tables' virtual machine, byte by byte known or not.

/// Bytes of all 32-bit registers (NFT_REG32_00 to NFT_REG32_15).
const SIZE: usize = 64;

/// What is in the registers while a rule is followed.
#[derive(Clone, Debug)]
pub(super) struct Registers([Option<u8>; SIZE]);

impl Registers {
    pub(super) fn new() -> Self {
        Self([None; SIZE])
    }

    /// Where a register begins: 1 to 4 are four of 16 bytes, 8 to 23 the same memory as sixteen of 4 bytes.
    fn place(register: u32) -> Option<usize> {
        let register = register as usize;
        match register {
            1..=4 => Some((register - 1) * 16),
            8..=23 => Some((register - 8) * 4),
            _ => None,
        }
    }

    /// Puts bytes into a register; the rest of its last 32 bits becomes zero, as the kernel does it.
    pub(super) fn put(&mut self, register: u32, bytes: &[Option<u8>]) {
        let Some(at) = Self::place(register) else { return };
        let whole = bytes.len().next_multiple_of(4);
        for n in 0..whole.min(SIZE - at) {
            self.0[at + n] = bytes.get(n).copied().unwrap_or(Some(0));
        }
    }

    /// Puts known bytes into a register.
    pub(super) fn put_known(&mut self, register: u32, bytes: &[u8]) {
        let known: Vec<Option<u8>> = bytes.iter().copied().map(Some).collect();
        self.put(register, &known);
    }

    /// Forgets what is in a register.
    pub(super) fn forget(&mut self, register: u32, length: usize) {
        self.put(register, &vec![None; length.min(SIZE)]);
    }

    /// Bytes of a register, each known or not.
    pub(super) fn bytes(&self, register: u32, length: usize) -> Vec<Option<u8>> {
        let at = Self::place(register).unwrap_or(SIZE);
        (at..at + length).map(|n| self.0.get(n).copied().flatten()).collect()
    }

    /// Bytes of a register if all of them are known.
    pub(super) fn known(&self, register: u32, length: usize) -> Option<Vec<u8>> {
        self.bytes(register, length).into_iter().collect()
    }
}
