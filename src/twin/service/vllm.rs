//! Not written yet.
use crate::vantage::Net;
pub struct VllmHandle;
pub struct Settings;
impl Settings {
    pub fn for_inventory(_: &crate::def::inventory::Vllm) -> Self {
        Self
    }
}
impl VllmHandle {
    pub fn set_frozen(&self, _: bool) {}
}
pub fn serve(_: &Net, _: &Settings) -> std::io::Result<VllmHandle> {
    Ok(VllmHandle)
}
