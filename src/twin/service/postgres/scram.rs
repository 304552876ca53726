//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side.

use crate::encoding::{base64, base64_decoded};
use sha2::{Digest, Sha256};

/// Fewer than PostgreSQL's default of 4096 (`scram_iterations`): nothing is protected here, and programs that are built for
/// debugging need a while for each.
const ITERATIONS: u32 = 500;

type Key = [u8; 32];

/// What a server keeps of a password.
pub(super) struct Verifier {
    salt: [u8; 16],
    iterations: u32,
    stored: Key,
    server: Key,
}

impl Verifier {
    pub(super) fn new(password: &str, salt: [u8; 16]) -> Self {
        Self::with(password, salt, ITERATIONS)
    }

    fn with(password: &str, salt: [u8; 16], iterations: u32) -> Self {
        let salted = salted(password.as_bytes(), &salt, iterations);
        let stored = Sha256::digest(hmac(&salted, b"Client Key")).into();
        Self { salt, iterations, stored, server: hmac(&salted, b"Server Key") }
    }
}

/// PBKDF2 with one block, which is all that SCRAM needs.
fn salted(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut last = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        sum.iter_mut().zip(last).for_each(|(s, l)| *s ^= l);
    }
    sum
}

/// One exchange, after the client's first message.
pub(super) struct Exchange {
    verifier: Verifier,
    bare: String,
    /// The server's first message.
    pub(super) first: String,
    nonce: String,
    header: String,
}

impl Exchange {
    /// Of the client's first message: `n,,n=,r=NONCE`. `None` if it is none, or wants channel binding.
    pub(super) fn new(verifier: Verifier, client: &[u8], server_nonce: &str) -> Option<Self> {
        let text = std::str::from_utf8(client).ok()?;
        let (binding, rest) = text.split_once(',')?;
        let (identity, bare) = rest.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let nonce = format!("{}{server_nonce}", attribute(bare, "r=")?);
        let first = format!("r={nonce},s={},i={}", base64(&verifier.salt), verifier.iterations);
        Some(Self { verifier, bare: bare.to_owned(), first, nonce, header: format!("{binding},{identity},") })
    }

    /// The server's last message, if the client's `c=..,r=..,p=..` proves that it knows the password.
    pub(super) fn last(&self, client: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(client).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof: Key = base64_decoded(proof)?.try_into().ok()?;
        if attribute(without_proof, "r=")? != self.nonce || attribute(without_proof, "c=")? != base64(self.header.as_bytes()) {
            return None;
        }
        let said = format!("{},{},{without_proof}", self.bare, self.first);
        let signature = hmac(&self.verifier.stored, said.as_bytes());
        let mut key = proof;
        key.iter_mut().zip(signature).for_each(|(k, s)| *k ^= s);
        let knows = Sha256::digest(key).as_slice() == self.verifier.stored;
        knows.then(|| format!("v={}", base64(&hmac(&self.verifier.server, said.as_bytes()))))
    }
}

fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(',').find_map(|part| part.strip_prefix(name))
}

fn hmac(key: &[u8], text: &[u8]) -> Key {
    let mut pads = [[0x36_u8; 64], [0x5c; 64]];
    let short = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    for pad in &mut pads {
        pad.iter_mut().zip(&short).for_each(|(p, k)| *p ^= k);
    }
    // RFC 2104: both pads are the key, xored with a constant each.
    let inner = Sha256::new().chain_update(pads[0]).chain_update(text).finalize();
    Sha256::new().chain_update(pads[1]).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let salt = base64_decoded("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = Verifier::with("pencil", salt, 4096);
        let exchange = Exchange::new(verifier, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(exchange.first, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let last = |text: String| exchange.last(text.as_bytes());
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last(format!("c=biws,{nonce},p={proof}")).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(last(format!("c=biws,{nonce}x,p={proof}")), None);
        assert_eq!(last(format!("c=eSws,{nonce},p={proof}")), None);
        assert_eq!(last(format!("c=biws,{nonce},p=AHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")), None);
        for other in [&b""[..], b"n,,", b"p=tls-server-end-point,,n=,r=x", b"\xff"] {
            assert!(Exchange::new(Verifier::new("x", [0; 16]), other, "y").is_none());
        }
    }
}
