//! One STUN binding request (RFC 8489): the source address and port that a server on the other side of a NAT saw.

use super::net::io_word;
use crate::vantage::Net;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const IPV4: u8 = 1;
/// A lost datagram is sent again after this.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// The transaction of a request.
type Transaction = [u8; 12];

/// Asks a server; the error is an errno word or TIMEOUT.
pub(super) async fn mapped_address(net: &Net, server: SocketAddrV4, until: Instant) -> Result<SocketAddrV4, String> {
    let socket = net.with(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    let socket = socket.and_then(|made| made).map_err(|e| io_word(&e))?;
    let transaction = transaction();
    let mut buffer = [0; 1500];
    while Instant::now() < until {
        socket.send(&request(&transaction)).await.map_err(|e| io_word(&e))?;
        let again = until.min(Instant::now() + RETRANSMIT);
        // Anything that is no answer to this request is passed over.
        while let Ok(received) = timeout_at(again, socket.recv(&mut buffer)).await {
            let length = received.map_err(|e| io_word(&e))?;
            if let Some(address) = read(&buffer[..length], &transaction) {
                return Ok(address);
            }
        }
    }
    Err("TIMEOUT".to_owned())
}

/// 96 bits that nobody can guess, from the keys of the standard library's hasher.
fn transaction() -> Transaction {
    let word = || RandomState::new().build_hasher().finish().to_be_bytes();
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&word());
    bytes[8..].copy_from_slice(&word()[..4]);
    bytes
}

fn request(transaction: &Transaction) -> Vec<u8> {
    [&BINDING_REQUEST.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE.to_be_bytes(), transaction].concat()
}

/// The mapped address of a success response to this transaction; the XORed one if there are both.
fn read(message: &[u8], transaction: &Transaction) -> Option<SocketAddrV4> {
    let (head, attributes) = message.split_at_checked(20)?;
    let right = head[..2] == BINDING_SUCCESS.to_be_bytes() && head[4..8] == MAGIC_COOKIE.to_be_bytes() && head[8..] == *transaction;
    if !right {
        return None;
    }
    let find = |wanted| attributes_of(attributes).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| address(value));
    let xored = find(XOR_MAPPED_ADDRESS).map(|at| {
        let port = at.port() ^ u16::try_from(MAGIC_COOKIE >> 16).unwrap_or_default();
        SocketAddrV4::new(Ipv4Addr::from(u32::from(*at.ip()) ^ MAGIC_COOKIE), port)
    });
    xored.or_else(|| find(MAPPED_ADDRESS))
}

/// For fuzzers: whether a message is an answer with an address, whichever request it answers.
pub(super) fn kept(message: &[u8]) -> usize {
    let transaction = message.get(8..20).and_then(|id| Transaction::try_from(id).ok());
    usize::from(transaction.is_some_and(|id| read(message, &id).is_some()))
}

/// Type and value of each attribute; values are padded to four bytes.
fn attributes_of(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..length)?;
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    })
}

fn address(value: &[u8]) -> Option<SocketAddrV4> {
    match *value {
        [_, IPV4, p, q, a, b, c, d] => Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p, q]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: Transaction = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

    /// A response for 192.0.2.1:32853, its attributes coded as in RFC 5769, section 2.2.
    fn sample(transaction: &Transaction) -> Vec<u8> {
        let attributes = b"\x80\x22\x00\x0btest vector \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
        [&b"\x01\x01\x00\x1c\x21\x12\xa4\x42"[..], transaction, attributes].concat()
    }

    #[test]
    fn a_response_as_the_rfc_codes_it() {
        assert_eq!(read(&sample(&TRANSACTION), &TRANSACTION), Some("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(read(&sample(&TRANSACTION), &[0; 12]), None);
    }

    #[test]
    fn hostile_answers_never_panic() {
        let mut bytes = sample(&TRANSACTION);
        for cut in 0..bytes.len() {
            let _ = read(&bytes[..cut], &TRANSACTION);
        }
        for at in 20..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let kept = std::mem::replace(&mut bytes[at], value);
                let _ = read(&bytes, &TRANSACTION);
                bytes[at] = kept;
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_first_sends_garbage_and_one_that_is_silent() {
        let (server, silent) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let at = |socket: &UdpSocket| SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port());
        let (talks, says_nothing) = (at(&server), at(&silent));
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let (_, peer) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(b"garbage", peer).await.unwrap();
            server.send_to(&sample(buffer[8..20].try_into().unwrap()), peer).await.unwrap();
        });
        let soon = |ms| Instant::now() + Duration::from_millis(ms);
        assert_eq!(mapped_address(&Net::Here, talks, soon(3000)).await, Ok("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(mapped_address(&Net::Here, says_nothing, soon(600)).await, Err("TIMEOUT".to_owned()));
    }
}
