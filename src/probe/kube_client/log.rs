//! Logs of pods: plain text that the API server fetches from the kubelet.

use super::{Connected, Failure};

impl Connected {
    /// Asks for a log. `path` should bound it (`tailLines`, `limitBytes`); the bound of every body holds besides.
    pub(crate) async fn log(&self, path: &str) -> Result<String, Failure> {
        let answer = self.get_as(path, "*/*").await?;
        match answer.failure("get pods/log") {
            Some(failure) => Err(failure),
            None => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
        }
    }
}
