//! A narrow link: a token bucket (tbf) at a device's way out.

use super::wire::Wire;
use anyhow::{Context, Result};
use futures::StreamExt;
use rtnetlink::packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

/// `TCA_TBF_PARMS` and `TCA_TBF_BURST` (include/uapi/linux/pkt_sched.h).
const PARAMETERS: u16 = 1;
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`.
const ETHERNET: u8 = 1;
/// Bytes that may leave at once: two full frames.
const BURST_BYTES: u32 = 3_200;
/// Bytes that wait before more are dropped: nothing is lost, it only takes its time.
const QUEUE_BYTES: u32 = 1 << 20;

impl Wire {
    /// Lets no more bytes than this leave by a device each second.
    pub(super) async fn narrow(&self, device: &str, bytes_per_s: u32) -> Result<()> {
        let mut message = self.root_qdisc(device).await?;
        let options = vec![
            TcOption::Other(DefaultNla::new(PARAMETERS, parameters(bytes_per_s))),
            TcOption::Other(DefaultNla::new(BURST, BURST_BYTES.to_ne_bytes().to_vec())),
        ];
        message.attributes = vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(options)];
        self.change_qdisc(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE, device).await
    }

    /// As wide as it was.
    pub(super) async fn widen(&self, device: &str) -> Result<()> {
        let message = self.root_qdisc(device).await?;
        self.change_qdisc(RouteNetlinkMessage::DelQueueDiscipline(message), 0, device).await
    }

    async fn root_qdisc(&self, device: &str) -> Result<TcMessage> {
        let index = i32::try_from(self.index(device).await?)?;
        let mut message = TcMessage::with_index(index);
        message.header.parent = TcHandle::ROOT;
        Ok(message)
    }

    async fn change_qdisc(&self, message: RouteNetlinkMessage, flags: u16, device: &str) -> Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io()).with_context(|| format!("{}: queueing discipline of {device}", self.name));
            }
        }
        Ok(())
    }
}

/// `struct tc_tbf_qopt`: two `tc_ratespec` of 12 bytes, the rate and no peak rate; limit, buffer and mtu.
fn parameters(bytes_per_s: u32) -> Vec<u8> {
    let rate = [&[0, ETHERNET, 0, 0, 0, 0, 0, 0][..], &bytes_per_s.to_ne_bytes()].concat();
    [rate, vec![0; 12], QUEUE_BYTES.to_ne_bytes().to_vec(), vec![0; 8]].concat()
}
