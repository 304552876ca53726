//! A nameserver on the loopback device that answers as a test wants.

use super::*;
use hickory_resolver::proto::rr::{Record, rdata};
use std::sync::Arc;
use tokio::net::TcpListener;

/// The answer (any bytes; none means silence) to a query by datagram (`true`) or by connection.
pub(in crate::probe) type Answers = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// An answer to `query` with this code and these addresses.
pub(in crate::probe) fn reply(query: &Message, code: ResponseCode, addresses: &[Ipv4Addr]) -> Message {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata.response_code = code;
    message.add_queries(query.queries.clone());
    for a in addresses {
        message.add_answer(Record::from_rdata(query.queries[0].name().clone(), 5, RData::A(rdata::A(*a))));
    }
    message
}

/// Serves UDP and TCP on one port until the test's runtime ends.
pub(in crate::probe) async fn serve(answers: Arc<Answers>) -> SocketAddrV4 {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let std::net::SocketAddr::V4(at) = udp.local_addr().unwrap() else { unreachable!() };
    tokio::spawn(serve_tcp(tcp, answers.clone()));
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
            for bytes in answers(&Message::from_vec(&buffer[..n]).unwrap(), true) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    at
}

async fn serve_tcp(listener: TcpListener, answers: Arc<Answers>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut query).await.unwrap();
        for bytes in answers(&Message::from_vec(&query).unwrap(), false) {
            stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    }
}
